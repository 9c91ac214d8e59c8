//! How much may be asked for: the operator's word, then the function's.

use wasmbox_tests::{Request, WasmBox, guest};

use super::with_memory;

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
    // One ends when its time is over; the other has time enough to use up its memory.
    let settings = |timeout: &str| {
        format!(
            "[limits]\nmemory-request = 3\ninvocation-timeout = '{timeout}'\ncpu-quota = 0.25\n[caps]\nmemory-request = '4Mi'\n"
        )
    };
    let server = WasmBox::launch()
        .function("hungry.wat", guest::hungry())
        .function("hungry.toml", settings("50s"))
        .function("sleeping.wat", guest::sleeping())
        .function("sleeping.toml", settings("250ms"))
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
