//! Compiling: once for all who wait, beside everything else. In one step; for two see `tiers.rs`.

use std::{
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use wasmbox_tests::{Request, WasmBox, binary, eventually, guest, server::Launch};

/// Large enough to take seconds.
const LARGE: usize = 6 << 20;

fn one_step() -> Launch {
    WasmBox::launch().flag("--tiers", "off")
}

#[test]
fn a_hundred_first_requests_compile_once() {
    let server = one_step().function("module.wasm", binary::large(1 << 20)).start();
    let start = Barrier::new(100);
    thread::scope(|scope| {
        for _ in 0..100 {
            scope.spawn(|| {
                start.wait();
                server.get("/module").ok();
            });
        }
    });
    let metrics = server.metrics();
    assert_eq!(metrics.sum("wasmbox_compilations_total", &[]), 1.0);
    assert_eq!(metrics.sum("wasmbox_compile_duration_seconds_count", &[]), 1.0);
    eventually("all are counted, which is after they are answered", || {
        let answered = server.metrics().sum("wasmbox_invocations_total", &["function=\"module\"", "status=\"200\""]);
        (answered == 100.0).then_some(())
    });
}

#[test]
fn a_bad_module_is_compiled_once_too() {
    let server = WasmBox::with("bad.wat", "(module (func (export \"_start\") (drop)))");
    for _ in 0..10 {
        server.get("/bad").problem(422, "module-invalid");
    }
    assert_eq!(server.metrics().sum("wasmbox_compilations_total", &["result=\"invalid\""]), 1.0);
    assert_eq!(server.metrics().sum("wasmbox_compilations_total", &["result=\"ok\""]), 0.0);
}

/// Warm functions, new small ones, probes and metrics answer while a large module compiles; who waits for that one is told so.
#[test]
fn nobody_else_waits_for_a_large_module() {
    let server = one_step()
        .function("large.wasm", binary::large(LARGE))
        .function("warm.wat", guest::hello())
        .function("new.wat", guest::printing("new", ""))
        .start();
    server.get("/warm").ok();
    let compiled = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            server.call(Request::get("/large").header("Invocation-Timeout", "5m"), "").ok();
            compiled.store(true, Ordering::Release);
        });
        server.logged(&["compiling", "large.wasm"]);
        for _ in 0..10 {
            server.get("/warm").ok();
        }
        server.get("/new").ok();
        server.get("/-/ready").ok();
        server.admin("/functions").ok();
        let impatient = server.call(Request::get("/large").header("Invocation-Timeout", "1"), "");
        impatient.problem(503, "compiling").names(&["large.wasm"]);
        assert!(!compiled.load(Ordering::Acquire), "the large module was compiled too soon to show anything");
    });
    server.get("/large").ok();
    assert_eq!(server.metrics().sum("wasmbox_compilations_total", &["result=\"ok\""]), 3.0);
}

/// Compilation goes on when all who asked for it have left.
#[test]
fn a_compilation_outlives_its_clients() {
    let server = one_step().function("module.wasm", binary::large(4 << 20)).start();
    let impatient = server.call(Request::get("/module").header("Invocation-Timeout", "150"), "");
    impatient.problem(503, "compiling");
    drop(server.wire("GET /module HTTP/1.1\r\nHost: box\r\n\r\n"));
    server.logged(&["function loaded", "module.wasm"]);
    server.get("/module").ok();
    assert_eq!(server.metrics().sum("wasmbox_compilations_total", &[]), 1.0);
}

/// The memory cache is bounded: what was used longest ago is loaded again, from disk.
#[test]
fn the_memory_cache_is_bounded() {
    let server = one_step()
        .function("first.wasm", binary::large(200 << 10))
        .function("second.wasm", binary::large(210 << 10))
        .flag("--module-memory", "512Ki")
        .start();
    for _ in 0..3 {
        server.get("/first").ok();
        server.get("/second").ok();
    }
    let metrics = server.metrics();
    assert_eq!(metrics.sum("wasmbox_compilations_total", &[]), 2.0);
    let cached = metrics.sum("wasmbox_cached_module_bytes", &[]);
    assert!(cached > 0.0 && cached <= f64::from(512 << 10), "{cached} bytes");
    assert_eq!(metrics.sum("wasmbox_cached_modules", &[]), 1.0);
    let disk = |result| metrics.sum("wasmbox_cache_requests_total", &["cache=\"disk\"", result]);
    assert_eq!(disk("result=\"hit\"") + disk("result=\"recalled\""), 4.0);
}
