//! Who may run when not all can: units of memory, a queue, its bounds.

use std::{thread, time::Duration};

use wasmbox_tests::{Request, WasmBox, Wire, eventually, guest};

/// A box of 100 MiB.
fn server(queue: u64) -> WasmBox {
    let server = WasmBox::launch()
        .function("hello.wat", guest::hello())
        .function("echo.wat", guest::echo())
        .flag("--concurrent-resource-request", 100)
        .flag("--queue-depth-resource-units", queue)
        .start();
    server.call(Request::get("/hello").header("Memory-Request", "1"), "").ok();
    server.call(Request::get("/echo").header("Memory-Request", "1"), "").ok();
    server.wait_until_idle();
    server
}

/// Starts an invocation of `units` MiB that ends when it is told to.
fn start(server: &WasmBox, units: u64) -> Wire {
    let mut wire = server.wire(format!(
        "POST /echo HTTP/1.1\r\nHost: box\r\nMemory-Request: {units}\r\nTransfer-Encoding: chunked\r\n\r\n"
    ));
    wire.send_chunk(b"x");
    wire
}

fn end(mut wire: Wire) {
    wire.send_chunk(b"");
    assert_eq!(wire.answer().ok().text(), "x");
}

fn wait_for(server: &WasmBox, metric: &str, value: u64) {
    eventually(&format!("{metric} {value}"), || (server.metrics().sum(metric, &[]) == value as f64).then_some(()));
}

const RUNNING: &str = "wasmbox_in_flight_resource_units";
const WAITING: &str = "wasmbox_queued_resource_units";

#[test]
fn units_are_memory_requests() {
    let server = server(0);
    let small = start(&server, 30);
    wait_for(&server, RUNNING, 30);
    let large = start(&server, 70);
    wait_for(&server, RUNNING, 100);
    assert_eq!(server.metrics().sum("wasmbox_requested_memory_bytes", &[]), f64::from(100 << 20));
    // A part of a MiB counts as one.
    let least = || Request::get("/hello").header("Memory-Request", "192Ki");
    server.call(least(), "").problem(503, "queue-full");
    end(small);
    wait_for(&server, RUNNING, 70);
    let answer = server.call(least(), "").ok();
    assert!(answer.number("num-current-requests") >= 1.0);
    end(large);
    wait_for(&server, RUNNING, 0);
    server.call(Request::get("/hello").header("Memory-Request", "101"), "").problem(400, "exceeds-capacity");
}

#[test]
fn first_come_first_served() {
    let server = server(200);
    let first = start(&server, 60);
    wait_for(&server, RUNNING, 60);
    let large = start(&server, 80);
    wait_for(&server, WAITING, 80);
    // It would fit, but the large one came before.
    let small = start(&server, 10);
    wait_for(&server, WAITING, 90);
    assert_eq!(server.metrics().sum("wasmbox_queued_invocations", &[]), 2.0);
    assert_eq!(server.metrics().sum(RUNNING, &[]), 60.0);
    end(first);
    wait_for(&server, RUNNING, 90);
    wait_for(&server, WAITING, 0);
    end(large);
    end(small);
    wait_for(&server, RUNNING, 0);
}

#[test]
fn the_queue_is_bounded_and_who_leaves_it_makes_room() {
    let server = server(100);
    let running = start(&server, 100);
    wait_for(&server, RUNNING, 100);
    let waiting = server.wire("GET /hello HTTP/1.1\r\nHost: box\r\nMemory-Request: 100\r\n\r\n");
    wait_for(&server, WAITING, 100);
    let small = || Request::get("/hello").header("Memory-Request", "1");
    server.call(small(), "").problem(503, "queue-full").names(&["100 MiB"]);
    drop(waiting);
    wait_for(&server, WAITING, 0);
    let impatient = server.call(small().header("Invocation-Timeout", "200"), "");
    impatient.problem(503, "queue-timeout");
    wait_for(&server, WAITING, 0);
    // One at the head that leaves lets the next one in.
    let head = start(&server, 100);
    wait_for(&server, WAITING, 100);
    end(running);
    wait_for(&server, RUNNING, 100);
    end(head);
    wait_for(&server, RUNNING, 0);
    assert_eq!(server.metrics().sum("wasmbox_invocations_total", &["status=\"499\""]), 1.0);
}

/// Also in the middle of a body that nobody reads yet: neither a place in the queue nor a busy function is left to it.
#[test]
fn who_leaves_while_sending_is_noticed() {
    let server = WasmBox::launch()
        .function("busy.wat", guest::busy())
        .flag("--concurrent-resource-request", 100)
        .flag("--memory-request", 100)
        .start();
    let unfinished = "POST /busy HTTP/1.1\r\nHost: box\r\nContent-Length: 1000000\r\n\r\n";
    let mut running = server.wire(unfinished);
    running.send(vec![b'x'; 100_000]);
    wait_for(&server, RUNNING, 100);
    let mut waiting = server.wire(unfinished);
    waiting.send(vec![b'x'; 100_000]);
    wait_for(&server, WAITING, 100);
    drop(waiting);
    wait_for(&server, WAITING, 0);
    drop(running);
    wait_for(&server, RUNNING, 0);
}

#[test]
fn the_number_of_invocations_is_bounded_too() {
    let server = WasmBox::launch().function("echo.wat", guest::echo()).flag("--max-invocations", 2).start();
    let (first, second) = (start(&server, 1), start(&server, 1));
    server.wait_until_running("echo", 2);
    let third = start(&server, 1);
    wait_for(&server, WAITING, 1);
    assert_eq!(server.running("echo"), 2.0);
    end(first);
    wait_for(&server, WAITING, 0);
    end(second);
    end(third);
}

/// The permit comes back when the guest has ended, not when its client has left: what it occupies is real until then.
#[test]
fn capacity_returns_however_an_invocation_ends() {
    let server = WasmBox::launch()
        .function("trap.wat", guest::command("unreachable"))
        .function("hungry.wat", guest::hungry())
        .function("busy.wat", guest::busy())
        .function("flood.wat", guest::flood(0))
        .function("hello.wat", guest::hello())
        .flag("--concurrent-resource-request", 10)
        .flag("--queue-depth-resource-units", 0)
        .flag("--memory-request", 10)
        .start();
    for _ in 0..3 {
        for path in ["/trap", "/hungry", "/busy"] {
            let answer = server.call(Request::get(path).header("Invocation-Timeout", "150"), "");
            assert!(answer.status >= 500, "{answer:?}");
            wait_for(&server, RUNNING, 0);
        }
        for path in ["/busy", "/flood"] {
            let wire = server.wire(format!("GET {path} HTTP/1.1\r\nHost: box\r\n\r\n"));
            wait_for(&server, RUNNING, 10);
            drop(wire);
            wait_for(&server, RUNNING, 0);
        }
        server.get("/hello").ok();
        wait_for(&server, RUNNING, 0);
    }
}

/// Workers end when they have had nothing to do for a while; the one that is about to end must not be given work.
#[test]
fn workers_come_and_go() {
    let server = WasmBox::launch().function("hello.wat", guest::hello()).flag("--worker-idle", "2ms").start();
    server.get("/hello").ok();
    thread::scope(|scope| {
        for pause in 1..=4 {
            let server = &server;
            scope.spawn(move || {
                for _ in 0..100 {
                    server.get("/hello").ok();
                    thread::sleep(Duration::from_millis(pause));
                }
            });
        }
    });
    wait_for(&server, "wasmbox_workers", 0);
    server.get("/hello").ok();
}
