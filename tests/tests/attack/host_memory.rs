//! Authors who want memory that is not their guest's: the host's, which it takes for them.

use wasmbox_tests::{Answer, Attack, Request, WasmBox, attack::together, component::http_guest, guest, guest::command};

use crate::{assert_coded, begun};

/// Calls `path` with little memory and time of its own.
pub fn call(server: &WasmBox, path: &str) -> Answer {
    call_with(server, path, "4Mi")
}

pub fn call_with(server: &WasmBox, path: &str, memory: &str) -> Answer {
    let request = Request::get(path).header("Memory-Request", memory).header("Invocation-Timeout", "3000");
    server.call(request, "")
}

/// What a guest gets that wants too much.
pub const REFUSED: &[&str] = &["guest-trap", "guest-memory-limit", "guest-host-limit", "deadline-exceeded", "evicted"];

/// What its caller gets when others do the same.
pub const CROWDED: &[&str] = &["queue-full", "queue-timeout"];

fn hostile(what: &str, codes: &[&str]) {
    let path = format!("/http/hostile?{what}");
    Attack::within(1024).function("http.wasm", http_guest()).run(|server| {
        together(6, |_| assert_coded(&call(server, &path), &[codes, CROWDED].concat()));
    });
}

#[test]
fn an_output_buffer_of_a_terabyte() {
    let attack = Attack::within(512).function("flood.wat", guest::flood(0));
    attack.function("flood.toml", "output-buffer-bytes = 1000000000000\n").run(|server| {
        together(4, |_| assert_coded(&call_with(server, "/flood", "256Ki"), &["module-invalid"]));
    });
}

/// Each field of a head takes many times the bytes that it was written with, and a box has to read them to answer.
#[test]
fn cgi_heads_of_millions_of_fields() {
    let (data, print) = guest::text("a:\n".repeat(15_000));
    let fields = guest::command_with(
        &data,
        &format!(
            "(local $left i32) (local.set $left (i32.const 330))
             (loop $again {print} (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))"
        ),
    );
    let attack = Attack::within(256).function("fields.wat", fields);
    let cgi = "output = \"cgi\"\noutput-buffer-bytes = 16777216\n";
    attack.function("fields.toml", cgi).run(|server| {
        for _ in 0..4 {
            together(4, |_| {
                assert_coded(&call_with(server, "/fields", "1Mi"), &[&["guest-bad-header"], CROWDED].concat());
            });
        }
    });
}

#[test]
fn fields_of_127_kib_without_end() {
    hostile("fields", REFUSED);
}

#[test]
fn fields_with_values_without_end() {
    hostile("field", REFUSED);
}

#[test]
fn random_bytes_for_a_guest_of_one_page() {
    let guest = r#"(module
        (import "wasi_snapshot_preview1" "random_get" (func $random_get (param i32 i32) (result i32)))
        (memory (export "memory") 1)
        (func (export "_start") (loop $more (drop (call $random_get (i32.const 0) (i32.const 67108864))) (br $more))))"#;
    Attack::within(1024).function("random.wat", guest).run(|server| {
        together(80, |_| assert_coded(&call_with(server, "/random", "64Ki"), &[REFUSED, CROWDED].concat()));
    });
}

#[test]
fn random_bytes_for_a_component() {
    Attack::within(1024).function("http.wasm", http_guest()).run(|server| {
        together(20, |client| {
            let size = [64 << 20, 1 << 32, u64::MAX][client % 3];
            let answer = call(server, &format!("/http/hostile?random,{size}"));
            assert_coded(&answer, &[REFUSED, CROWDED].concat());
        });
    });
}

#[test]
fn a_million_globals() {
    let globals = "(global (mut i64) (i64.const 1))".repeat(1_000_000);
    let module = wasmbox_tests::binary::encoded(&format!("(module {globals} (func (export \"_start\")))"));
    Attack::within(512).function("globals.wasm", module).run(|server| {
        together(40, |_| assert_coded(&call_with(server, "/globals", "64Ki"), &["module-invalid", "compiling"]));
    });
}

/// Fewer, so that the module is accepted: what they take is counted.
#[test]
fn many_globals() {
    let globals = "(global (mut i64) (i64.const 1))".repeat(50_000);
    let body = "(loop $again (br $again))";
    let module = wasmbox_tests::binary::encoded(&format!("(module {globals} (func (export \"_start\") {body}))"));
    Attack::within(256).function("globals.wasm", module).flag("--compile-jobs", 1).run(|server| {
        let codes = [&["module-invalid", "compiling", "guest-memory-limit"], REFUSED, CROWDED].concat();
        together(60, |_| assert_coded(&call_with(server, "/globals", "64Ki"), &codes));
    });
}

#[test]
fn tables_that_grow() {
    let guest = r#"(module (table $t 1 funcref) (memory (export "memory") 1)
        (func (export "_start")
          (loop $more (br_if $more (i32.ne (table.grow $t (ref.null func) (i32.const 1000)) (i32.const -1)))) unreachable))"#;
    Attack::within(256).function("table.wat", guest).run(|server| {
        together(40, |_| assert_coded(&call_with(server, "/table", "64Ki"), &[REFUSED, CROWDED].concat()));
    });
}

/// The heap of the garbage collector, where guests may have one.
#[test]
fn garbage() {
    let guest = r#"(module
        (type $node (struct (field (ref null $node)) (field (ref null $bytes))))
        (type $bytes (array (mut i8)))
        (func (export "_start") (local $list (ref null $node))
          (loop $more
            (local.set $list (struct.new $node (local.get $list) (array.new_default $bytes (i32.const 100000))))
            (br $more))))"#;
    let guest = guest.replace("(type $node", "(rec (type $node").replace("(array (mut i8)))", "(array (mut i8))))");
    Attack::within(256).function("garbage.wat", guest).descriptors(1500).run(|server| {
        let codes = [&["module-invalid"], REFUSED, CROWDED].concat();
        together(40, |_| assert_coded(&call_with(server, "/garbage", "1Mi"), &codes));
    });
}

#[test]
fn memories_of_exabytes() {
    let attack = [("wide", "(memory i64 281474976710656)"), ("full", "(memory 65536)"), ("grown", "(memory 0)")]
        .into_iter()
        .fold(Attack::within(256), |attack, (name, memory)| {
            let grow = if name == "grown" { "(drop (memory.grow (i32.const 65536)))" } else { "" };
            let body = format!("{grow} unreachable");
            attack.function(&format!("{name}.wat"), format!("(module {memory} (func (export \"_start\") {body}))"))
        });
    attack.run(|server| {
        let codes = [&["module-invalid"], REFUSED, CROWDED].concat();
        together(12, |client| {
            let path = ["/wide", "/full", "/grown"][client % 3];
            assert_coded(&call_with(server, path, "1Mi"), &codes);
        });
    });
}

/// Lists that the host copies before it looks at them.
#[test]
fn lists_for_system_calls() {
    // 16 MiB of memory, of which a list is as long as fits: 2^21 buffers of 8 bytes, 2^18 subscriptions of 48.
    let many = |call: &str| command(&format!("(drop (memory.grow (i32.const 256))) (loop $more {call} (br $more))"));
    let attack = Attack::within(512)
        .function(
            "writes.wat",
            many("(drop (call $fd_write (i32.const 1) (i32.const 65536) (i32.const 2000000) (i32.const 8)))"),
        )
        .function(
            "reads.wat",
            many("(drop (call $fd_read (i32.const 0) (i32.const 65536) (i32.const 2000000) (i32.const 8)))"),
        )
        .function(
            "polls.wat",
            many("(drop (call $poll_oneoff (i32.const 65536) (i32.const 0) (i32.const 250000) (i32.const 8)))"),
        );
    attack.run(|server| {
        together(9, |client| {
            let path = ["/writes", "/reads", "/polls"][client % 3];
            assert_coded(&call_with(server, path, "20Mi"), &[&["compiling"], REFUSED, CROWDED].concat());
        });
    });
}

#[test]
fn writes_that_are_larger_than_permitted() {
    Attack::within(1024).function("http.wasm", http_guest()).run(|server| {
        together(12, |client| {
            let what = ["write-at-once,3000000", "zeroes-at-once,1000000000", "zeroes-at-once,18446744073709551615"];
            let path = format!("/http/hostile?{}", what[client % 3]);
            let request = Request::get(&path).header("Memory-Request", "8Mi").header("Invocation-Timeout", "3000");
            // The answer may have begun.
            if let Some(answer) = begun(server.try_call(request, "")) {
                assert_coded(&answer, &[REFUSED, CROWDED].concat());
            }
        });
    });
}

/// A reader that wants all at once of a body that is long.
#[test]
fn reads_without_bound() {
    Attack::within(1024).function("http.wasm", http_guest()).run(|server| {
        together(8, |_| {
            let request = Request::post("/http/hostile?read").header("Memory-Request", "4Mi");
            let answer = server.try_call(request.header("Invocation-Timeout", "3000"), vec![b'x'; 8 << 20]);
            if let Some(answer) = begun(answer) {
                assert!(answer.status == 200 || answer.headers.contains_key("wasmbox-error"), "{answer:?}");
            }
        });
    });
}

/// The largest buffer that a function may ask for, as often as there is room for.
#[test]
fn output_buffers_that_are_allowed() {
    let attack = Attack::within(256).function("flood.wat", guest::flood(250)).flag("--output-buffer-bytes", 16 << 20);
    attack.run(|server| {
        together(48, |_| {
            let request = Request::get("/flood").header("Memory-Request", "256Ki").header("Invocation-Timeout", "3000");
            match server.try_call(request, "") {
                Ok(answer) if answer.status == 200 => assert_eq!(answer.body.len(), 250 << 16),
                Ok(answer) => assert_coded(&answer, &[REFUSED, CROWDED].concat()),
                // Its deadline came when its answer had begun.
                Err(broken) => assert_eq!(broken.status, Some(200)),
            }
        });
    });
}
