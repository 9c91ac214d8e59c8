//! The box sees in time that its container's memory runs short, by what the kernel tells of it.

use std::thread;

use serde_json::{Value, json};
use wasmbox_tests::{Answer, Request, WasmBox, eventually, guest, server::Launch, vm};

use crate::{cgroup::Cgroup, container::Container};

const MIB: u64 = 1 << 20;

/// A box with a function that fills 100 MiB and keeps them, and one that fills 150 as soon as its input is at an end.
fn launch() -> Launch {
    let (data, print) = guest::text("done\n");
    let fill = |before: &str, mebibytes: u64, after: &str| {
        let body = format!(
            "(local $at i32) {before}
             (local.set $at (i32.mul (memory.grow (i32.const {pages})) (i32.const 65536)))
             (if (i32.lt_s (local.get $at) (i32.const 0)) (then unreachable))
             (memory.fill (local.get $at) (i32.const 120) (i32.const {bytes})) {after}",
            pages = mebibytes * 16,
            bytes = mebibytes * MIB
        );
        guest::command_with(&data, &body)
    };
    WasmBox::launch()
        // The requests of both fit, as if the box were larger.
        .flag("--concurrent-resource-request", 1024)
        .function("hello.wat", guest::hello())
        .function("older.wat", fill("(call $copy (i32.const 0) (i32.const 2))", 150, &print))
        .function("younger.wat", fill("", 100, "(call $sleep (i64.const 86400000))"))
}

/// A value of a cgroup's `memory.stat` or `memory.events`.
fn field(cgroup: &Cgroup, file: &str, name: &str) -> u64 {
    let text = cgroup.read(file).expect("the memory controller is there");
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("{name} in {text}")).parse().expect("a number")
}

/// As the kubelet computes it.
fn working_set(cgroup: &Cgroup) -> u64 {
    let current: u64 = cgroup.read("memory.current").expect("a container has it").parse().expect("a number");
    current - field(cgroup, "memory.stat", "inactive_file")
}

fn status(server: &WasmBox) -> Value {
    serde_json::from_str(server.admin("/status").ok().text()).expect("JSON")
}

/// Two want more than there is: the younger one goes, and the kernel kills nobody. `limited` has the limit, of 256 MiB.
fn the_youngest_goes(container: &Container, limited: &Cgroup) {
    limited.write("memory.max", "256M").expect("a limit");
    let server = container.start(launch());
    let memory = &status(&server)["memory"];
    assert_eq!((memory["source"].as_str(), memory["limit_bytes"].as_u64()), (Some("cgroup"), Some(256 * MIB)));
    server.call(Request::options("/younger"), "");
    let request = "POST /older HTTP/1.1\r\nHost: box\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n";
    let mut older = server.wire(request);
    server.wait_until_running("older", 1);
    let younger: Answer = thread::scope(|scope| {
        let younger = scope.spawn(|| server.get("/younger"));
        let near = |one: u64, other: u64| one.abs_diff(other) < 8 * MIB;
        eventually("the filled memory shows", || {
            let shown = server.metrics().sum("wasmbox_memory_working_set_bytes", &[]) as u64;
            (shown > 100 * MIB && near(shown, working_set(container.cgroup()))).then_some(())
        });
        older.send_chunk(b"");
        younger.join().expect("an answer")
    });
    younger.problem(503, "evicted");
    assert!(younger.number("retry-after") > 0.0);
    assert_eq!(older.answer().ok().text(), "done\n");
    server.get("/hello").ok();
    assert_eq!(server.metrics().sum("wasmbox_evicted_total", &[]), 1.0);
    for event in ["oom", "oom_kill"] {
        assert_eq!(field(limited, "memory.events", event), 0, "{event}");
    }
}

#[test]
fn the_youngest_goes_before_the_kernel_kills() {
    vm::inside(|| {
        let container = Container::delegated("memory", 1000);
        the_youngest_goes(&container, container.cgroup());
    });
}

/// A pod is resized in place.
#[test]
fn a_limit_that_changes_is_followed() {
    vm::inside(|| {
        let container = Container::delegated("resized", 1000);
        container.cgroup().write("memory.max", "256M").expect("a limit");
        let server = container.start(WasmBox::launch().function("hello.wat", guest::hello()));
        let waits = |mebibytes: u64| {
            eventually("the new limit", || {
                let status = status(&server);
                let now = [&status["memory"]["limit_bytes"], &status["capacity"]["units"], &status["queue_units"]];
                (now == [mebibytes * MIB, mebibytes, 2 * mebibytes]).then_some(())
            });
            assert_eq!(server.metrics().sum("wasmbox_memory_limit_bytes", &[]), (mebibytes * MIB) as f64);
            server.get("/hello").ok();
        };
        let most = |mebibytes: u64| server.call(Request::get("/hello").header("Memory-Request", mebibytes), "");
        waits(256);
        most(257).problem(400, "exceeds-capacity");
        container.cgroup().write("memory.max", "512M").expect("more");
        waits(512);
        most(257).ok();
        container.cgroup().write("memory.max", "192M").expect("less");
        waits(192);
        most(193).problem(400, "exceeds-capacity");
        most(192).ok();
    });
}

#[test]
fn a_limit_further_up_holds_too() {
    vm::inside(|| {
        let pod = Cgroup::container("pod");
        pod.write("cgroup.subtree_control", "+cpu +memory").expect("nothing is in it");
        let container = Container::host("pod/container");
        the_youngest_goes(&container, &pod);
    });
}

/// Above `memory.high` the kernel makes those wait who take memory. Nothing new starts then, although the limit is far away.
#[test]
fn nothing_starts_under_pressure() {
    vm::inside(|| {
        let container = Container::delegated("pressure", 1000);
        let server = container.start(launch().function("growing.wat", guest::growing(180, 0)));
        server.get("/hello").ok();
        server.call(Request::options("/growing"), "");
        let some = || container.cgroup().read("memory.pressure").expect("this kernel has PSI");
        assert!(some().starts_with("some avg10=0.00"), "{}", some());
        let used = working_set(container.cgroup());
        container.cgroup().write("memory.high", &(used + 32 * MIB).to_string()).expect("a mark");

        let growing = server.wire("GET /growing HTTP/1.1\r\nHost: box\r\n\r\n");
        let line = server.logged(&["gate closed", "stalls", "Memory"]);
        let closed = || server.metrics().sum("wasmbox_admission_gate_closed", &["gate=\"memory\""]);
        eventually("the gate is closed", || (closed() == 1.0).then_some(()));
        eventually("its state shows it", || (status(&server)["closed_gates"] == json!(["memory"])).then_some(()));
        assert_eq!(field(container.cgroup(), "memory.events", "max"), 0, "{line}");

        drop(growing);
        eventually("the gate is open", || (closed() == 0.0).then_some(()));
        server.get("/hello").ok();
    });
}
