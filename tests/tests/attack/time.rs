//! Authors who want time, or what others wait for.

use wasmbox_tests::{Attack, Request, attack::together, binary, guest, guest::command_with};

use crate::{
    assert_coded,
    host_memory::{CROWDED, call_with},
};

#[test]
fn loops_of_all_kinds() {
    let forever = "(loop $again (br $again))";
    let start = format!("(module (func $s {forever}) (start $s) (func (export \"_start\")))");
    let attack = Attack::within(256)
        .function("busy.wat", guest::busy())
        .function("start.wat", start)
        .function("recursion.wat", guest::recursion())
        .function(
            "copying.wat",
            guest::command("(loop $a (memory.copy (i32.const 0) (i32.const 1) (i32.const 196600)) (br $a))"),
        )
        .function("growing.wat", guest::command("(loop $a (drop (memory.grow (i32.const 0))) (br $a))"))
        .function(
            "clocks.wat",
            guest::command("(loop $a (drop (call $clock_time_get (i32.const 1) (i64.const 0) (i32.const 0))) (br $a))"),
        )
        .function("yielding.wat", guest::command("(loop $a (call $sleep (i64.const 0)) (br $a))"));
    attack.run(|server| {
        let paths = ["/busy", "/start", "/recursion", "/copying", "/growing", "/clocks", "/yielding"];
        together(28, |client| {
            let request = Request::get(paths[client % paths.len()]).header("Memory-Request", "1");
            let request =
                request.header("Invocation-Timeout", "1000").header("Cpu-Quota", [1, 20, 500, 1000][client / 7]);
            let codes = [&["deadline-exceeded", "guest-trap", "compiling"], CROWDED].concat();
            assert_coded(&server.call(request, ""), &codes);
        });
    });
}

/// As many instances as are allowed, as often as there is room.
#[test]
fn many_instances_for_many() {
    let instances: String = (0..30).map(|index| format!("(core instance $i{index} (instantiate $m))")).collect();
    let component = format!(
        r#"(component
          (core module $m (table 1 funcref) (func (export "f")))
          (core module $one (memory 1))
          (core instance $memory (instantiate $one))
          {instances}
          (core module $run (func (export "run") (result i32) (loop $again (br $again)) (i32.const 0)))
          (core instance $r (instantiate $run))
          (func $run (result (result)) (canon lift (core func $r "run")))
          (instance $out (export "run" (func $run)))
          (export "wasi:cli/run@0.2.0" (instance $out)))"#
    );
    Attack::within(512).function("slots.wasm", binary::encoded(&component)).run(|server| {
        together(60, |_| {
            let answer = call_with(server, "/slots", "1Mi");
            assert_coded(
                &answer,
                &[&["deadline-exceeded", "module-invalid", "compiling", "evicted"], CROWDED].concat(),
            );
        });
    });
}

/// As many guests as there is room for, stopped by their quota wherever they are.
#[test]
fn a_crowd_with_tiny_quotas() {
    let printing = command_with("", "(loop $a (call $write (i32.const 2) (i32.const 1024) (i32.const 1)) (br $a))");
    let attack = Attack::within(512).function("printing.wat", printing).function("hungry.wat", guest::growing(3, 0));
    attack.run(|server| {
        together(60, |client| {
            let path = ["/printing", "/hungry"][client % 2];
            let request = Request::get(path).header("Memory-Request", "5").header("Cpu-Quota", "2");
            let answer = server.call(request.header("Invocation-Timeout", "1500"), "");
            if answer.status != 200 {
                assert_coded(&answer, &[&["deadline-exceeded", "compiling", "evicted"], CROWDED].concat());
            }
        });
    });
}
