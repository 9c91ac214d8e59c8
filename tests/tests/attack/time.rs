//! Authors who want time, or what others wait for.

use std::time::{Duration, Instant};

use wasmbox_tests::{
    Attack, Request,
    attack::{goes_on, together},
    binary, guest,
    guest::command_with,
};

use crate::{
    assert_coded,
    host_memory::{CROWDED, call_with},
};

/// One instruction cannot be interrupted, and with a small quota it takes minutes. The deadline counts, not the quota.
#[test]
fn one_long_instruction_with_the_smallest_quota() {
    Attack::within(512).function("filling.wat", guest::filling(187, 0)).run(|server| {
        // Compiled before, so that only the run is limited.
        server.call(Request::options("/filling"), "");
        let request = Request::get("/filling").header("Cpu-Quota", "1").header("Memory-Request", "190");
        let answer = server.call(request.header("Invocation-Timeout", "1000"), "");
        assert_coded(&answer, &["deadline-exceeded", "queue-timeout", "compiling"]);
        // Nor does it hold what it was given for longer.
        server.wait_until_idle();
    });
}

/// The client leaves: nobody waits for the instruction then, and the permit comes back.
#[test]
fn one_long_instruction_whose_client_leaves() {
    Attack::within(512).function("filling.wat", guest::filling(187, 0)).run(|server| {
        server.call(Request::options("/filling"), "");
        let head = "GET /filling HTTP/1.1\r\nHost: box\r\nCpu-Quota: 1\r\nMemory-Request: 190\r\n\r\n";
        let wire = server.wire(head);
        server.wait_until_running("filling", 1);
        drop(wire);
        server.wait_until_idle();
    });
}

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

/// What the host calls beside the function itself: the allocator, and what cleans up after a call.
#[test]
fn loops_in_what_the_host_calls() {
    let forever = "(loop $again (br $again))";
    let run = |post: &str, body: &str| {
        format!(
            r#"(component
              (core module $m
                (func (export "run") (result i32) {body} (i32.const 0))
                (func (export "post") (param i32) {post}))
              (core instance $i (instantiate $m))
              (func $run (result (result)) (canon lift (core func $i "run") (post-return (core func $i "post"))))
              (instance $out (export "run" (func $run)))
              (export "wasi:cli/run@0.2.0" (instance $out)))"#
        )
    };
    let environment = r#"(component
        (import "wasi:cli/environment@0.2.0" (instance $env
          (export "get-arguments" (func (result (list string))))))
        (core module $libc
          (memory (export "memory") 1)
          (func (export "realloc") (param i32 i32 i32 i32) (result i32) (loop $again (br $again)) unreachable))
        (core instance $libc (instantiate $libc))
        (core func $arguments (canon lower (func $env "get-arguments") (memory (core memory $libc "memory"))
          (realloc (core func $libc "realloc"))))
        (core module $m
          (import "host" "arguments" (func $arguments (param i32)))
          (func (export "run") (result i32) (call $arguments (i32.const 0)) (i32.const 0)))
        (core instance $i (instantiate $m (with "host" (instance (export "arguments" (func $arguments))))))
        (func $run (result (result)) (canon lift (core func $i "run")))
        (instance $out (export "run" (func $run)))
        (export "wasi:cli/run@0.2.0" (instance $out)))"#;
    let attack = Attack::within(256)
        .function("post.wat", run(forever, ""))
        .function("trap.wat", run("unreachable", ""))
        .function("run.wat", run("", forever))
        .function("realloc.wat", environment);
    attack.run(|server| {
        together(8, |client| {
            let path = ["/post", "/trap", "/run", "/realloc"][client % 4];
            let request = Request::get(path).header("Memory-Request", "1").header("Invocation-Timeout", "1000");
            let answer = server.call(request, "");
            // What a command has said counts, whatever its clean-up does.
            if answer.status != 200 {
                let codes = [&["deadline-exceeded", "guest-trap", "compiling"], CROWDED].concat();
                assert_coded(&answer, &codes);
            }
        });
    });
}

/// One component that is hundreds of instances: they are slots that others need.
#[test]
fn all_instance_slots_for_one() {
    let instances: String = (0..500).map(|index| format!("(core instance $i{index} (instantiate $m))")).collect();
    let component = format!(
        r#"(component
          (core module $m (memory 0) (memory 0) (memory 0) (memory 0))
          {instances}
          (core module $run (func (export "run") (result i32) (loop $again (br $again)) (i32.const 0)))
          (core instance $r (instantiate $run))
          (func $run (result (result)) (canon lift (core func $r "run")))
          (instance $out (export "run" (func $run)))
          (export "wasi:cli/run@0.2.0" (instance $out)))"#
    );
    Attack::within(512).function("slots.wasm", binary::encoded(&component)).run(|server| {
        together(20, |_| {
            let answer = call_with(server, "/slots", "64Ki");
            assert_coded(&answer, &["module-invalid", "compiling"]);
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

/// One client asks for all there is, in parts that it may have, for as long as it may, and sends bodies that do not end; the rest of what it asks for is refused.
#[test]
fn all_capacity_for_a_body_that_never_ends() {
    let attack = Attack::within(256).function("echo.wat", guest::echo()).flag("--max-memory-request", "128Mi");
    attack.run(|server| {
        let ask = |share: u32, timeout: &str| {
            let mut wire = server.wire(format!(
                "POST /echo HTTP/1.1\r\nHost: box\r\nConnection: close\r\nMemory-Request: {share}\r\nInvocation-Timeout: {timeout}\r\n\
                 Transfer-Encoding: chunked\r\n\r\n"
            ));
            let _ = wire.try_send("1\r\nx\r\n");
            wire
        };
        for (share, timeout) in [(256, "5m"), (200, "5m"), (8, "15m")] {
            assert_coded(&ask(share, timeout).answer(), &["bad-limit"]);
        }
        let mut held: Vec<_> = [128, 64, 32, 16, 8].map(|share| ask(share, "5m")).into();
        server.wait_until_running("echo", held.len());
        let started = Instant::now();
        while goes_on(started) {
            held.iter_mut().for_each(|wire| wire.send_chunk(b"x"));
            std::thread::sleep(Duration::from_millis(100));
        }
        for wire in &mut held {
            wire.send_chunk(b"");
            assert!(wire.answer().ok().body.iter().all(|byte| *byte == b'x'));
        }
    });
}
