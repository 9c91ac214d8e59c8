//! Components of WASI 0.3: what 0.2 has, they have; and their tasks run beside each other, also after they have answered.

use http::Request;
use wasmbox_tests::{
    Upstream, WasmBox,
    client::{Http2, VERSIONS},
    component, guest,
    patience::eventually,
    server::Launch,
};

fn server() -> WasmBox {
    launch().start()
}

fn launch() -> Launch {
    WasmBox::launch()
        .function("p3.wasm", component::p3_guest())
        .function("command.wasm", component::p3_command())
        .function("hello.wat", guest::hello())
        .flag("--invocation-timeout", "20s")
}

#[test]
fn a_handler_gets_the_request() {
    let server = server();
    let answer = server.call(Request::put("/p3/request?a=b").header("X-Word", "heard"), "").ok();
    let authority = server.address();
    assert!(answer.text().starts_with(&format!("PUT {authority} /p3/request?a=b\n")), "{}", answer.text());
    assert!(answer.text().contains("x-word: heard\n"), "{}", answer.text());
    let by_http2 = Http2::connect(server.address()).get_all(&["/p3/request".into()]).remove(0).ok();
    assert!(by_http2.text().starts_with(&format!("GET {authority} /p3/request\n")), "{}", by_http2.text());
}

#[test]
fn a_short_answer_is_whole_before_it_is_sent() {
    let server = server();
    for version in VERSIONS {
        server.speak(version);
        let answer = server.get("/p3/status?418");
        assert_eq!((answer.status, answer.header("content-length"), answer.text()), (418, "8", "as asked"));
        assert!(answer.number("wasmbox-cpu-time-us") > 0.0 && answer.number("wasmbox-memory-peak-bytes") > 0.0);
        // What a guest says of the length must be true.
        for lengths in ["5,9", "9,5", "0,1", "1,0"] {
            server.get(&format!("/p3/length?{lengths}")).problem(500, "guest-no-response");
        }
        assert_eq!(server.get("/p3/length?7,7").ok().text(), "xxxxxxx");
    }
}

#[test]
fn bodies_are_streamed_both_ways() {
    let server = server();
    for version in VERSIONS {
        server.speak(version);
        assert_eq!(server.get("/p3/write?50000000").ok().body.len(), 50_000_000);
        assert_eq!(server.get("/p3/slowly?20").ok().text(), "one two three");
        let body: Vec<u8> = (0..3_000_000_u32).map(|number| number.to_le_bytes()[0]).collect();
        // The guest copies it; or it passes it on unseen, and has ended before most of it has come.
        for path in ["/p3/copy", "/p3/pass"] {
            assert!(server.post(path, body.clone()).ok().body == body, "{path}");
        }
        for path in ["/p3/copy", "/p3/pass"] {
            assert_eq!(server.post(path, "short").ok().header("content-length"), "5", "{path}");
            server.post(path, "").ok();
        }
    }
    let limited = WasmBox::launch().function("p3.wasm", component::p3_guest()).flag("--max-body", "100Ki").start();
    let over = || Request::post("/p3/pass").header("Transfer-Encoding", "chunked");
    // It is broken off, or refused if nothing of it was sent.
    let answer = limited.try_call(over(), vec![b'x'; 200 << 10]);
    assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status == 413));
    limited.wait_until_idle();
}

#[test]
fn trailers_go_out() {
    let server = server();
    let answers = Http2::connect(server.address());
    let answer = answers.rest(answers.open("/p3/trailers")).expect("a whole answer");
    assert_eq!(answer.text(), "body");
    assert_eq!(
        answer.trailers.as_ref().and_then(|trailers| trailers.get("x-checksum")).map(|sum| sum.as_bytes()),
        Some(&b"abc"[..])
    );
    server.logged(&["invocation", "function=p3", "status=200"]);
    assert!(!server.log().contains("failure="), "{}", server.log());
}

#[test]
fn tasks_run_beside_each_other_and_after_the_answer() {
    let server = server();
    // One after the other they would take longer than the deadline.
    let answer = server.call(Request::get("/p3/at-once?100,500").header("Invocation-Timeout", "10000"), "").ok();
    assert_eq!(answer.text(), "4950");
    assert_eq!(server.get("/p3/goes-on?100").ok().text(), "answered");
    server.logged(&["guest", "function=p3", "went on"]);
    server.wait_until_idle();
    // A stream that nobody will write to any more has ended.
    assert_eq!(server.get("/p3/leaves-open").ok().text(), "open");
    // Work after the answer is part of the invocation, with its deadline.
    let request = Request::get("/p3/goes-on?60000").header("Invocation-Timeout", "3000");
    assert_eq!(server.call(request, "").ok().text(), "answered");
    server.logged(&["function=p3", "did not end within 3000 ms"]);
    server.wait_until_idle();
}

#[test]
fn failures_have_their_codes() {
    let server = server();
    for version in VERSIONS {
        server.speak(version);
        server.get("/p3/trap").problem(500, "guest-trap").names(&["unreachable", "as asked"]);
        server.get("/p3/error").problem(500, "guest-no-response").names(&["as asked"]);
        server.get("/p3/memory").problem(500, "guest-memory-limit");
        for path in ["loop", "sleep"] {
            let request = Request::get(format!("/p3/{path}")).header("Invocation-Timeout", "300");
            server.call(request, "").problem(504, "deadline-exceeded");
        }
        assert!(server.try_call(Request::get("/p3/trap-later"), "").is_err(), "it is broken off");
        server.logged(&["function=p3", "failure=", "unreachable"]);
        for (query, code) in [("arg=exit&arg=200", 200), ("arg=error", 1)] {
            let answer = server.get(&format!("/command?{query}"));
            assert_eq!(answer.problem(500, "guest-exit").member("exit_code"), code);
        }
        let request = Request::get("/command?arg=loop").header("Invocation-Timeout", "300");
        server.call(request, "").problem(504, "deadline-exceeded");
        server.get("/hello").ok();
    }
}

#[test]
fn commands() {
    let server = server();
    for version in VERSIONS {
        server.speak(version);
        assert_eq!(server.post("/command?arg=echo", "said").ok().text(), "said");
        let body = vec![b'x'; 3_000_000];
        assert!(server.post("/command?arg=echo", body.clone()).ok().body == body);
        assert_eq!(server.get("/command?arg=write&arg=20000000").ok().body.len(), 20_000_000);
        assert!(server.get("/command?arg=environment").ok().text().contains("REQUEST_METHOD=GET\n"));
        assert_eq!(server.get("/command?arg=leaves").ok().text(), "left");
    }
    let limited = WasmBox::launch()
        .function("command.wasm", component::p3_command())
        .flag("--max-output", "256Ki")
        .flag("--output-buffer-bytes", 1 << 20)
        .start();
    // Whether it looks at the error or not.
    for query in ["arg=write&arg=300000", "arg=careless"] {
        limited.get(&format!("/command?{query}")).problem(500, "guest-output-limit");
    }
}

#[test]
fn nothing_is_granted_that_is_not_granted_to_others() {
    let server = server();
    assert!(server.get("/p3/directory").ok().text().starts_with("no directory"));
    assert_eq!(server.get("/p3/environment").ok().text(), "");
    let upstream = Upstream::plain("127.0.0.1:0");
    let address = upstream.address();
    server.get(&format!("/p3/forward?{address}")).problem(500, "guest-no-response").names(&["HttpRequestDenied"]);
    let settings = format!("allowed-outbound-hosts = ['{address}']\nenv = {{ WORD = 'granted' }}\n");
    let granted = WasmBox::launch()
        .function("p3.wasm", component::p3_guest())
        .function("p3.toml", settings)
        .flag("--allow-outbound", address)
        .start();
    // Its body is passed on, and comes after the guest has ended.
    granted.get(&format!("/p3/forward?{address}")).ok();
    assert_eq!(granted.get("/p3/environment").ok().text(), "WORD=granted\n");
}

/// Handles, tasks and timers are the invocation's: they end it, or with it, and the box has none left.
#[test]
fn what_the_box_holds_for_a_guest_is_bounded() {
    let server = server();
    for path in ["streams?1000000", "futures?1000000"] {
        server.get(&format!("/p3/{path}")).problem(500, "guest-trap").names(&["handle limit"]);
    }
    let many = server.get("/p3/at-once?1000000,1");
    assert_ne!(many.status, 200, "a million tasks at once");
    let before = server.process().resident_bytes();
    for _ in 0..200 {
        server.get("/p3/streams?1000000").problem(500, "guest-trap");
    }
    eventually("memory is given back", || (server.process().resident_bytes() < before + (32 << 20)).then_some(()));
    server.get("/p3/status?200").ok();
}

/// One engine's code is not the other's: a box that starts anew finds both in its cache.
#[test]
fn the_code_of_both_kinds_is_cached() {
    // Baseline code is not cached.
    let server = launch().flag("--tiers", "off").start();
    server.get("/p3/status?200").ok();
    server.get("/hello").ok();
    let launch = server.stop();
    let server = launch.start();
    server.get("/p3/status?200").ok();
    server.get("/hello").ok();
    let hits = server.metrics().sum("wasmbox_cache_requests_total", &[r#"result="hit""#]);
    assert!(hits >= 2.0, "{hits}");
}

/// Each may have a call that waits, on a stack of its own: there is a bound.
#[test]
fn a_component_of_too_many_components_is_refused() {
    let inner = r#"(component $c
        (core module $m (func (export "f")))
        (core instance $i (instantiate $m))
        (func (export "f") (canon lift (core func $i "f"))))"#;
    let text = |count: usize| {
        let instances = "(instance (instantiate $c))".repeat(count);
        format!(
            r#"(component (import "wasi:random/random@0.3.0" (instance (export "get-random-u64" (func (result u64)))))
            {inner} {instances})"#
        )
    };
    let server = WasmBox::launch().function("many.wat", text(5)).function("few.wat", text(4)).start();
    server.get("/many").problem(422, "module-invalid").names(&["5 components", "WASI 0.3"]);
    server.get("/few").problem(422, "module-invalid").names(&["wasi:http/handler (WASI 0.3)"]);
}

#[test]
fn a_box_can_do_without() {
    let server = WasmBox::launch()
        .function("p3.wasm", component::p3_guest())
        .function("http.wasm", component::http_guest())
        .flag("--wasi-p3", false)
        .start();
    server.get("/p3/status?200").problem(422, "module-invalid").names(&["WASI 0.3", "--wasi-p3"]);
    server.get("/http/status?200").ok();
}
