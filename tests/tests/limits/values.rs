//! What is a limit, and what is none.

use wasmbox_tests::{Request, WasmBox, guest};

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
