//! Generated code in both tiers: it does the same in baseline code and in optimised code.

use std::{
    fs,
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
};

use arbitrary::Unstructured;
use wasm_smith::Module;
use wasmbox_tests::{Request, WasmBox, binary::encoded, eventually};

use crate::{modules::config, wrapper};

/// Calls, blocks and rounds of loops of one run.
const FUEL: u32 = 500;

/// How many have computed something in both.
pub static COMPARED: AtomicU64 = AtomicU64::new(0);

/// Answers with a status that says what was generated has computed: its results, and its memory's size and first page.
static HASHING: LazyLock<Vec<u8>> = LazyLock::new(|| {
    wrapper::handler(
        r#"(core module $m (memory (export "memory") 1) (func (export "run") (result i32 i64 f32 f64) unreachable))"#,
        &format!(r"{HASHING_TEXT} (core module $padding (func {}))", "nop ".repeat(MUCH_CODE)),
    )
});

/// Bytes of functions which are compiled in two tiers.
const MUCH_CODE: usize = 200 << 10;

const HASHING_TEXT: &str = r#"
    (core instance $i (instantiate $m))
    (core module $handling
      (import "http" "fields" (func $fields (result i32)))
      (import "http" "drop-request" (func $drop-request (param i32)))
      (import "http" "response" (func $response (param i32) (result i32)))
      (import "http" "status" (func $status (param i32 i32) (result i32)))
      (import "http" "set" (func $set (param i32 i32 i32 i32 i64 i32 i32 i32 i32)))
      (import "generated" "memory" (memory 1))
      (import "generated" "run" (func $run (result i32 i64 f32 f64)))
      (global $hash (mut i64) (i64.const 0xcbf29ce484222325))
      (func $add (param i64)
        (global.set $hash (i64.mul (i64.xor (global.get $hash) (local.get 0)) (i64.const 0x100000001b3))))
      (func (export "handle") (param $request i32) (param $outparam i32)
        (local $at i32) (local $i32 i32) (local $i64 i64) (local $f32 f32) (local $f64 f64) (local $answer i32)
        (call $run)
        (local.set $f64) (local.set $f32) (local.set $i64) (local.set $i32)
        (call $add (i64.extend_i32_u (local.get $i32)))
        (call $add (local.get $i64))
        (call $add (i64.extend_i32_u (i32.reinterpret_f32 (local.get $f32))))
        (call $add (i64.reinterpret_f64 (local.get $f64)))
        (call $add (i64.extend_i32_u (memory.size)))
        (loop $again
          (call $add (i64.load (local.get $at)))
          (local.set $at (i32.add (local.get $at) (i32.const 8)))
          (br_if $again (i32.lt_u (local.get $at) (i32.const 65536))))
        (call $drop-request (local.get $request))
        (local.set $answer (call $response (call $fields)))
        (drop (call $status (local.get $answer)
          (i32.add (i32.const 400) (i32.wrap_i64 (i64.rem_u (i64.shr_u (global.get $hash) (i64.const 20)) (i64.const 199))))))
        (call $set (local.get $outparam) (i32.const 0) (local.get $answer)
          (i32.const 0) (i64.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))))
    (core instance $handling
      (instantiate $handling (with "http" (instance $http)) (with "generated" (instance $i))))"#;

/// A status, and why, if it is an error of the box's.
type Seen = (u16, Option<String>);

/// What a call has brought, and whether baseline code ran.
fn called(server: &WasmBox, path: &str) -> (Seen, bool) {
    let request = Request::get(path).header("Memory-Request", "2Mi").header("Invocation-Timeout", "20000");
    let answer = server.try_call(request, "").unwrap_or_else(|broken| panic!("{path}: {broken:?}"));
    let header = |name: &str| answer.headers.get(name).map(|value| value.to_str().expect("text").to_owned());
    let is_baseline = header("server-timing").is_some_and(|timing| timing.contains("compile;desc=baseline"));
    let why = header("wasmbox-error").map(|code| format!("{code}: {}", answer.problem(answer.status, &code).detail()));
    ((answer.status, why), is_baseline)
}

/// Calls the function until optimised code answers, as baseline code has. Gives what both have said, or nothing if it was never baseline code.
fn in_both_tiers(server: &WasmBox, name: &str, module: &[u8]) -> Option<Seen> {
    let (file, path) = (format!("{name}.wasm"), format!("/{name}"));
    server.put(&file, wrapper::around(&HASHING, module));
    let (soon, is_baseline) = called(server, &path);
    if is_baseline {
        let later = eventually("optimised code answers", || {
            let (seen, is_baseline) = called(server, &path);
            (!is_baseline).then_some(seen)
        });
        // How deep calls may be is not the same.
        let is_deep = |seen: &Seen| seen.1.as_ref().is_some_and(|why| why.contains("stack"));
        assert!(soon == later || is_deep(&soon) || is_deep(&later), "baseline: {soon:?}, optimised: {later:?}");
    }
    fs::remove_file(server.functions().join(file)).expect("the file is there");
    is_baseline.then_some(soon)
}

/// Code whose results WebAssembly defines, to the last bit.
pub fn act(server: &WasmBox, name: &str, bytes: &mut Unstructured) -> arbitrary::Result<()> {
    let exports = r#"(module (memory (export "memory") 1) (func (export "run") (result i32 i64 f32 f64) unreachable))"#;
    let mut config = config(bytes, Some("(module)"), Some(exports))?;
    config.canonicalize_nans = true;
    config.relaxed_simd_enabled = false;
    config.threads_enabled = false;
    config.disallow_traps = bytes.ratio(3, 4)?;
    let mut module = Module::new(config, bytes)?;
    // One that cannot be bounded so is one of the other kinds.
    if module.ensure_termination(FUEL).is_ok() {
        let seen = in_both_tiers(server, name, &module.to_bytes());
        COMPARED.fetch_add(u64::from(seen.is_some_and(|(_, why)| why.is_none())), Ordering::Relaxed);
    }
    Ok(())
}

/// What is around generated code is good: its status says what it has computed, in both tiers.
pub fn assert_both_tiers(server: &WasmBox) {
    let seen = |number: i64| {
        let module = format!(
            r#"(module (memory (export "memory") 1)
            (func (export "run") (result i32 i64 f32 f64) i32.const 0 i64.const {number} f32.const 0 f64.const 0))"#
        );
        in_both_tiers(server, "tiers", &encoded(&module)).expect("baseline code answers")
    };
    assert_ne!(seen(1), seen(2), "what was computed makes no difference");
}
