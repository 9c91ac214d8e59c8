//! What a function may use, and what it is told when it wants more.

use std::{thread, time::Duration};

use wasmbox_tests::{Request, WasmBox, component, eventually, guest, guest::command, guest::command_with};

fn with_memory(server: &WasmBox, path: &str, request: &str) -> wasmbox_tests::Answer {
    server.call(Request::get(path).header("Memory-Request", request), "")
}

/// By default no request holds the whole box, and no function's settings let it.
#[test]
fn one_request_cannot_ask_for_all_of_the_box() {
    let server = WasmBox::launch()
        .function("hello.wat", guest::hello())
        .function("greedy.wat", guest::hello())
        .function("greedy.toml", "[limits]\nmemory-request = 300\n")
        .env("CONCURRENT_RESOURCE_REQUEST", 500)
        .env("MAX_MEMORY_REQUEST", "")
        .start();
    with_memory(&server, "/hello", "250").ok();
    with_memory(&server, "/hello", "251").problem(400, "bad-limit").names(&["Memory-Request", "250Mi"]);
    server.get("/greedy").problem(422, "module-invalid").names(&["memory-request 300Mi", "250Mi"]);
    let long = Request::get("/hello").header("Invocation-Timeout", "301s");
    server.call(long, "").problem(400, "bad-limit").names(&["Invocation-Timeout", "300000ms"]);
}

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

#[test]
fn the_deadline_ends_whatever_the_guest_does() {
    let server = WasmBox::launch()
        .function("busy.wat", guest::busy())
        .function("start.wat", command_with("(func $start (loop $again (br $again))) (start $start)", ""))
        .function("sleeping.wat", guest::sleeping())
        .function("polling.wat", command("(loop $again (call $sleep (i64.const 1)) (br $again))"))
        .function("reading.wat", guest::echo())
        .function("http.wasm", component::http_guest())
        .start();
    for path in ["/busy", "/start", "/sleeping", "/polling", "/http/loop", "/http/sleep"] {
        // Loaded first, or the answer would be that it is still compiling.
        eventually("the function is compiled", || {
            let answer = server.call(Request::get(path).header("Invocation-Timeout", "200"), "");
            (answer.header("wasmbox-error") != "compiling").then(|| answer.problem(504, "deadline-exceeded"))
        });
    }
    // Blocked in reading: a chunked body that does not end, and one that is shorter than it says.
    for head in [
        "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n",
        "Content-Length: 10\r\n\r\nx",
        "Content-Length: 1000000\r\n\r\nx",
    ] {
        let mut wire = server.wire(format!("POST /reading HTTP/1.1\r\nHost: box\r\nInvocation-Timeout: 400\r\n{head}"));
        wire.answer().problem(504, "deadline-exceeded").names(&["400 ms"]);
    }
    server.wait_until_idle();
}

/// A server that had nothing to do sleeps; what wakes it must also wake what watches the time.
#[test]
fn the_deadline_holds_after_a_pause() {
    let server = WasmBox::with("busy.wat", guest::busy());
    for _ in 0..3 {
        thread::sleep(Duration::from_millis(1500));
        let answer = server.call(Request::get("/busy").header("Invocation-Timeout", "200"), "");
        answer.problem(504, "deadline-exceeded");
    }
}

#[test]
fn the_deadline_breaks_off_an_answer_that_has_started() {
    let server = WasmBox::launch()
        .function("flood.wat", guest::flood(0))
        .function("stuck.wat", guest::printing("x", "(call $sleep (i64.const 86400000))"))
        .function("stuck.toml", "output-buffer-bytes = 0")
        .start();
    for path in ["/flood", "/stuck"] {
        server.call(Request::head(path), "").ok();
        let broken = server.try_call(Request::get(path).header("Invocation-Timeout", "300"), "");
        assert_eq!(broken.expect_err("it cannot end").status, Some(200), "{path}");
        let name = path.trim_start_matches('/');
        server.logged(&[&format!("function={name}"), "failure=", "did not end within 300 ms"]);
    }
    // Also when the client does not read: then the guest is blocked in writing.
    let mut wire = server.wire("GET /flood HTTP/1.1\r\nHost: box\r\nInvocation-Timeout: 300\r\n\r\n");
    wire.head();
    server.wait_until_idle();
    let mut end = Ok(None);
    while matches!(&end, Ok(chunk) if chunk.as_ref().is_none_or(|chunk: &Vec<u8>| !chunk.is_empty())) {
        end = wire.chunk();
        assert!(!matches!(end, Ok(None)), "the answer is whole");
    }
}

#[test]
fn output() {
    let server = WasmBox::launch()
        .function("flood.wat", guest::flood(0))
        .function("exact.wat", guest::flood(16))
        .function("one-more.wat", guest::flood(17))
        .flag("--max-output", "1Mi")
        .start();
    assert_eq!(server.get("/exact").ok().body.len(), 1 << 20);
    for path in ["/flood", "/one-more"] {
        // More than the first buffer went out before, so the answer can only be broken off.
        let broken = server.try_call(Request::get(path), "").expect_err("more than the limit");
        assert!(broken.body.len() <= 1 << 20, "{path}: {broken:?}");
        server.logged(&[&format!("function={}", &path[1..]), "failure=", "1048576 bytes of output"]);
    }
}

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

#[test]
fn every_spelling_of_a_limit() {
    let launch = WasmBox::launch().function("hello.wat", guest::hello());
    let server = launch.flag("--max-invocation-timeout", "15m").start();
    for (header, values) in [
        ("Cpu-Quota", &["500", "500m", "0.5", "1", "1000m"][..]),
        ("cpu_quota", &["500", "250m", "0.250"]),
        ("Memory-Request", &["200", "256Mi", "1Gi", "1024Ki", "100M", "1G", "4Gi"]),
        ("Invocation-Timeout", &["60000", "500ms", "60s", "5m", "900s"]),
    ] {
        for value in values {
            server.call(Request::get("/hello").header(header, *value), "").ok();
        }
    }
    // Twice the same is no contradiction, whatever the spelling.
    server.call(Request::get("/hello").header("cpu_quota", "0.5").header("Cpu-Quota", "500m"), "").ok();
    let twice = server.call(Request::get("/hello").header("cpu_quota", "500").header("Cpu-Quota", "400"), "");
    twice.problem(400, "bad-limit").names(&["differs"]);
    let twice = Request::get("/hello").header("Memory-Request", "1").header("Memory-Request", "2");
    server.call(twice, "").problem(400, "bad-limit");
}

#[test]
fn values_that_are_no_limit() {
    let server = WasmBox::with("hello.wat", guest::hello());
    let long = "9".repeat(20_000);
    let values = [
        "",
        "0",
        "00",
        "-1",
        "+1",
        "NaN",
        "nan",
        "Inf",
        "-Inf",
        "infinity",
        "1e3",
        "1,5",
        "0x10",
        " ",
        "1 2",
        "½",
        "9223372036854775808",
        "18446744073709551616",
        "99999999999999999999999",
        "1;2",
        "5potatoes",
        &long,
    ];
    for header in ["Cpu-Quota", "cpu_quota", "Memory-Request", "Invocation-Timeout"] {
        for value in values {
            let answer = server.call(Request::get("/hello").header(header, value.as_bytes()), "");
            assert_eq!(answer.status, 400, "{header}: {value:.30}");
            let problem = answer.problem(400, "bad-limit");
            assert!(problem.detail().len() < 400, "a long value is shortened");
        }
        let answer = server.call(Request::get("/hello").header(header, &b"\xff\xfe"[..]), "");
        answer.problem(400, "bad-limit");
    }
}

#[test]
fn caps_of_the_operator() {
    let server = WasmBox::launch()
        .function("hungry.wat", guest::hungry())
        .flag("--max-memory-request", 100)
        .flag("--max-invocation-timeout", "5s")
        .flag("--max-cpu-quota", "300m")
        .start();
    for (header, just, above, cap) in [
        ("Memory-Request", "100", "101", "100Mi"),
        ("Invocation-Timeout", "5000", "5001", "5000ms"),
        ("Cpu-Quota", "300", "0.301", "300m"),
    ] {
        server.call(Request::get("/hungry").header(header, just), "").problem(500, "guest-memory-limit");
        let problem = server.call(Request::get("/hungry").header(header, above), "").problem(400, "bad-limit");
        problem.names(&[header, cap]);
        assert_eq!(problem.member("maximum"), cap);
    }
    // A default above the cap is the cap.
    let problem = server.get("/hungry").problem(500, "guest-memory-limit");
    assert_eq!(problem.member("limit_bytes"), 100 << 20);
}

#[test]
fn defaults_and_caps_of_a_function() {
    let settings = "[limits]\nmemory-request = 3\ninvocation-timeout = '250ms'\ncpu-quota = 0.25\n[caps]\nmemory-request = '4Mi'\n";
    let server = WasmBox::launch()
        .function("hungry.wat", guest::hungry())
        .function("hungry.toml", settings)
        .function("sleeping.wat", guest::sleeping())
        .function("sleeping.toml", settings)
        .function("other.wat", guest::hungry())
        .flag("--memory-request", "2Mi")
        .start();
    // Compiled before their time counts.
    for path in ["/hungry", "/sleeping"] {
        let long = Request::options(path).header("Invocation-Timeout", "60000");
        assert_eq!(server.call(long, "").status, 204);
    }
    let limit =
        |answer: wasmbox_tests::Answer| answer.problem(500, "guest-memory-limit").member("limit_bytes").as_u64();
    assert_eq!(limit(server.get("/hungry")), Some(3 << 20));
    assert_eq!(limit(with_memory(&server, "/hungry", "4")), Some(4 << 20));
    with_memory(&server, "/hungry", "5").problem(400, "bad-limit").names(&["4Mi"]);
    server.get("/sleeping").problem(504, "deadline-exceeded").names(&["250 ms"]);
    assert_eq!(limit(server.get("/other")), Some(2 << 20));
    assert_eq!(limit(with_memory(&server, "/other", "5")), Some(5 << 20));
}
