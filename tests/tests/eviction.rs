//! Two functions want more memory than there is: the younger one goes, wherever it is just then.
//!
//! The box is in a cgroup of its own, with a memory limit. Where none can be made these tests fail.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use wasmbox_tests::{
    Collector, Request, TestCgroup, WasmBox, Wire, client::Http2, eventually, guest, patience::in_one_of_three,
    server::Launch,
};

/// A box of 256 MiB. Its function `younger` has 100 MiB, and does not end; `older` wants 150 as soon as its input is at an end.
fn rivals(container: &TestCgroup, rest: &str) -> Launch {
    let (data, print) = guest::text("begun\n");
    let grow = |pages| format!("(if (i32.lt_s (memory.grow (i32.const {pages})) (i32.const 0)) (then unreachable))");
    let older = format!("(call $copy (i32.const 0) (i32.const 1)) {} {print}", grow(2400));
    let younger = format!("{} {print} {rest}", grow(1600));
    WasmBox::launch()
        .within(container)
        .env("ENABLE_CGROUPS", "true")
        // The requests of both fit, as if the box were larger.
        .flag("--concurrent-resource-request", 1024)
        .function("older.wat", guest::command_with(&data, &older))
        .function("younger.wat", guest::command_with(&data, &younger))
        .function("younger.toml", "output-buffer-bytes = 0")
}

/// Starts it, and compiles before it counts.
fn start(rivals: Launch) -> WasmBox {
    let server = rivals.start();
    server.call(Request::options("/younger"), "");
    server
}

/// Begins `older`, which waits.
fn begin_older(server: &WasmBox) -> Wire {
    let head = "POST /older HTTP/1.1\r\nHost: box\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n";
    let wire = server.wire(head);
    server.wait_until_running("older", 1);
    wire
}

/// Lets it have its memory, and end.
fn end_older(mut wire: Wire) {
    wire.send_chunk(b"");
    assert_eq!(wire.answer().ok().text(), "xbegun\n");
}

/// What it was answered cannot be taken back, but it must not look whole.
#[test]
fn an_answer_that_has_begun_is_broken_off() {
    let container = TestCgroup::with_memory(256);
    let server = start(rivals(&container, "(call $sleep (i64.const 86400000))"));

    let older = begin_older(&server);
    let mut younger = server.wire("GET /younger HTTP/1.1\r\nHost: box\r\n\r\n");
    let head = younger.head();
    assert_eq!(head.status, 200);
    assert_eq!(younger.chunk().expect("a first part"), Some(b"begun\n".to_vec()));
    end_older(older);
    assert_eq!(younger.rest(), b"", "neither more of it, nor the last chunk");
    let id = head.headers["wasmbox-invocation-id"].to_str().expect("digits");
    server.logged(&["WARN", id, "evicted", "an earlier invocation waits for memory", "held_mib=100"]);
    server.logged(&["invocation", id, "status=200", "failure=", "ran short of memory"]);

    let older = begin_older(&server);
    let connection = Http2::connect(server.address());
    let younger = connection.open("/younger");
    assert_eq!(younger.status(), 200);
    end_older(older);
    let broken = connection.rest(younger).expect_err("the stream is reset");
    assert_eq!(broken.body, "begun\n", "{broken:?}");

    server.wait_until_idle();
    let metrics = server.metrics();
    assert_eq!(metrics.sum("wasmbox_evicted_total", &[]), 2.0);
    let ended = |status: &str| metrics.sum("wasmbox_invocations_total", &["function=\"younger\"", status]);
    // The status that their clients saw.
    assert_eq!((ended("status=\"200\""), ended("status=\"503\"")), (2.0, 0.0));
    eventually("guests' memory is given back", || {
        (server.metrics().sum("wasmbox_guest_memory_bytes", &[]) == 0.0).then_some(())
    });
    assert_eq!(container.oom_kills(), 0);
}

/// A budget of 1 ms is used up before the kernel looks, several times over: that takes as many periods, of a second, to be made good.
#[test]
fn one_that_its_quota_keeps_from_running_ends_at_once() {
    // Not before its period ended, or the machine was late.
    in_one_of_three(evicted_while_throttled, |waited| *waited < Duration::from_millis(900));
}

/// How long it took to end it.
fn evicted_while_throttled() -> Duration {
    let container = TestCgroup::with_memory(256);
    let collector = Collector::start();
    let rivals = rivals(&container, "(loop $again (br $again))").flag("--otlp-endpoint", collector.endpoint());
    let server = start(rivals);
    let older = begin_older(&server);
    let request = "GET /younger HTTP/1.1\r\nHost: box\r\nCpu-Quota: 1\r\n\r\n";
    let mut younger = server.wire(request);
    assert_eq!(younger.head().status, 200);
    let read = |leaf: &Path, file: &str| fs::read_to_string(leaf.join(file)).unwrap_or_default();
    let limited = || container.leaves().into_iter().find(|leaf| read(leaf, "cpu.cfs_quota_us") == "1000\n");
    let leaf = eventually("a leaf with the quota", limited);
    eventually("it is throttled", || (!read(&leaf, "cpu.stat").contains("nr_throttled 0\n")).then_some(()));

    let started = Instant::now();
    end_older(older);
    younger.rest();
    let waited = started.elapsed();
    server.wait_until_idle();
    assert_eq!(server.metrics().sum("wasmbox_evicted_total", &[]), 1.0);
    assert_eq!(read(&leaf, "cpu.cfs_quota_us"), "-1\n");
    let events = || collector.spans().into_iter().map(|span| span.events).find(|events| !events.is_empty());
    assert_eq!(eventually("its trace tells of it", events), ["throttled", "evicted"]);

    // The next one with the same quota is under it again, although the box had set it already.
    let _younger = server.wire(request);
    eventually("a leaf with the quota", limited);
    waited
}
