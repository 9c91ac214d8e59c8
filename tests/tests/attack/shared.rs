//! Instances that serve several requests at once: authors whose tasks do not end, and clients who fill such instances.

use wasmbox_tests::{Attack, Request, attack::together, component::p3_guest, eventually};

use crate::{assert_coded, begun, host_memory::CROWDED};

fn within(mebibytes: u64) -> Attack {
    Attack::within(mebibytes)
        .function("p3.wasm", p3_guest())
        .function("p3.toml", "[instance]\nreuse = 1000\nconcurrent = 16")
}

/// What they write, and hold, and compute is that of one invocation.
#[test]
fn tasks_that_never_end() {
    within(512).log_bytes(64 << 20).run(|server| {
        let paths = [
            "/p3/goes-on?86400000",
            "/p3/flood?2000",
            "/p3/loop",
            "/p3/sleep",
            "/p3/never",
            "/p3/at-once?1000,86400000",
            "/p3/leaves-open",
            "/p3/trap-later",
        ];
        together(32, |client| {
            let request = Request::get(paths[client % paths.len()]).header("Memory-Request", "8");
            let answer = server.try_call(request.header("Invocation-Timeout", "1000"), "");
            if let Some(answer) = begun(answer)
                && answer.status != 200
            {
                let codes = ["deadline-exceeded", "guest-trap", "guest-memory-limit", "evicted", "compiling"];
                assert_coded(&answer, &[&codes, CROWDED].concat());
            }
        });
    });
}

/// They take all places of as many instances as there may be, send half of a body or read nothing, and leave when the next one comes.
#[test]
fn clients_that_fill_instances() {
    // Of their workers and cgroups, and of connections.
    within(512).descriptors(2000).run(|server| {
        eventually("it is compiled", || (server.get("/p3/status?200").status == 200).then_some(()));
        together(64, |client| {
            let memory = "Memory-Request: 8\r\nInvocation-Timeout: 2000";
            let mut wire = server.wire(match client % 3 {
                0 => format!("GET /p3/stay HTTP/1.1\r\nHost: box\r\n{memory}\r\n\r\n"),
                1 => format!("POST /p3/copy HTTP/1.1\r\nHost: box\r\n{memory}\r\nContent-Length: 100000\r\n\r\nabc"),
                _ => format!("GET /p3/write?100000000 HTTP/1.1\r\nHost: box\r\n{memory}\r\n\r\n"),
            });
            std::thread::sleep(std::time::Duration::from_millis(20 * (client as u64 % 7)));
            if client % 2 == 0 {
                wire.finish();
            }
            wire.reset();
        });
    });
}

/// The deadline counts, not the quota; of the permit, too.
#[test]
fn one_long_instruction_with_the_smallest_quota() {
    within(512).run(|server| {
        eventually("it is compiled", || (server.get("/p3/status?200").status == 200).then_some(()));
        let request = Request::get("/p3/fill?187").header("Cpu-Quota", "1").header("Memory-Request", "190");
        let answer = server.call(request.header("Invocation-Timeout", "1000"), "");
        assert_coded(&answer, &["deadline-exceeded", "queue-timeout"]);
        // Nor does it hold what it was given for longer.
        server.wait_until_idle();
    });
}

/// Nobody waits for the instruction then, and the permit comes back.
#[test]
fn one_long_instruction_whose_client_leaves() {
    within(512).run(|server| {
        eventually("it is compiled", || (server.get("/p3/status?200").status == 200).then_some(()));
        let head = "GET /p3/fill?187 HTTP/1.1\r\nHost: box\r\nCpu-Quota: 1\r\nMemory-Request: 190\r\n\r\n";
        let wire = server.wire(head);
        server.wait_until_running("p3", 1);
        drop(wire);
        server.wait_until_idle();
    });
}
