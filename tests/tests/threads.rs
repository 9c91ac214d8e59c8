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

#[test]
fn a_function_that_no_thread_can_load_is_loaded_later() {
    let container = TestCgroup::new(&["cpu", "pids"]);
    let server = WasmBox::launch().within(&container).function("echo.wat", guest::echo()).start();
    container.set("pids", "pids.max", 1);
    server.post("/echo", "x").problem(500, "internal").names(&["tried again"]);
    server.logged(&["no thread to load", "pids.max"]);
    assert_eq!(server.get("/-/ready").status, 200);

    container.set("pids", "pids.max", "max");
    eventually("it is loaded", || {
        let answer = server.post("/echo", "x");
        (answer.status == 200).then(|| assert_eq!(answer.text(), "x"))
    });
    server.wait_until_idle();
}

#[test]
fn whichever_thread_is_missing_functions_are_loaded_when_there_are_threads() {
    let container = TestCgroup::new(&["cpu", "pids"]);
    let mut launch = WasmBox::launch().within(&container).flag("--compile-jobs", 1);
    for number in 0..6 {
        launch = launch.function(&format!("f{number}.wat"), guest::echo());
    }
    let server = launch.start();
    for number in 0..6 {
        let path = container.path("pids").join("pids.current");
        let threads: u64 = fs::read_to_string(path).expect("a number of threads").trim().parse().expect("a number");
        container.set("pids", "pids.max", threads + number);
        // With enough of them it works; else it is told at once.
        let answer = server.post(&format!("/f{number}"), "x");
        if answer.status != 200 {
            answer.problem(500, "internal");
        }
        container.set("pids", "pids.max", "max");
    }
    for number in 0..6 {
        eventually("all are loaded", || (server.post(&format!("/f{number}"), "x").status == 200).then_some(()));
    }
    server.wait_until_idle();
}
