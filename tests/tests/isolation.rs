//! What one invocation does harms no other.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use wasmbox_tests::{
    Request, WasmBox, component::http_guest, eventually, guest, guest::command_with, patience::SetOnDrop,
};

/// Functions that misbehave, and how their requests are answered.
const EVIL: [(&str, &str, &str); 9] = [
    // path, limits, error
    ("/trap", "", "guest-trap"),
    ("/busy", "Invocation-Timeout: 20\r\n", "deadline-exceeded"),
    ("/sleeping", "Invocation-Timeout: 20\r\n", "deadline-exceeded"),
    ("/recursion", "", "guest-trap"),
    ("/hungry", "Memory-Request: 64\r\n", "guest-memory-limit"),
    ("/exit", "", "guest-exit"),
    ("/http/trap", "", "guest-trap"),
    ("/http/silent", "", "guest-no-response"),
    ("/bad", "", "module-invalid"),
];

fn server() -> WasmBox {
    WasmBox::launch()
        .function("hello.wat", guest::hello())
        .function("trap.wat", guest::command("unreachable"))
        .function("busy.wat", guest::busy())
        .function("sleeping.wat", guest::sleeping())
        .function("recursion.wat", guest::recursion())
        .function("hungry.wat", guest::hungry())
        .function("flood.wat", guest::flood(0))
        .function("exit.wat", guest::printing("x", "(call $exit (i32.const 3))"))
        .function("http.wasm", http_guest())
        .function("bad.wat", "bad")
        .flag("--log-level", "warn,wasmbox::serve=info")
        .start()
}

/// Calls each function until it is compiled.
fn warm_up(server: &WasmBox) {
    call_flood(server);
    for (path, ..) in EVIL.into_iter().chain([("/hello", "", "")]) {
        eventually("the function is compiled", || {
            let request = Request::get(path).header("Invocation-Timeout", "100").header("Memory-Request", "64");
            let answer = server.call(request, "");
            (answer.headers.get("wasmbox-error").is_none_or(|error| error != "compiling")).then_some(())
        });
    }
}

/// Calls a misbehaving function on a connection of its own.
fn call_evil(server: &WasmBox, (path, limits, error): (&str, &str, &str)) {
    let mut wire = server.wire(format!("GET {path} HTTP/1.1\r\nHost: box\r\nConnection: close\r\n{limits}\r\n"));
    let head = wire.head();
    assert_eq!(head.headers.get("wasmbox-error").expect("an error"), error, "{path}: {head:?}");
}

/// Reads some of an endless answer, then leaves.
fn call_flood(server: &WasmBox) {
    let mut wire = server.wire("GET /flood HTTP/1.1\r\nHost: box\r\n\r\n");
    assert_eq!(wire.head().status, 200);
    for _ in 0..4 {
        assert!(wire.chunk().expect("some output").is_some());
    }
}

#[test]
fn a_healthy_function_answers_beside_all_others() {
    let server = server();
    warm_up(&server);
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let end = SetOnDrop(&ended);
        let evil: Vec<_> = EVIL
            .iter()
            .map(|evil| {
                scope.spawn(|| {
                    while !ended.load(Ordering::Acquire) {
                        call_evil(&server, *evil);
                    }
                })
            })
            .collect();
        let flood = scope.spawn(|| {
            while !ended.load(Ordering::Acquire) {
                call_flood(&server);
            }
        });
        for _ in 0..300 {
            assert_eq!(server.get("/hello").ok().text(), "hello\n");
        }
        assert_eq!(server.get("/http/request").ok().status, 200);
        drop(end);
        for thread in evil.into_iter().chain([flood]) {
            thread.join().expect("each answer was the expected one");
        }
    });
    server.wait_until_idle();
}

fn counted(server: &WasmBox) -> f64 {
    let metrics = server.metrics();
    metrics.sum("wasmbox_invocations_total", &[]) + metrics.sum("wasmbox_rejected_total", &[])
}

/// The same, once what has been answered is counted, too.
fn settled(server: &WasmBox) -> f64 {
    eventually("the count is settled", || {
        let count = counted(server);
        thread::sleep(Duration::from_millis(100));
        (counted(server) == count).then_some(count)
    })
}

/// The server is the same after ten thousand of them.
#[test]
fn ten_thousand_invocations_leave_no_trace() {
    const ALL: usize = 10_000;
    let server = server();
    warm_up(&server);
    let before = settled(&server);
    let number = AtomicUsize::new(0);
    let run = |until: usize| {
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    loop {
                        let number = number.fetch_add(1, Ordering::Relaxed);
                        match number % 100 {
                            _ if number >= until => break,
                            // What takes long is rare.
                            0 => call_flood(&server),
                            1 => call_evil(&server, EVIL[1]),
                            2 => call_evil(&server, EVIL[2]),
                            3..10 => call_evil(&server, EVIL[4]),
                            10..70 => call_evil(&server, EVIL[[0, 3, 5, 6, 7, 8][number % 6]]),
                            _ => assert_eq!(server.get("/hello").ok().text(), "hello\n"),
                        }
                    }
                });
            }
        });
        number.store(until, Ordering::Relaxed);
        server.wait_until_idle();
    };
    // What is cached, pooled and kept warm is so by then.
    run(ALL * 2 / 5);
    let (memory, descriptors) = (server.process().resident_bytes(), server.process().descriptors());
    run(ALL);
    let (memory_after, descriptors_after) = (server.process().resident_bytes(), server.process().descriptors());
    let growth = memory_after.saturating_sub(memory);
    assert!(growth < 32 << 20, "from {memory} to {memory_after} bytes");
    // There may be more workers than before, each with three descriptors for its cgroup.
    let workers = server.metrics().sum("wasmbox_workers", &[]) as usize;
    let most = descriptors + 3 * workers + 8;
    assert!(descriptors_after <= most, "from {descriptors} to {descriptors_after} descriptors");
    assert_eq!(server.get("/hello").ok().text(), "hello\n");
    // Each of them was counted, once.
    eventually("all are counted", || (counted(&server) - before >= (ALL + 1) as f64).then_some(()));
    assert_eq!(counted(&server) - before, (ALL + 1) as f64);
}

/// Globals, memory, tables: each invocation finds them as the module says.
#[test]
fn nothing_is_left_for_the_next_invocation() {
    let counts = command_with(
        r#"(global $count (mut i32) (i32.const 48))
           (table $table 1 funcref)
           (elem declare func $print)
           (data (i32.const 1024) "0")"#,
        // Each of the three says 0 the first time it is asked, and 1 the second time.
        "(i32.store8 (i32.const 1025) (global.get $count))
         (i32.store8 (i32.const 1026) (i32.sub (i32.const 49) (ref.is_null (table.get $table (i32.const 0)))))
         (call $print (i32.const 1024) (i32.const 3))
         (i32.store8 (i32.const 1024) (i32.const 49))
         (global.set $count (i32.const 49))
         (table.set $table (i32.const 0) (ref.func $print))
         (drop (memory.grow (i32.const 100)))
         (memory.fill (i32.const 65536) (i32.const 0xaa) (i32.const 6553600))",
    );
    // Looks through all memory it can get for something that is not its own.
    let finds = command_with(
        "",
        "(local $at i32)
         (drop (memory.grow (i32.const 125)))
         (local.set $at (i32.const 64))
         (loop $next
           (if (i64.ne (i64.load (local.get $at)) (i64.const 0)) (then (call $exit (i32.const 1))))
           (local.set $at (i32.add (local.get $at) (i32.const 8)))
           (br_if $next (i32.lt_u (local.get $at) (i32.const 8388608))))",
    );
    // With room for one, all use the same memory, one after the other.
    for room in [1, 1000] {
        let server = WasmBox::launch()
            .function("counts.wat", &counts)
            .function("finds.wat", &finds)
            .flag("--max-invocations", room)
            .start();
        for _ in 0..20 {
            assert_eq!(server.get("/counts").ok().text(), "000");
            server.get("/finds").ok();
        }
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10 {
                        assert_eq!(server.get("/counts").ok().text(), "000");
                        server.get("/finds").ok();
                    }
                });
            }
        });
    }
}

/// Many at once are more than there are cores: each makes its way.
#[test]
fn busy_functions_share_the_processor() {
    let server = server();
    let busy: Vec<_> = (0..16).map(|_| server.wire("GET /busy HTTP/1.1\r\nHost: box\r\n\r\n")).collect();
    server.wait_until_running("busy", 16);
    for _ in 0..20 {
        server.get("/hello").ok();
    }
    // All sixteen still run.
    server.wait_until_running("busy", 16);
    drop(busy);
    server.wait_until_idle();
}
