//! How deep calls may go.

use wasmbox_tests::{
    WasmBox,
    guest::{self, command_with},
};

#[test]
fn deep_recursion_is_a_trap() {
    let mutual = command_with(
        "(table funcref (elem $even $odd))
         (type $step (func (param i64) (result i64)))
         (func $even (type $step)
           (i64.add (i64.const 1) (call_indirect (type $step) (local.get 0) (i32.const 1))))
         (func $odd (type $step)
           (i64.add (i64.const 1) (call_indirect (type $step) (local.get 0) (i32.const 0))))",
        "(drop (call $even (i64.const 0)))",
    );
    let server = WasmBox::launch()
        .function("recursion.wat", guest::recursion())
        .function("mutual.wat", mutual)
        .function("hello.wat", guest::hello())
        .start();
    for _ in 0..3 {
        for path in ["/recursion", "/mutual"] {
            server.get(path).problem(500, "guest-trap").names(&["call stack exhausted"]);
        }
        server.get("/hello").ok();
    }
    // Deeper where the operator allows it.
    let levels = command_with(
        "(func $deeper (param i32) (result i32)
           (if (result i32) (local.get 0)
             (then (i32.add (i32.const 1) (call $deeper (i32.sub (local.get 0) (i32.const 1)))))
             (else (i32.const 0))))",
        "(drop (call $deeper (i32.const 200000)))",
    );
    let launch = WasmBox::launch().function("levels.wat", levels);
    let server = launch.start();
    server.get("/levels").problem(500, "guest-trap");
    let server = server.stop().flag("--max-wasm-stack", 32 << 20).start();
    server.get("/levels").ok();
}
