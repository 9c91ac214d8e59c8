//! The box in a container's cgroup.

use std::fs;

use wasmbox_tests::{WasmBox, guest, vm};

use crate::container::Cgroup;

#[test]
fn a_box_in_a_container_answers() {
    vm::inside(|| {
        let container = Cgroup::container("test-box");
        container.write("memory.max", "512M").expect("a limit");
        let entered = container.enter();
        // Compiled in here: the CPU is not the host's, so neither is the code.
        let server = WasmBox::with("hello.wat", guest::hello());
        drop(entered);
        let cgroup = fs::read_to_string(format!("/proc/{}/cgroup", server.process().0)).expect("the box runs");
        assert_eq!(cgroup.trim_end(), container.name());
        assert_eq!(server.get("/hello").ok().text(), "hello\n");
    });
}
