//! Guests that begin on the thread of their connection: most end there, the others move to a worker and go on as they were.
//!
//! Which way an invocation took is seen in the metrics. On a busy machine one that is short may take longer than a slice once: so
//! what must end there is tried again, and what must move is not.

use std::{os::unix::process::ExitStatusExt, thread, time::Duration};

use rustix::process::{Pid, Resource, Signal, getrlimit, prlimit};
use wasmbox_tests::{Request, WasmBox, component::http_guest, eventually, guest};

/// Invocations that began on their connection's thread, by how that ended.
fn slices(server: &WasmBox, end: &str) -> f64 {
    server.metrics().sum("wasmbox_slices_total", &[&format!("end=\"{end}\"")])
}

/// Those that moved. One that waits moves as busy, if it was slow until then.
fn moved(server: &WasmBox) -> f64 {
    slices(server, "busy") + slices(server, "waiting")
}

fn began(server: &WasmBox) -> f64 {
    moved(server) + slices(server, "done")
}

#[test]
fn short_functions_need_no_worker() {
    let server = WasmBox::launch().function("hello.wat", guest::hello()).function("http.wasm", http_guest()).start();
    for (path, text) in [("/hello", "hello\n"), ("/http/request", "method GET")] {
        let before = slices(&server, "done");
        eventually("one ends on its connection's thread", || {
            let answer = server.get(path).ok();
            assert!(answer.text().starts_with(text), "{answer:?}");
            assert!(answer.number("wasmbox-cpu-time-us") > 0.0 && answer.number("execution-time") > 0.0, "{answer:?}");
            (slices(&server, "done") > before).then_some(())
        });
    }
    server.logged(&["invocation:", "function=hello", "status=200", "memory_bytes="]);
    let metrics = server.metrics();
    assert!(metrics.sum("wasmbox_cpu_seconds_count", &["function=\"hello\""]) >= 1.0);
    server.wait_until_idle();
}

#[test]
fn off_means_never() {
    let server = WasmBox::launch().function("hello.wat", guest::hello()).flag("--inline", "off").start();
    for _ in 0..20 {
        server.get("/hello").ok();
    }
    assert_eq!(began(&server), 0.0);
    assert!(server.metrics().sum("wasmbox_workers", &[]) >= 1.0);
}

/// One that never ends has a connection's thread once, for a slice: then it is known.
#[test]
fn loops_move_once_and_hold_nobody_up() {
    let server = WasmBox::launch()
        .function("busy.wat", guest::busy())
        .function("hello.wat", guest::hello())
        .flag("--io-threads", 1)
        .start();
    server.get("/hello").ok();
    server.call(Request::options("/busy"), "");
    let before = moved(&server);
    let call = || Request::get("/busy").header("Invocation-Timeout", "5000");
    thread::scope(|scope| {
        let first = scope.spawn(|| server.call(call(), ""));
        server.wait_until_running("busy", 1);
        eventually("it has moved", || (moved(&server) == before + 1.0).then_some(()));
        let others: Vec<_> = (0..4).map(|_| scope.spawn(|| server.call(call(), ""))).collect();
        server.wait_until_running("busy", 5);
        // There is one thread for all connections, which has begun with the others when it answers. What is short may be slow once, and move.
        server.get("/-/live").ok();
        let before_short = moved(&server);
        for _ in 0..10 {
            server.get("/hello").ok();
        }
        let short = moved(&server) - before_short;
        for call in others.into_iter().chain([first]) {
            let answer = call.join().expect("an answer");
            answer.problem(504, "deadline-exceeded").names(&["5000 ms"]);
            // What it used on both threads.
            assert!(answer.number("wasmbox-cpu-time-us") > 100.0, "{answer:?}");
        }
        assert_eq!(moved(&server), before + 1.0 + short, "the others were known to be long");
    });
    server.wait_until_idle();
}

#[test]
fn what_waits_moves_and_goes_on() {
    let server = WasmBox::launch()
        .function("echo.wat", guest::echo())
        .function("naps.wat", guest::printing("done\n", "(call $sleep (i64.const 50))"))
        .function("sleeps.wat", guest::sleeping())
        .start();
    for name in ["echo", "naps", "sleeps"] {
        server.call(Request::options(format!("/{name}")), "");
    }
    assert_eq!(server.get("/naps").ok().text(), "done\n");
    assert_eq!(moved(&server), 1.0, "it slept");

    // A body that comes slowly, longer than what is read ahead.
    let mut wire = server.wire("POST /echo HTTP/1.1\r\nHost: box\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n");
    server.wait_until_running("echo", 1);
    wire.send_chunk(b"yz");
    wire.send_chunk(b"");
    assert_eq!(wire.answer().ok().text(), "xyz");
    assert_eq!(moved(&server), 2.0);

    // The client leaves, or the deadline comes, when it is on its worker already.
    let wire = server.wire("GET /sleeps HTTP/1.1\r\nHost: box\r\n\r\n");
    server.wait_until_running("sleeps", 1);
    drop(wire);
    server.wait_until_idle();
    server.logged(&["invocation:", "function=sleeps", "status=499"]);
    let answer = server.call(Request::get("/sleeps").header("Invocation-Timeout", "200"), "");
    answer.problem(504, "deadline-exceeded");
    server.wait_until_idle();
}

/// No instruction can be interrupted. So what can be touched by one, on a thread that serves connections, is little.
#[test]
fn large_memories_are_for_workers() {
    let server = WasmBox::launch()
        .function("fills.wat", guest::filling(64, 0))
        .function("initial.wat", "(module (memory (export \"memory\") 1024) (func (export \"_start\")))")
        .start();
    for name in ["fills", "initial"] {
        server.call(Request::options(format!("/{name}")), "");
    }
    assert_eq!(server.get("/fills").ok().text(), "done\n");
    assert_eq!(moved(&server), 1.0);
    server.get("/initial").ok();
    assert_eq!(moved(&server), 2.0, "64 MiB to begin with");
    assert_eq!(slices(&server, "done"), 0.0);
}

/// Where the kernel gives a thread no timer, no guest begins that could not be interrupted; and the thread asks again.
#[test]
fn without_a_timer_all_guests_are_on_workers() {
    let mut server = WasmBox::launch()
        .function("hello.wat", guest::hello())
        .function("busy.wat", guest::busy())
        .flag("--io-threads", 1)
        .through(["prlimit", "--sigpending=0:"])
        .start();
    for _ in 0..5 {
        assert_eq!(server.get("/hello").ok().text(), "hello\n");
    }
    let busy = Request::get("/busy").header("Invocation-Timeout", "300");
    server.call(busy, "").problem(504, "deadline-exceeded");
    assert_eq!(began(&server), 0.0);
    server.logged(&["WARN", "no timer for a thread that serves connections", "ulimit -i"]);

    let enough = getrlimit(Resource::Sigpending);
    let pid = Pid::from_raw(i32::try_from(server.process().0).expect("a process number"));
    prlimit(pid, Resource::Sigpending, enough).expect("it may be raised to what it was");
    eventually("one begins on its connection's thread", || {
        assert_eq!(server.get("/hello").ok().text(), "hello\n");
        (slices(&server, "done") > 0.0).then_some(())
    });

    // The timers' signal does what it does by default, if somebody sends it.
    server.signal(Signal::VTALARM);
    assert_eq!(server.wait().signal(), Some(Signal::VTALARM.as_raw()));
}

/// Draining finds those that have moved.
#[test]
fn sigterm_ends_those_that_have_moved() {
    let mut server = WasmBox::launch()
        .function("busy.wat", guest::busy())
        .function("sleeps.wat", guest::sleeping())
        .flag("--drain-timeout", "200ms")
        .start();
    for name in ["busy", "sleeps"] {
        server.call(Request::options(format!("/{name}")), "");
    }
    let mut running = ["busy", "sleeps"].map(|name| server.wire(format!("GET /{name} HTTP/1.1\r\nHost: box\r\n\r\n")));
    server.wait_until_running("busy", 1);
    server.wait_until_running("sleeps", 1);
    server.signal(Signal::TERM);
    for wire in &mut running {
        wire.answer().problem(503, "draining");
    }
    assert!(server.wait().success());
}

/// A failure on the connection's thread is its function's alone, and the connection goes on.
#[test]
fn traps_and_limits_on_the_connections_thread() {
    let server = WasmBox::launch()
        .function("traps.wat", guest::command("unreachable"))
        .function("hungry.wat", guest::hungry())
        .function("deep.wat", guest::recursion())
        .function("hello.wat", guest::hello())
        .start();
    for _ in 0..5 {
        server.get("/traps").problem(500, "guest-trap");
        server.call(Request::get("/hungry").header("Memory-Request", "1"), "").problem(500, "guest-memory-limit");
        server.get("/deep").problem(500, "guest-trap");
        assert_eq!(server.get("/hello").ok().text(), "hello\n");
        thread::sleep(Duration::from_millis(20));
    }
    assert!(slices(&server, "done") > 0.0);
    server.wait_until_idle();
}
