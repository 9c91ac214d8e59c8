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
    start_of("echo", server, units)
}

/// The same for another function that is an echo.
fn start_of(function: &str, server: &WasmBox, units: u64) -> Wire {
    let mut wire = server.wire(format!(
        "POST /{function} HTTP/1.1\r\nHost: box\r\nMemory-Request: {units}\r\nTransfer-Encoding: chunked\r\n\r\n"
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
fn first_come_first_served_within_a_function() {
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

/// Echoes of several names: several functions.
fn functions(names: &[&str], queue: u64) -> WasmBox {
    let launch =
        WasmBox::launch().flag("--concurrent-resource-request", 100).flag("--queue-depth-resource-units", queue);
    let launch = names.iter().fold(launch, |launch, name| launch.function(&format!("{name}.wat"), guest::echo()));
    let server = launch.start();
    for name in names {
        server.call(Request::post(format!("/{name}")).header("Memory-Request", "1"), "").ok();
    }
    server.wait_until_idle();
    server
}

#[test]
fn a_function_that_floods_does_not_hold_up_another() {
    let server = functions(&["flood", "quiet"], 1000);
    let mut flood = Vec::new();
    for number in 1..=4 {
        flood.push(start_of("flood", &server, 25));
        wait_for(&server, RUNNING, 25 * number);
    }
    for number in 1..=6 {
        flood.push(start_of("flood", &server, 25));
        wait_for(&server, WAITING, 25 * number);
    }
    let quiet = start_of("quiet", &server, 25);
    wait_for(&server, WAITING, 175);
    // Six came before, but their function has three quarters of the box by now.
    end(flood.remove(0));
    server.wait_until_running("quiet", 1);
    assert_eq!(server.running("flood"), 3.0);
    end(quiet);
    flood.into_iter().for_each(end);
    wait_for(&server, RUNNING, 0);
}

#[test]
fn a_function_that_floods_does_not_fill_the_queue_for_another() {
    let server = functions(&["flood", "quiet"], 100);
    let running = start_of("flood", &server, 100);
    wait_for(&server, RUNNING, 100);
    let mut waiting: Vec<Wire> = (1..=4)
        .map(|number| {
            let wire = start_of("flood", &server, 25);
            wait_for(&server, WAITING, 25 * number);
            wire
        })
        .collect();
    let own = || Request::post("/flood").header("Memory-Request", "25");
    server.call(own(), "").problem(503, "queue-full");
    let quiet = start_of("quiet", &server, 25);
    // The latest of those that wait makes room.
    let mut displaced = waiting.pop().unwrap();
    displaced.answer().problem(503, "queue-full");
    assert_eq!(server.metrics().sum(WAITING, &[]), 100.0);
    assert_eq!(server.metrics().sum("wasmbox_rejected_total", &["code=\"queue-full\""]), 2.0);
    end(running);
    end(quiet);
    waiting.into_iter().for_each(end);
}

#[test]
fn a_large_request_is_not_starved_by_small_ones() {
    let server = functions(&["first", "large", "small"], 1000);
    let first = start_of("first", &server, 60);
    wait_for(&server, RUNNING, 60);
    let large = start_of("large", &server, 80);
    wait_for(&server, WAITING, 80);
    // There is room beside it, which is put to use, up to its own size in all.
    for _ in 0..2 {
        let small = start_of("small", &server, 40);
        wait_for(&server, RUNNING, 100);
        end(small);
        wait_for(&server, RUNNING, 60);
    }
    let small = start_of("small", &server, 40);
    wait_for(&server, WAITING, 120);
    assert_eq!(server.metrics().sum(RUNNING, &[]), 60.0, "40 MiB are kept for the large one");
    end(first);
    wait_for(&server, RUNNING, 80);
    server.wait_until_running("large", 1);
    end(large);
    end(small);
    wait_for(&server, RUNNING, 0);
}

/// Its client leaves, and with it the claim on room.
#[test]
fn a_large_request_that_leaves_lets_the_others_pass() {
    let server = server(200);
    let first = start(&server, 60);
    wait_for(&server, RUNNING, 60);
    let large = start(&server, 80);
    wait_for(&server, WAITING, 80);
    let small = start(&server, 40);
    wait_for(&server, WAITING, 120);
    drop(large);
    wait_for(&server, RUNNING, 100);
    assert_eq!(server.metrics().sum(WAITING, &[]), 0.0);
    end(small);
    end(first);
}

#[test]
fn what_admission_does_is_counted() {
    let server = server(100);
    let admitted = server.metrics().sum("wasmbox_admitted_total", &[]);
    let running = start(&server, 100);
    wait_for(&server, RUNNING, 100);
    let call = |units: &str| {
        server.call(Request::get("/hello").header("Memory-Request", units).header("Invocation-Timeout", "50"), "")
    };
    call("101").problem(400, "exceeds-capacity");
    call("100").problem(503, "queue-timeout");
    let waiting = start(&server, 100);
    wait_for(&server, WAITING, 100);
    call("1").problem(503, "queue-full");
    end(running);
    end(waiting);
    let metrics = server.metrics();
    for code in ["exceeds-capacity", "queue-timeout", "queue-full"] {
        assert_eq!(metrics.sum("wasmbox_rejected_total", &[&format!("code=\"{code}\"")]), 1.0, "{code}");
    }
    assert_eq!(metrics.sum("wasmbox_admitted_total", &[]) - admitted, 2.0);
    for gate in ["cpu", "memory"] {
        let series = format!("wasmbox_admission_gate_closed{{gate=\"{gate}\"}} 0");
        assert!(metrics.text().contains(&series), "{series}");
    }
}

#[test]
fn more_may_be_admitted_than_there_is_memory() {
    let server = WasmBox::launch()
        .function("hello.wat", guest::hello())
        .flag("--memory-limit", 100)
        .flag("--overbooking-ratio", "1.5")
        .start();
    let hello = |units: &str| server.call(Request::get("/hello").header("Memory-Request", units), "");
    hello("150").ok();
    hello("151").problem(400, "exceeds-capacity").names(&["150 MiB"]);
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
    let server = WasmBox::launch()
        .function("hello.wat", guest::hello())
        .flag("--inline", "off")
        .flag("--worker-idle", "2ms")
        .start();
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
