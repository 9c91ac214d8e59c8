//! Memory, and what counts as it.

use wasmbox_tests::{
    Request, WasmBox, component,
    guest::{self, command, command_with},
};

use super::with_memory;

/// wasmtime tells of a failed growth of a 64-bit table that it never asked about, which gave memory back that was never taken. Such
/// tables are off, as 64-bit memories are.
#[test]
fn tables_of_64_bits_are_no_way_around_the_memory_limit() {
    let guest = r#"(module (memory (export "memory") 1) (table i64 1 funcref)
        (func (export "_start")
            (loop $again
                (drop (table.grow (ref.null func) (i64.const -1)))
                (br_if $again (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
            unreachable))"#;
    let server = WasmBox::with("grow.wat", guest);
    let answer = server.call(Request::get("/grow").header("Memory-Request", "4"), "");
    answer.problem(422, "module-invalid").names(&["memory64"]);
}

#[test]
fn memory_in_all_its_forms() {
    let list = "(type $bytes (array (mut i8)))
        (type $node (struct (field (ref $bytes)) (field (ref null $node))))
        (global $list (mut (ref null $node)) (ref.null $node))";
    let keep_more = "(loop $more
        (global.set $list (struct.new $node (array.new_default $bytes (i32.const 65536)) (global.get $list)))
        (br $more))";
    let server = WasmBox::launch()
        .function("grown.wat", guest::hungry())
        .function("initial.wat", "(module (memory 100) (func (export \"_start\")))")
        .function("second.wat", command_with("(memory $second 60)", ""))
        .function(
            "table.wat",
            command_with(
                "(table $table 1 externref)",
                "(loop $more (br_if $more (i32.ne (i32.const -1)
                   (table.grow $table (ref.null extern) (i32.const 1000))))) unreachable",
            ),
        )
        .function("tables.wat", command_with("(table 90000 funcref) (table 90000 funcref) (table 90000 funcref) (table 90000 funcref) (table 90000 funcref)", ""))
        .function("collected.wat", command_with(list, keep_more))
        .function("http.wasm", component::http_guest())
        .start();
    // 3 MiB are 48 pages; a table's element counts as 8 bytes.
    for (path, request) in [
        ("/grown", "3"),
        ("/initial", "3"),
        ("/second", "3"),
        ("/table", "256Ki"),
        ("/tables", "3"),
        ("/collected", "3"),
        ("/http/memory", "8"),
    ] {
        let answer = with_memory(&server, path, request);
        assert_eq!(answer.status, 500, "{path}: {answer:?}");
        let problem = answer.problem(500, "guest-memory-limit");
        let limit = problem.member("limit_bytes").as_u64().expect("a number");
        assert!(problem.member("wanted_bytes").as_u64().is_some_and(|wanted| wanted > limit), "{problem:?}");
        assert!(answer.number("wasmbox-memory-peak-bytes") <= limit as f64, "{path}");
    }
    // With enough, those that end by themselves do.
    for path in ["/initial", "/second", "/tables"] {
        with_memory(&server, path, "16").ok();
    }
    let peak = server.process().peak_resident_bytes();
    assert!(peak < 300 << 20, "{peak} bytes");
}

#[test]
fn what_a_guest_does_with_a_refusal_is_its_own_matter() {
    let server = WasmBox::launch()
        // Takes what it gets and ends well.
        .function(
            "modest.wat",
            command("(loop $more (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))"),
        )
        // Refused by the module's own maximum, which no header can raise.
        .function(
            "own.wat",
            "(module (memory 1 2) (func (export \"_start\")
               (drop (memory.grow (i32.const 2))) unreachable))",
        )
        .start();
    let answer = with_memory(&server, "/modest", "3").ok();
    assert_eq!(answer.number("wasmbox-memory-peak-bytes"), f64::from(3 << 20));
    with_memory(&server, "/own", "3").problem(500, "guest-trap");
}

/// What the pools are not made for is refused, when it is loaded, not when it runs.
#[test]
fn modules_that_no_limit_could_fit() {
    let server = WasmBox::launch()
        .function("memory.wat", "(module (memory i64 131072) (func (export \"_start\")))")
        .function("table.wat", "(module (table 10000000 funcref) (func (export \"_start\")))")
        .function("hello.wat", guest::hello())
        .start();
    for path in ["/memory", "/table"] {
        let answer = server.get(path);
        assert!(answer.status == 422 || answer.header("wasmbox-error") == "guest-memory-limit", "{path}: {answer:?}");
    }
    server.get("/hello").ok();
}
