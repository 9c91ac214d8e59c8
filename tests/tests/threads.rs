//! A system that lets the box start no more threads.

use std::fs;

use wasmbox_tests::{TestCgroup, WasmBox, Wire, eventually, guest};

#[test]
fn invocations_wait_for_the_workers_that_there_are_and_the_operator_is_told() {
    let container = TestCgroup::new(&["cpu", "pids"]);
    let server = WasmBox::launch().within(&container).function("echo.wat", guest::echo()).start();
    let head = "POST /echo HTTP/1.1\r\nHost: box\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n";
    // The first one has a worker, and what else the box starts on demand.
    let mut wires = vec![server.wire(head)];
    let workers = || server.metrics().sum("wasmbox_workers", &[]);
    eventually("the first one runs", || (workers() == 1.0).then_some(()));

    let threads = fs::read_to_string(container.path("pids").join("pids.current")).expect("a number of threads");
    container.set("pids", "pids.max", threads.trim());
    wires.extend((0..3).map(|_| server.wire(head)));
    eventually("the box tells that there is no thread", || {
        (server.metrics().sum("wasmbox_worker_start_failures_total", &[]) > 0.0).then_some(())
    });
    server.logged(&["no thread for a worker", "workers=1", "pids.max", "--max-invocations"]);
    assert_eq!(workers(), 1.0, "the others wait for a worker");
    wires[0].send_chunk(b"");
    assert_eq!(wires[0].answer().ok().text(), "x");

    container.set("pids", "pids.max", "max");
    eventually("all others have a worker", || (workers() == 3.0).then_some(()));
    wires[1..].iter_mut().for_each(|wire: &mut Wire| wire.send_chunk(b""));
    wires[1..].iter_mut().for_each(|wire| assert_eq!(wire.answer().ok().text(), "x"));
    server.wait_until_idle();
}
