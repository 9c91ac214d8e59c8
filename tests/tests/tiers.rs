//! New modules answer from baseline code; optimised code takes its place.

use std::{fs, thread};

use rustix::process::Signal;
use wasmbox_tests::{Answer, Request, WasmBox, binary, eventually, guest, process::Process};

/// Takes seconds to optimise.
const LARGE: usize = 12 << 20;

/// `text` as a module that is compiled in two steps.
fn two_steps(text: &str) -> Vec<u8> {
    binary::with_much_code(&binary::encoded(text))
}

/// Which code served that answer.
fn tier(answer: &Answer) -> &'static str {
    let timing = answer.header("server-timing");
    assert!(timing.contains("compile;"), "{timing}");
    if timing.contains("compile;desc=baseline;dur=") { "baseline" } else { "optimised" }
}

fn compilations(server: &WasmBox, tier: &str, result: &str) -> f64 {
    let labels = [format!("tier=\"{tier}\""), format!("result=\"{result}\"")];
    server.metrics().sum("wasmbox_compilations_total", &labels.each_ref().map(String::as_str))
}

/// Calls `path` until optimised code answers.
fn until_optimised(server: &WasmBox, path: &str) -> Answer {
    eventually("it is optimised", || {
        let answer = server.get(path).ok();
        (tier(&answer) == "optimised").then_some(answer)
    })
}

/// The process that makes optimised code.
fn optimiser(server: &WasmBox) -> Option<Process> {
    server.process().children().into_iter().find(|child| {
        let line = fs::read_to_string(format!("/proc/{}/cmdline", child.0)).unwrap_or_default();
        line.contains("--later")
    })
}

#[test]
fn baseline_code_answers_first_then_optimised_code_which_a_restart_finds() {
    let server = WasmBox::launch().function("new.wasm", two_steps(&guest::hello())).start();
    let first = server.get("/new").ok();
    assert_eq!((tier(&first), first.text()), ("baseline", "hello\n"));
    assert_eq!(fs::read_dir(server.launched().cache()).expect("the cache").count(), 2, "no image");
    assert!(server.admin("/functions").text().contains("\"tier\": \"baseline\""));
    assert_eq!(until_optimised(&server, "/new").text(), "hello\n");
    assert!(server.admin("/functions").text().contains("\"tier\": \"optimised\""));
    server.logged(&["function optimised", "new.wasm"]);
    for tier in ["baseline", "optimised"] {
        assert_eq!(compilations(&server, tier, "ok"), 1.0, "{tier}");
        let label = format!("tier=\"{tier}\"");
        assert!(server.metrics().sum("wasmbox_tier_invocations_total", &[&label]) >= 1.0, "{tier}");
    }
    let metrics = server.metrics();
    assert_eq!(metrics.sum("wasmbox_tier_invocations_total", &[]), metrics.sum("wasmbox_invocations_total", &[]));
    assert_eq!(metrics.sum("wasmbox_cached_modules", &[]), 1.0);
    let server = server.stop().start();
    assert_eq!(tier(&server.get("/new").ok()), "optimised");
    assert_eq!(server.metrics().sum("wasmbox_compilations_total", &[]), 0.0);
}

#[test]
fn small_modules_and_all_without_tiers_are_optimised_at_once() {
    let server = WasmBox::with("small.wat", guest::hello());
    assert_eq!(tier(&server.get("/small").ok()), "optimised");
    assert_eq!(compilations(&server, "baseline", "ok"), 0.0);
    let server = WasmBox::launch().function("new.wasm", two_steps(&guest::hello())).flag("--tiers", "off").start();
    assert_eq!(tier(&server.get("/new").ok()), "optimised");
    assert_eq!(compilations(&server, "baseline", "ok"), 0.0);
}

/// Each is called once, so that it is baseline code that is bounded.
#[test]
fn the_sandbox_of_baseline_code_is_the_same() {
    let gc = "(type $node (struct (field i32)))
        (func $node (result i32) (struct.get $node 0 (struct.new $node (i32.const 7))))";
    let server = WasmBox::launch()
        .function("endless.wasm", two_steps(&guest::busy()))
        .function("trap.wasm", two_steps(&guest::command("unreachable")))
        .function("divide.wasm", two_steps(&guest::command("(drop (i32.div_s (i32.const 1) (i32.const 0)))")))
        .function("outside.wasm", two_steps(&guest::command("(drop (i32.load (i32.const -8)))")))
        .function("deep.wasm", two_steps(&guest::recursion()))
        .function("hungry.wasm", two_steps(&guest::hungry()))
        .function("sleeping.wasm", two_steps(&guest::sleeping()))
        .function("exit.wasm", two_steps(&guest::command("(call $exit (i32.const 3))")))
        .function("gc.wasm", two_steps(&guest::command_with(gc, "(call $exit (call $node))")))
        .start();
    for (path, code, member, value) in [
        ("/trap", "guest-trap", "trap", "unreachable"),
        ("/divide", "guest-trap", "trap", "divide by zero"),
        ("/outside", "guest-trap", "trap", "out of bounds memory access"),
        ("/deep", "guest-trap", "trap", "call stack exhausted"),
        ("/hungry", "guest-memory-limit", "limit_bytes", "3145728"),
        ("/exit", "guest-exit", "exit_code", "3"),
        // What Winch does not know.
        ("/gc", "guest-exit", "exit_code", "7"),
    ] {
        let answer = server.call(Request::get(path).header("Memory-Request", "3"), "");
        assert_eq!(tier(&answer), "baseline", "{path}");
        let problem = answer.problem(500, code);
        assert!(problem.member(member).to_string().contains(value), "{path}: {}", problem.member(member));
    }
    for path in ["/endless", "/sleeping"] {
        // It may have to be compiled within this time.
        let answer = eventually("it is compiled", || {
            let answer = server.call(Request::get(path).header("Invocation-Timeout", "1s"), "");
            (answer.status != 503).then_some(answer)
        });
        assert_eq!(tier(&answer), "baseline", "{path}");
        answer.problem(504, "deadline-exceeded");
    }
    server.wait_until_idle();
    assert_eq!(compilations(&server, "baseline", "ok"), 9.0);
}

/// Real programs, each with both.
/// Products, sums and differences of numbers of 128 bits, as bytes.
const WIDE: &str = r#"(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\20\00\00\00\00\20\00\00")
  (global $end (mut i32) (i32.const 32))
  (func $put (param $low i64) (param $high i64)
    (i64.store (global.get $end) (local.get $low))
    (i64.store offset=8 (global.get $end) (local.get $high))
    (global.set $end (i32.add (global.get $end) (i32.const 16))))
  (func (export "_start") (local $a i64) (local $b i64)
    (local.set $a (i64.const 0x123456789abcdef))
    (local.set $b (i64.const -0x3210fedcba987654))
    (loop $more
      (call $put (i64.mul_wide_u (local.get $a) (local.get $b)))
      (call $put (i64.mul_wide_s (local.get $a) (local.get $b)))
      (call $put (i64.add128 (local.get $a) (local.get $b) (local.get $b) (local.get $a)))
      (call $put (i64.sub128 (local.get $a) (local.get $b) (local.get $b) (local.get $a)))
      (local.set $a (i64.add (i64.mul (local.get $a) (i64.const 6364136223846793005)) (i64.const 1442695040888963407)))
      (local.set $b (i64.rotl (local.get $b) (local.get $a)))
      (br_if $more (i32.lt_u (global.get $end) (i32.const 8224))))
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#;

#[test]
fn both_tiers_compute_the_same() {
    let programs = [
        ("wide", ""),
        ("scrypt", "?arg=3&arg=256&arg=8&arg=1"),
        ("lz4", "?arg=500&arg=100&arg=7"),
        ("pdf", "?arg=20&arg=7"),
        ("rsa-keygen", "?arg=512&arg=7"),
    ];
    let mut launch = WasmBox::launch()
        .function("wide.wat", WIDE)
        .function("wide-new.wasm", binary::with_much_code(&wat::parse_str(WIDE).expect("a module")));
    for (name, _) in &programs[1..] {
        let module =
            fs::read(wasmbox_tests::workspace::example(&format!("{name}.wasm"))).expect("the example can be read");
        launch = launch.function(&format!("{name}-new.wasm"), binary::with_much_code(&module));
        launch = launch.function(&format!("{name}.wasm"), module);
    }
    let server = launch.start();
    for (name, query) in programs {
        // Of the module itself there may be baseline code at first, too.
        let usual = until_optimised(&server, &format!("/{name}{query}"));
        let new = server.get(&format!("/{name}-new{query}")).ok();
        assert_eq!(tier(&new), "baseline", "{name}");
        assert!(!new.body.is_empty(), "{name}");
        assert!(new.body == usual.body, "{name}: the answers differ");
    }
}

/// A component, with interfaces of WASI 0.2.
#[test]
fn components_have_baseline_code_too() {
    let core = format!(
        "(core module $module (type (func)) (func (export \"run\") (result i32) i32.const 0) (func {}))",
        "nop ".repeat(256 << 10)
    );
    let component = format!(
        "(component {core} (core instance $instance (instantiate $module))
           (func $run (result (result)) (canon lift (core func $instance \"run\")))
           (instance $export (export \"run\" (func $run)))
           (export \"wasi:cli/run@0.2.0\" (instance $export)))"
    );
    let server = WasmBox::with("new.wasm", binary::encoded(&component));
    assert_eq!(tier(&server.get("/new").ok()), "baseline");
    until_optimised(&server, "/new");
}

#[test]
fn an_optimiser_that_is_killed_leaves_the_baseline_and_is_started_again() {
    let server = WasmBox::with("large.wasm", binary::large(LARGE));
    assert_eq!(tier(&server.get("/large").ok()), "baseline");
    server.get("/large").ok();
    let first = eventually("it is being optimised", || optimiser(&server));
    first.signal(Signal::KILL);
    server.logged(&["WARN", "not optimised", "large.wasm", "killed"]);
    assert_eq!(tier(&server.get("/large").ok()), "baseline");
    let again = eventually("it is being optimised again", || optimiser(&server));
    assert_ne!(again, first);
    assert_eq!(compilations(&server, "optimised", "failed"), 1.0);
}

/// With one place, in which a large module is optimised.
#[test]
fn a_new_module_goes_before_what_nobody_waits_for() {
    let server = WasmBox::launch()
        .function("large.wasm", binary::large(4 * LARGE))
        .function("small.wat", guest::hello())
        .function("new.wasm", two_steps(&guest::hello()))
        .flag("--compile-jobs", 1)
        .start();
    server.call(Request::get("/large").header("Invocation-Timeout", "5m"), "").ok();
    server.get("/large").ok();
    let pid = eventually("it is being optimised", || optimiser(&server));
    assert_eq!(server.get("/small").ok().text(), "hello\n");
    assert_eq!(server.get("/new").ok().text(), "hello\n");
    assert_ne!(optimiser(&server), Some(pid), "it was stopped");
    assert!(compilations(&server, "optimised", "stopped") >= 1.0);
    eventually("it is being optimised again", || optimiser(&server).filter(|again| *again != pid));
    // Whoever waits is told how long.
    assert_eq!(tier(&server.get("/large").ok()), "baseline");
}

/// Ever new modules, each called once while the box is busy: they cost the cheap step only.
#[test]
fn what_is_called_once_is_not_optimised_while_the_box_is_busy() {
    let mut launch = WasmBox::launch().function("busy.wat", guest::busy());
    for index in 0..8 {
        let text = guest::printing(format!("{index}"), "");
        launch = launch.function(&format!("new{index}.wasm"), two_steps(&text));
    }
    let server = launch.start();
    thread::scope(|scope| {
        let server = &server;
        let busy = Request::get("/busy").header("Invocation-Timeout", "8s").header("Cpu-Quota", "1000");
        let busy = scope.spawn(move || server.call(busy, ""));
        server.wait_until_running("busy", 1);
        for index in 0..8 {
            assert_eq!(server.get(&format!("/new{index}")).ok().text(), index.to_string());
        }
        busy.join().expect("an answer").problem(504, "deadline-exceeded");
        assert_eq!(compilations(server, "baseline", "ok"), 8.0);
        // The busy function itself is small.
        assert_eq!(compilations(server, "optimised", "ok"), 1.0);
    });
}

/// `Retry-After` follows from the module's size.
#[test]
fn who_cannot_wait_is_told_when_to_come_again() {
    let server = WasmBox::launch().function("large.wasm", binary::large(LARGE)).flag("--tiers", "off").start();
    let impatient = server.call(Request::get("/large").header("Invocation-Timeout", "1"), "");
    impatient.problem(503, "compiling");
    let seconds = impatient.number("retry-after");
    assert!((6.0..=60.0).contains(&seconds), "{seconds}");
}
