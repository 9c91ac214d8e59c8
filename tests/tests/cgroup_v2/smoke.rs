//! The box starts and answers where it may be.

use std::fs;

use wasmbox_tests::{WasmBox, guest, vm};

use crate::container::Container;

fn answers(container: &Container) {
    container.cgroup().write("memory.max", "512M").expect("a limit");
    // Compiled in here: the CPU is not the host's, so neither is the code.
    let server = container.start(WasmBox::launch().function("hello.wat", guest::hello()));
    let cgroup = fs::read_to_string(format!("/proc/{}/cgroup", server.process().0)).expect("the box runs");
    assert_eq!(cgroup.trim_end(), container.cgroup().name());
    assert_eq!(server.get("/hello").ok().text(), "hello\n");
}

#[test]
fn on_a_host() {
    vm::inside(|| answers(&Container::host("test-box")));
}

#[test]
fn in_a_container_as_another_user() {
    vm::inside(|| answers(&Container::delegated("test-user", 1000)));
}
