//! Errors of a request: 400, 404, 405, 411, 413, 501.

use http::Method;
use wasmbox_tests::{Request, WasmBox, component, guest};

use super::narrow;

#[test]
fn bad_module_name() {
    let server = WasmBox::launch().start();
    for path in ["/.hidden", "/a%20b", "/%2e%2e", "//hello", "/..", "/é".replace('é', "%C3%A9").as_str(), "/a:b"] {
        server.get(path).problem(400, "bad-module-name").names(&["letters"]);
    }
    server.get(&format!("/{}", "a".repeat(129))).problem(400, "bad-module-name");
    server.get(&format!("/{}", "a".repeat(128))).problem(404, "module-not-found");
}

#[test]
fn bad_request() {
    let server = WasmBox::with("hello.wat", guest::hello());
    server.wire("GET /hello HTTP/1.1\r\n\r\n").answer().problem(400, "bad-request").names(&["Host"]);
}

#[test]
fn bad_limit() {
    let server = WasmBox::with("hello.wat", guest::hello());
    for (header, value, bounds) in [
        ("Memory-Request", "lots", ["64Ki", "4096Mi"]),
        ("Cpu-Quota", "-1", ["1m", "m"]),
        ("Invocation-Timeout", "0", ["1ms", "300000ms"]),
    ] {
        let problem = server.call(Request::get("/hello").header(header, value), "").problem(400, "bad-limit");
        problem.names(&[header, value, bounds[0], bounds[1]]);
        for (member, expected) in [("header", header), ("value", value), ("minimum", bounds[0])] {
            assert_eq!(problem.member(member), expected);
        }
        assert!(problem.member("maximum").is_string());
    }
}

#[test]
fn bad_argument() {
    let server = WasmBox::with("hello.wat", guest::hello());
    server.get("/hello?arg=fine&arg=%FF").problem(400, "bad-argument").names(&["2", "UTF-8"]);
    server.get("/hello?arg=a%00b").problem(400, "bad-argument").names(&["1", "NUL"]);
    server.post("/hello", r#"{"parameter": "a\u0000b"}"#).problem(400, "bad-argument").names(&["NUL"]);
}

#[test]
fn body_unreadable() {
    let server = WasmBox::with("echo.wat", guest::echo());
    // Announced are 10 bytes, 3 come.
    let mut wire = server.wire("POST /echo HTTP/1.1\r\nHost: box\r\nContent-Length: 10\r\n\r\nabc");
    wire.finish();
    wire.answer().problem(400, "body-unreadable");
    // A chunk whose size is none: the connection cannot be used any more, not even for an answer.
    let broken = "POST /echo HTTP/1.1\r\nHost: box\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{\"\r\nnonsense\r\n";
    server.wire(broken).rest();
    server.logged(&["invocation", "0001", "body-unreadable"]);
}

#[test]
fn exceeds_capacity() {
    let server = narrow(64);
    server
        .call(Request::get("/hello").header("Memory-Request", "65"), "")
        .problem(400, "exceeds-capacity")
        .names(&["65 MiB", "64 MiB"]);
}

#[test]
fn module_not_found() {
    let server = WasmBox::with("hello.wat", guest::hello());
    server.get("/nothing").problem(404, "module-not-found").names(&["nothing"]);
    server.get("/").problem(404, "module-not-found");
    // Only an HTTP component has paths below its name.
    server.get("/hello/below").problem(404, "module-not-found").names(&["hello"]);
    // There is nothing else beside the two probes.
    server.get("/-/metrics").problem(404, "module-not-found");
}

#[test]
fn method_not_allowed() {
    let server = WasmBox::with("hello.wat", guest::hello());
    for method in [Method::PUT, Method::DELETE, Method::PATCH, Method::TRACE] {
        let answer = server.call(Request::builder().method(method.clone()).uri("/hello"), "");
        answer.problem(405, "method-not-allowed").names(&[method.as_str()]);
        assert_eq!(answer.header("allow"), "GET, HEAD, POST, OPTIONS");
    }
}

#[test]
fn length_required() {
    let server = WasmBox::launch().function("cgi.wat", guest::echo()).function("cgi.toml", "output = 'cgi'").start();
    let mut wire = server.wire("POST /cgi HTTP/1.1\r\nHost: box\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..18 {
        let _ = wire.try_send(format!("10000\r\n{}\r\n", "x".repeat(0x10000)));
    }
    wire.answer().problem(411, "length-required").names(&["Content-Length", "1048576"]);
}

#[test]
fn body_too_large() {
    let server = WasmBox::launch()
        .function("echo.wat", guest::echo())
        .function("hello.wat", guest::hello())
        .function("http.wasm", component::http_guest())
        .flag("--max-body", "1Mi")
        .start();
    let too_large = vec![b'x'; (1 << 20) + 1];
    assert_eq!(server.post("/echo", too_large[1..].to_vec()).ok().body.len(), 1 << 20);
    // Refused for what its length says, before any of it comes.
    for path in ["/echo", "/hello", "/http/echo"] {
        let mut wire = server.wire(format!("POST {path} HTTP/1.1\r\nHost: box\r\nContent-Length: 1048577\r\n\r\n"));
        wire.answer().problem(413, "body-too-large").names(&["1048576"]);
    }
    // Found to be too large when it comes: what the function made of the first part is no answer.
    let server = WasmBox::launch()
        .function("echo.wat", guest::echo())
        .function("http.wasm", component::http_guest())
        .flag("--max-body", "64Ki")
        .start();
    for path in ["/echo", "/http/echo"] {
        let mut wire = server.wire(format!("POST {path} HTTP/1.1\r\nHost: box\r\nTransfer-Encoding: chunked\r\n\r\n"));
        wire.send_chunk(&too_large[..40_000]);
        wire.send_chunk(&too_large[..40_000]);
        wire.send_chunk(b"");
        if path == "/echo" {
            let problem = wire.answer().problem(413, "body-too-large");
            assert_eq!(problem.member("limit_bytes"), 65536);
        } else {
            // The head is out already, so all that is left is to break the answer off.
            assert_eq!(wire.head().status, 200);
            let end = (0..100).find_map(|_| wire.chunk().err());
            assert!(end.is_some(), "the answer is whole");
        }
    }
}

#[test]
fn not_implemented() {
    let server = WasmBox::launch()
        .function("echo.wat", guest::echo())
        .function("http.wasm", component::http_guest())
        .function("p3.wasm", component::p3_guest())
        .start();
    for codings in ["gzip, chunked", "gzip\r\nTransfer-Encoding: chunked", "identity, chunked"] {
        let head = format!("POST /echo HTTP/1.1\r\nHost: box\r\nTransfer-Encoding: {codings}\r\n\r\n0\r\n\r\n");
        let coding = codings.split([',', '\r']).next().unwrap_or_default();
        server.wire(head).answer().problem(501, "not-implemented").names(&[coding]);
    }
    for path in ["echo", "http/request", "p3/request"] {
        let upgrade = format!("GET /{path} HTTP/1.1\r\nHost: box\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
        server.wire(upgrade).answer().problem(501, "not-implemented").names(&["WebSocket"]);
    }
}
