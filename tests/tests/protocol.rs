//! HTTP itself: methods, connections, versions, and what is no HTTP.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use http::Method;
use wasmbox_tests::{Request, WasmBox, Wire, component::http_guest, guest};

fn server() -> WasmBox {
    WasmBox::launch()
        .function("hello.wat", guest::hello())
        .function("echo.wat", guest::echo())
        .function("arguments.wat", guest::arguments())
        .function("sleeping.wat", guest::sleeping())
        .function("slow.wat", guest::printing("slow", "(call $sleep (i64.const 200))"))
        .start()
}

#[test]
fn head() {
    let server = server();
    let (get, head) = (server.get("/hello").ok(), server.call(Request::head("/hello"), "").ok());
    assert_eq!(head.body, "");
    for name in ["content-length", "content-type"] {
        assert_eq!(head.header(name), get.header(name));
    }
    let missing = server.call(Request::head("/nothing"), "");
    assert_eq!((missing.status, missing.header("wasmbox-error"), missing.body.len()), (404, "module-not-found", 0));
    // On a connection that goes on: nothing of a body is on the wire.
    let mut wire = server.wire("HEAD /hello HTTP/1.1\r\nHost: box\r\n\r\n");
    assert_eq!(wire.head().status, 200);
    wire.send("GET /hello HTTP/1.1\r\nHost: box\r\n\r\n");
    assert_eq!(wire.answer().ok().text(), "hello\n");
}

#[test]
fn options_and_other_methods() {
    let server = server();
    let answer = server.call(Request::options("/hello"), "");
    assert_eq!((answer.status, answer.header("allow"), answer.body.len()), (204, "GET, HEAD, POST, OPTIONS", 0));
    server.call(Request::options("/nothing"), "").problem(404, "module-not-found");
    let about_all = server.wire("OPTIONS * HTTP/1.1\r\nHost: box\r\n\r\n").answer();
    assert_eq!((about_all.status, about_all.header("allow")), (204, "GET, HEAD, POST, OPTIONS"));
    for method in ["PUT", "DELETE", "PATCH", "TRACE", "PROPFIND", "get"] {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        server.call(Request::builder().method(method).uri("/hello"), "").problem(405, "method-not-allowed");
    }
    // What is not there has no methods.
    server.call(Request::put("/nothing"), "").problem(404, "module-not-found");
}

#[test]
fn connections_are_kept_until_somebody_closes_them() {
    let server = server();
    let mut wire = Wire::connect(server.address());
    for body in ["first", "second", "third"] {
        wire.send(format!("POST /echo HTTP/1.1\r\nHost: box\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
        assert_eq!(wire.answer().ok().text(), body);
        // Errors do not close it either.
        wire.send("GET /nothing HTTP/1.1\r\nHost: box\r\n\r\n");
        wire.answer().problem(404, "module-not-found");
    }
    wire.send("GET /hello HTTP/1.1\r\nHost: box\r\nConnection: close\r\n\r\n");
    assert_eq!(wire.answer().ok().header("connection"), "close");
    assert_eq!(wire.rest(), b"");
    // HTTP/1.0 closes unless it is asked not to.
    let mut wire = server.wire("GET /hello HTTP/1.0\r\n\r\n");
    wire.answer().ok();
    assert_eq!(wire.rest(), b"");
    let mut wire = server.wire("GET /hello HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    wire.answer().ok();
    wire.send("GET /hello HTTP/1.0\r\n\r\n");
    wire.answer().ok();
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = server();
    let mut wire = Wire::connect(server.address());
    wire.send(
        "GET /slow HTTP/1.1\r\nHost: box\r\n\r\n\
         POST /echo HTTP/1.1\r\nHost: box\r\nContent-Length: 6\r\n\r\nechoed\
         GET /nothing HTTP/1.1\r\nHost: box\r\n\r\n\
         POST /echo HTTP/1.1\r\nHost: box\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nin \r\n6\r\nchunks\r\n0\r\n\r\n\
         GET /hello HTTP/1.1\r\nHost: box\r\n\r\n",
    );
    assert_eq!(wire.answer().ok().text(), "slow");
    assert_eq!(wire.answer().ok().text(), "echoed");
    wire.answer().problem(404, "module-not-found");
    assert_eq!(wire.answer().ok().text(), "in chunks");
    assert_eq!(wire.answer().ok().text(), "hello\n");
    let many = "GET /hello HTTP/1.1\r\nHost: box\r\n\r\n".repeat(100);
    wire.send(many);
    for _ in 0..100 {
        assert_eq!(wire.answer().ok().text(), "hello\n");
    }
}

#[test]
fn probes() {
    let server = server();
    for (path, word) in [("/-/live", "live\n"), ("/-/ready", "ready\n")] {
        for answer in [server.get(path), server.admin(path.trim_start_matches("/-"))] {
            assert!(answer.text().starts_with(word), "{}", answer.text());
            answer.ok();
        }
        assert_eq!(server.call(Request::head(path), "").ok().body, "");
    }
    server.get("/-/ready/more").problem(404, "module-not-found");
}

#[test]
fn the_admin_port() {
    let server = server();
    server.put("hello.toml", "[limits]\nmemory-request = '64Mi'\n");
    server.get("/hello").ok();
    server.put("bad.wat", "bad");
    server.get("/bad").problem(422, "module-invalid");
    let listing = server.admin("/functions").ok();
    assert_eq!(listing.header("content-type"), "application/json");
    let listing: serde_json::Value = serde_json::from_slice(&listing.body).expect("the listing is JSON");
    assert_eq!((&listing[0]["file"], &listing[0]["state"]), (&"bad.wat".into(), &"failed".into()));
    assert!(listing[0]["reason"].as_str().is_some_and(|reason| reason.contains("bad.wat")));
    assert_eq!((&listing[1]["file"], &listing[1]["state"]), (&"hello.wat".into(), &"ready".into()));
    assert_eq!(listing[1]["kind"], "command");
    assert!(listing[1]["code_bytes"].as_u64().is_some_and(|bytes| bytes > 0));
    // The function's own over the operator's.
    let limits = serde_json::json!({ "cpu_quota": "500m", "memory_request": "64Mi", "invocation_timeout": "60000ms" });
    assert_eq!(listing[1]["limits"], limits);
    assert!(listing[0]["limits"].is_null());
    for path in ["/hello", "/functions/hello", "/metrics/"] {
        assert_eq!(server.admin(path).status, 404, "{path}");
    }
    let mut wire =
        Wire::send_to(server.admin_address(), "POST /metrics HTTP/1.1\r\nHost: box\r\nContent-Length: 0\r\n\r\n");
    let answer = wire.answer();
    assert_eq!((answer.status, answer.header("allow")), (405, "GET, HEAD"));
    // What is for operators is not on the function port.
    for path in ["/metrics", "/functions", "/status", "/live", "/ready", "/-/metrics", "/-/status"] {
        server.get(path).problem(404, "module-not-found");
    }
}

#[test]
fn metrics_are_what_prometheus_wants() {
    let server = WasmBox::launch()
        .function("hello.wat", guest::hello())
        .function("trap.wat", guest::command("unreachable"))
        .function("http.wasm", http_guest())
        .start();
    server.get("/hello").ok();
    server.get("/trap").problem(500, "guest-trap");
    server.get("/http/request").ok();
    server.get("/nothing").problem(404, "module-not-found");
    let answer = server.admin("/metrics").ok();
    assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let promtool =
        Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut promtool = promtool.expect("promtool runs; install it with `apt-get install prometheus`");
    promtool.stdin.take().expect("a pipe").write_all(&answer.body).expect("promtool reads its input");
    let output = promtool.wait_with_output().expect("promtool ends");
    assert!(output.status.success(), "promtool: {}", String::from_utf8_lossy(&output.stdout));
    assert_eq!(output.stdout, b"", "promtool: {}", String::from_utf8_lossy(&output.stdout));
}

/// Hostile names cannot fill the server's memory with metrics.
#[test]
fn the_number_of_functions_in_metrics_is_bounded() {
    let mut launch = WasmBox::launch();
    for index in 0..230 {
        launch = launch.function(&format!("f{index}.wat"), guest::hello());
    }
    let server = launch.start();
    for index in 0..230 {
        server.get(&format!("/f{index}")).ok();
        server.get(&format!("/unknown{index}")).problem(404, "module-not-found");
    }
    let metrics = server.metrics();
    let series = |name: &str| metrics.text().lines().filter(|line| line.starts_with(name)).count();
    assert_eq!(series("wasmbox_in_flight_invocations{"), 201);
    assert_eq!(metrics.sum("wasmbox_rejected_total", &["code=\"module-not-found\""]), 230.0);
    let codes =
        metrics.text().lines().filter(|line| line.starts_with("wasmbox_rejected_total{") && !line.ends_with(" 0"));
    assert_eq!(codes.count(), 1);
    assert_eq!(metrics.sum("wasmbox_invocations_total", &["function=\"(other)\"", "status=\"200\""]), 30.0);
    assert_eq!(metrics.sum("wasmbox_invocations_total", &["status=\"200\""]), 230.0);
}

#[test]
fn large_heads() {
    let server = server();
    let long = "x".repeat(50 << 10);
    server.call(Request::get("/hello").header("X-Long", &long), "").ok();
    let mut many = Request::get("/hello");
    for index in 0..90 {
        many = many.header(format!("X-{index}"), "x");
    }
    server.call(many, "").ok();
    for request in [
        format!("GET /hello HTTP/1.1\r\nHost: box\r\nX-Long: {}\r\n\r\n", "x".repeat(100 << 10)),
        format!("GET /hello HTTP/1.1\r\nHost: box\r\n{}\r\n", "X: x\r\n".repeat(20_000)),
        format!("GET /hello?{} HTTP/1.1\r\nHost: box\r\n\r\n", "x".repeat(100 << 10)),
        format!("{} /hello HTTP/1.1\r\nHost: box\r\n\r\n", "G".repeat(100 << 10)),
    ] {
        let mut wire = Wire::connect(server.address());
        // The server may stop listening before all is sent.
        let _ = wire.try_send(&request);
        let rest = wire.rest();
        let rest = String::from_utf8_lossy(&rest);
        let refused = ["400", "414", "431"].iter().any(|status| rest.starts_with(&format!("HTTP/1.1 {status}")));
        assert!(rest.is_empty() || refused, "{rest}");
    }
    server.get("/hello").ok();
}

#[test]
fn what_is_no_http() {
    let server = server();
    for hostile in [
        &b"\r\n\r\n\r\n"[..],
        b"\0\0\0\0\0\0\0\0\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 TLS\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /hello\r\n\r\n",
        b"GET /hello HTTP/9.9\r\nHost: box\r\n\r\n",
        b"GET /hello HTTP/1.1\r\nHost : box\r\n\r\n",
        b"GET /hello HTTP/1.1\r\nHost: a\r\n folded: b\r\n\r\n",
        b"GET /hello HTTP/1.1\r\nHost: box\r\nX: a\0b\r\n\r\n",
        b"GET /he llo HTTP/1.1\r\nHost: box\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: box\r\nContent-Length: -1\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: box\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        b"POST /echo HTTP/1.1\r\nHost: box\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: box\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: box\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nnot a frame at all, but long enough to be one",
    ] {
        let mut wire = Wire::connect(server.address());
        let _ = wire.try_send(hostile);
        wire.finish();
        let rest = wire.rest();
        assert!(!rest.starts_with(b"HTTP/1.1 200"), "{:?}", String::from_utf8_lossy(hostile));
    }
    server.get("/hello").ok();
    // A length and chunks, which hide a second request from one of two servers in a row: never two answers.
    let both = "POST /echo HTTP/1.1\r\nHost: box\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /hello HTTP/1.1\r\nHost: box\r\n\r\n";
    let mut wire = server.wire(both);
    wire.finish();
    let rest = wire.rest();
    let answers = String::from_utf8_lossy(&rest).matches("HTTP/1.1 200").count();
    assert!(answers <= 1, "{}", String::from_utf8_lossy(&rest));
    assert_eq!(server.metrics().sum("wasmbox_invocations_total", &["status=\"500\""]), 0.0);
}

#[test]
fn odd_but_right() {
    let server = server();
    for request in [
        "GET http://elsewhere.example/hello HTTP/1.1\r\nHost: box\r\n\r\n",
        "GET /hello HTTP/1.1\nHost: box\n\n",
        "\r\nGET /hello HTTP/1.1\r\nHost: box\r\n\r\n",
        "GET /hello?a?b[]|;:@!$'()*,~^` HTTP/1.1\r\nHost: box\r\n\r\n",
        "GET /hello HTTP/1.1\r\nhOsT: box\r\nEMPTY:\r\n\r\n",
        "GET /hello HTTP/1.1\r\nHost: box\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
    ] {
        assert_eq!(server.wire(request).answer().ok().text(), "hello\n", "{request}");
    }
    let connect = server.wire("CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n").head();
    assert!((400..500).contains(&connect.status), "{connect:?}");
}

/// Requests that a proxy in front may read in another way than the server does.
#[test]
fn heads_that_are_read_in_two_ways() {
    let server = server();
    for request in [
        "GET /hello HTTP/1.1\r\n\r\n",
        "GET http://box/hello HTTP/1.1\r\n\r\n",
        "GET /hello HTTP/1.1\r\nHost: box\r\nHost: box\r\n\r\n",
        "GET /hello HTTP/1.1\r\nHost: a b\r\n\r\n",
        "GET /hello HTTP/1.1\r\nHost:\r\n\r\n",
        "GET /-/live HTTP/1.1\r\nHost: user@box\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: box\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: box\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        server.wire(request).answer().problem(400, "bad-request");
    }
    let mut wire = server.wire("GET /hello HTTP/1.0\r\n\r\n");
    wire.answer().ok();
}
