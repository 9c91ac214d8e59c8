//! What holds for handlers of WASI 0.2 holds for those of 0.3, whose bodies are written by tasks of their own: bounds, methods, clients that
//! leave, and where an answer ends.

use http::{Method, Request};
use wasmbox_tests::{
    WasmBox, Wire,
    client::{Http2, VERSIONS},
    component, guest,
    server::Launch,
    wire::parsed,
};

fn launch() -> Launch {
    WasmBox::launch()
        .function("p3.wasm", component::p3_guest())
        .function("hello.wat", guest::hello())
        .flag("--invocation-timeout", "60s")
        .flag("--memory-request", 16)
}

/// Behind a request on a connection that is kept.
const HELLO: &str = "GET /hello HTTP/1.1\r\nHost: box\r\nConnection: close\r\n\r\n";

#[test]
fn the_output_limit_holds() {
    const LIMIT: usize = 256 << 10;
    let server = launch().flag("--max-output", "256Ki").start();
    let too_long = vec![b'x'; LIMIT + 1];
    for version in VERSIONS {
        server.speak(version);
        assert_eq!(server.get(&format!("/p3/write?{LIMIT}")).ok().body.len(), LIMIT);
        assert!(server.post("/p3/copy", too_long[1..].to_vec()).ok().body == too_long[1..]);
        let requests = [
            (Request::get("/p3/write?262145"), vec![]),
            (Request::get("/p3/write?100000000"), vec![]),
            (Request::post("/p3/copy"), too_long.clone()),
            (Request::post("/p3/pass"), too_long.clone()),
        ];
        for (request, body) in requests {
            let asked = format!("{request:?}");
            match server.try_call(request, body) {
                Ok(answer) => drop(answer.problem(500, "guest-output-limit")),
                // It had begun; of HTTP/2 its head may still have been under way when the stream was reset.
                Err(broken) => {
                    assert!(broken.status.is_none_or(|status| status == 200), "{asked}: {broken:?}");
                    assert!(broken.body.len() <= LIMIT, "{asked}: {broken:?}");
                }
            }
        }
        server.logged(&["function=p3", "failure=", "wrote more than 262144 bytes of output"]);
        server.get("/p3/status?200").ok();
    }
    server.wait_until_idle();
}

/// In the middle of whatever its function does, also of a body either way.
#[test]
fn a_client_that_leaves_ends_its_function() {
    let server = launch().start();
    server.get("/p3/status?200").ok();
    let paths = ["/p3/loop", "/p3/sleep", "/p3/write?1099511627776", "/p3/slowly?86400000", "/p3/at-once?20,86400000"];
    let wires: Vec<Wire> = paths
        .iter()
        .map(|path| server.wire(format!("GET {path} HTTP/1.1\r\nHost: box\r\n\r\n")))
        .chain(["copy", "pass"].map(|path| {
            let head = format!("POST /p3/{path} HTTP/1.1\r\nHost: box\r\nTransfer-Encoding: chunked\r\n\r\n");
            server.wire(format!("{head}3\r\nabc\r\n"))
        }))
        .collect();
    server.wait_until_running("p3", wires.len());
    drop(wires);
    server.wait_until_idle();
    let connection = Http2::connect(server.address());
    connection.reset_all(&paths.map(str::to_owned), || server.wait_until_running("p3", paths.len()));
    server.wait_until_idle();
    // And the connection with them.
    let connection = Http2::connect(server.address());
    let begun = ["/p3/write?1099511627776", "/p3/slowly?86400000"].map(|path| connection.open(path));
    server.wait_until_running("p3", begun.len());
    drop((begun, connection));
    server.wait_until_idle();
    server.get("/p3/status?200").ok();
}

#[test]
fn any_method_is_the_handlers() {
    let server = launch().start();
    for version in VERSIONS {
        server.speak(version);
        for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "M-SEARCH"] {
            let method = Method::from_bytes(method.as_bytes()).expect("a method");
            let answer = server.call(Request::builder().method(method.clone()).uri("/p3/request"), "").ok();
            assert!(answer.text().starts_with(&format!("{method} ")), "{method}: {}", answer.text());
            assert!(!answer.headers.contains_key("allow"), "{answer:?}");
        }
        let head = server.call(Request::head("/p3/status?418"), "");
        assert_eq!((head.status, head.body.len()), (418, 0));
    }
    // Of all of them, it is the box's own.
    let all = server.wire("OPTIONS * HTTP/1.1\r\nHost: box\r\nConnection: close\r\n\r\n").answer();
    assert_eq!((all.status, all.headers.contains_key("wasmbox-invocation-id")), (204, false), "{all:?}");
}

/// Whether it is known before the answer begins, or found while its body is sent: the next answer on the connection is another caller's.
#[test]
fn a_length_that_is_wrong_is_no_whole_answer() {
    let server = launch().start();
    let lengths =
        [(5, 9), (9, 5), (0, 1), (1, 0), (200_000, 1_000_000), (1_000_000, 200_000), (7, 7), (300_000, 300_000)];
    for (announced, sent) in lengths {
        let path = format!("/p3/length?{announced},{sent}");
        for method in [Method::GET, Method::HEAD] {
            let mut wire = server.wire(format!("{method} {path} HTTP/1.1\r\nHost: box\r\n\r\n{HELLO}"));
            let bytes = wire.rest();
            let answers = parsed(&bytes, &[method.clone(), Method::GET]);
            match answers.as_slice() {
                [] => assert_ne!(announced, sent, "{path} {method}: broken off"),
                [first, second] => {
                    assert_eq!((second.status, &second.body[..]), (200, &b"hello\n"[..]), "{path} {method}");
                    let length = if method == Method::GET { sent } else { 0 };
                    let is_whole = first.status == 200 && first.body.len() == length;
                    assert!(first.status == 500 || is_whole, "{path} {method}: {} bytes", first.body.len());
                    assert!(first.status == 500 || announced == sent || method == Method::HEAD, "{path} {method}");
                }
                other => panic!("{path} {method}: {} answers to 2 requests", other.len()),
            }
        }
        for version in VERSIONS {
            match server.try_call(Request::get(&path).version(version), "") {
                Ok(answer) if announced == sent => assert_eq!(answer.ok().body.len(), sent, "{path}"),
                Ok(answer) => drop(answer.problem(500, "guest-no-response")),
                Err(broken) => assert_ne!(announced, sent, "{path}: {broken:?}"),
            }
        }
    }
}

/// To who asked for them, at their place behind the body; and nothing of them to who did not.
#[test]
fn trailers_have_their_place() {
    let server = launch().start();
    let asked = server.wire(format!("GET /p3/trailers HTTP/1.1\r\nHost: box\r\nTE: trailers\r\n\r\n{HELLO}")).rest();
    let asked = String::from_utf8_lossy(&asked);
    assert!(asked.contains("\r\nbody\r\n0\r\nx-checksum: abc\r\n\r\nHTTP/1.1 200 OK\r\n"), "{asked}");
    for request in [
        format!("GET /p3/trailers HTTP/1.1\r\nHost: box\r\n\r\n{HELLO}"),
        format!("HEAD /p3/trailers HTTP/1.1\r\nHost: box\r\nTE: trailers\r\n\r\n{HELLO}"),
        "GET /p3/trailers HTTP/1.0\r\nTE: trailers\r\n\r\n".to_owned(),
    ] {
        let answered = server.wire(&request).rest();
        let answered = String::from_utf8_lossy(&answered);
        assert!(!answered.contains("x-checksum") && !answered.contains("trailer:"), "{request}{answered}");
        assert!(answered.ends_with("hello\n") || answered.ends_with("body"), "{request}{answered}");
    }
    // HTTP/2 has a place for them in each answer, and the connection goes on.
    let connection = Http2::connect(server.address());
    for _ in 0..2 {
        let answer = connection.rest(connection.open("/p3/trailers")).expect("a whole answer");
        assert_eq!(answer.text(), "body");
        assert_eq!(answer.trailers.expect("trailers")["x-checksum"], "abc");
    }
}

#[test]
fn a_flood_of_standard_error_harms_neither_answer_nor_log() {
    let server = launch().start();
    for version in VERSIONS {
        server.speak(version);
        let before = server.log().len();
        let answer = server.get("/p3/flood?5000").ok();
        assert_eq!(answer.text(), "flooded");
        server.logged(&["WARN", "guest", "dropped_bytes=", answer.header("wasmbox-invocation-id")]);
        let bytes = server.log().len() - before;
        assert!(bytes < 2 << 20, "{bytes} bytes of log, for 5 MB");
        server.get("/p3/status?200").ok();
    }
}
