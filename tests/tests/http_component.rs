//! Components with wasi:http/incoming-handler: they get the request itself and make the response.

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener},
    thread,
};

use http::{Method, Version};
use wasmbox_tests::{Request, WasmBox, component::http_guest, eventually, guest};

fn server() -> WasmBox {
    WasmBox::with("http.wasm", http_guest())
}

#[test]
fn any_method_and_any_path_below() {
    let server = server();
    for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "M-SEARCH"] {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let answer = server.call(Request::builder().method(method.clone()).uri("/http/request"), "").ok();
        assert_eq!(answer.text().lines().next(), Some(format!("method {method}").as_str()));
    }
    let head = server.call(Request::head("/http/request"), "").ok();
    assert_eq!(head.body, "");
    for path in [
        "/http/request",
        "/http//a//request?x=1&y=%20",
        "/http/../request",
        "/http/%2e%2e/caf%C3%A9/request",
        "/http/a/b/c/d/request?",
        "/http.wasm/request",
    ] {
        let answer = server.get(path).ok();
        assert_eq!(answer.text().lines().nth(1), Some(format!("path {path}").as_str()));
    }
    // At the name itself, too: the guest decides what is there.
    for path in ["/http", "/http/", "/http/nothing", "/http?request"] {
        assert_eq!(server.get(path).status, 404);
        assert!(!server.get(path).headers.contains_key("wasmbox-error"), "the guest's own 404");
    }
}

#[test]
fn the_request_as_it_came() {
    let server = server();
    let request = Request::post("/http/request")
        .header("Host", "functions.example")
        .header("X-Twice", "1")
        .header("X-Twice", "2")
        .header("Cpu-Quota", "100");
    let answer = server.call(request, "body").ok();
    for line in ["authority functions.example", "header x-twice: 1", "header x-twice: 2", "header cpu-quota: 100"] {
        assert!(answer.text().lines().any(|known| known == line), "{line} is not in {}", answer.text());
    }
    assert!(answer.text().contains("scheme Some(Scheme::Http)"), "{}", answer.text());
    let answer = server.call(Request::get("/http/request").version(Version::HTTP_2), "").ok();
    assert_eq!(answer.version, Version::HTTP_2);
    assert!(answer.text().contains(&format!("authority {}", server.address())), "{}", answer.text());
    // HTTP/1.0 comes without a host.
    server.wire("GET /http/request HTTP/1.0\r\n\r\n").answer().ok();
}

#[test]
fn the_modules_name_can_be_left_out_of_the_path() {
    let server =
        WasmBox::launch().function("http.wasm", http_guest()).function("http.toml", "path = 'stripped'").start();
    for (path, seen) in [
        ("/http/request?a=/http", "/request?a=/http"),
        ("/http.wasm/request", "/request"),
        ("/http/http/request", "/http/request"),
        ("/http//request", "//request"),
    ] {
        let answer = server.get(path).ok();
        assert_eq!(answer.text().lines().nth(1), Some(format!("path {seen}").as_str()), "{path}");
    }
    assert_eq!(server.get("/http").text(), "/");
    assert_eq!(server.get("/http?x").text(), "/");
    assert_eq!(server.call(Request::get("/http/request").version(Version::HTTP_2), "").ok().status, 200);
}

#[test]
fn status_headers_and_trailers() {
    let server = server();
    for status in [200, 201, 204, 299, 301, 304, 400, 404, 418, 500, 503, 599] {
        let answer = server.get(&format!("/http/status?{status}"));
        assert_eq!(answer.status, status);
        assert!(!answer.headers.contains_key("wasmbox-error"), "{answer:?}");
        assert!(answer.headers.contains_key("wasmbox-invocation-id"));
    }
    let answer = server.get("/http/headers").ok();
    assert_eq!((answer.header("content-type"), answer.text()), ("text/x-test", "headers"));
    let cookies: Vec<_> = answer.headers.get_all("set-cookie").iter().collect();
    assert_eq!(cookies, ["a=1", "b=2"]);
    // What the server says of the invocation, a guest cannot.
    assert!(answer.headers.values().all(|value| value != "forged"), "{answer:?}");
    assert!(!answer.headers.contains_key("wasmbox-anything"));
}

/// What a guest announces is what it sends, or the answer is no whole one; and the connection's next answer is not a part of it.
#[test]
fn a_length_that_is_wrong() {
    let server = server();
    assert_eq!(server.get("/http/length?5,5").ok().text(), "xxxxx");
    for (announced, sent) in [(5, 10), (10, 5), (0, 5), (5, 0)] {
        let path = format!("/http/length?{announced},{sent}");
        for version in [Version::HTTP_11, Version::HTTP_2] {
            let answer = server.try_call(Request::get(&path).version(version), "");
            assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status >= 500), "{path}");
        }
        let mut wire = server.wire(format!("GET {path} HTTP/1.1\r\nHost: box\r\n\r\n").repeat(2));
        let rest = {
            wire.finish();
            wire.rest()
        };
        let rest = String::from_utf8_lossy(&rest);
        assert!(!rest.contains("xxxxxx") && !rest.contains("xHTTP"), "{path}: {rest}");
    }
}

/// 1xx are no answers; with 101 a guest would take the connection over.
#[test]
fn an_interim_status_is_no_answer() {
    let server = server();
    for status in [100, 101, 103] {
        let path = format!("/http/status?{status}");
        let head = server.wire(format!("GET {path} HTTP/1.1\r\nHost: box\r\n\r\n")).interim_head();
        assert_eq!(head.status, 500, "{status}: {head:?}");
        server.call(Request::get(&path).version(Version::HTTP_2), "").problem(500, "guest-no-response");
    }
    server.get("/http/request").ok();
}

#[test]
fn the_body_is_passed_on_whatever_it_is() {
    let server = server();
    for body in [r#"{"parameter":"42"}"#, "", "\0", "{"] {
        assert_eq!(server.post("/http/echo?arg=%FF", body).ok().body, body);
    }
}

#[test]
fn streaming_both_ways() {
    let server = server();
    // A dialogue: each part is answered before the next is sent.
    let mut wire = server.wire("POST /http/echo HTTP/1.1\r\nHost: box\r\nTransfer-Encoding: chunked\r\n\r\n");
    for part in [&b"one"[..], b"two", b"three"] {
        wire.send_chunk(part);
        if part == b"one" {
            assert_eq!(wire.head().status, 200);
        }
        assert_eq!(wire.chunk().expect("the part"), Some(part.to_vec()));
    }
    wire.send_chunk(b"");
    assert_eq!(wire.chunk().expect("the end"), None);
    // The head and a first part before the request has ended.
    let mut wire = server.wire("POST /http/two-steps HTTP/1.1\r\nHost: box\r\nContent-Length: 100000\r\n\r\n");
    assert_eq!(wire.head().status, 200);
    assert_eq!(wire.chunk().expect("the first part"), Some(b"first ".to_vec()));
    wire.send(vec![b'x'; 100_000]);
    assert_eq!(wire.chunk().expect("the second part"), Some(b"second".to_vec()));
    // Much more than the guest or the box holds.
    let before = server.process().peak_resident_bytes();
    let large: Vec<u8> = (0..16_u32 << 20).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    assert!(server.post("/http/echo", large.clone()).ok().body == large, "what comes back differs");
    assert_eq!(server.post("/http/echo", "").ok().body, "");
    let growth = server.process().peak_resident_bytes().saturating_sub(before);
    assert!(growth < 12 << 20, "16 MiB through the box took {growth} bytes of its memory");
}

#[test]
fn back_pressure() {
    let server = server();
    server.get("/http/request").ok();
    let before = server.process().peak_resident_bytes();
    let mut wire = server.wire("GET /http/write?1073741824 HTTP/1.1\r\nHost: box\r\n\r\n");
    wire.head();
    eventually("the guest stands still", || {
        let before = server.process().cpu_ticks();
        thread::sleep(std::time::Duration::from_millis(300));
        (server.process().cpu_ticks() - before <= 1).then_some(())
    });
    assert_eq!(server.running("http"), 1.0);
    let growth = server.process().peak_resident_bytes().saturating_sub(before);
    assert!(growth < 24 << 20, "{growth} bytes");
    for _ in 0..100 {
        assert!(wire.chunk().expect("more").is_some());
    }
}

#[test]
fn a_client_that_leaves_ends_the_guest() {
    let server = server();
    for (path, head) in [
        ("loop", "\r\n"),
        ("sleep", "\r\n"),
        ("write?1099511627776", "\r\n"),
        ("echo", "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"),
    ] {
        let wire = server.wire(format!("POST /http/{path} HTTP/1.1\r\nHost: box\r\n{head}"));
        server.wait_until_running("http", 1);
        drop(wire);
        server.wait_until_idle();
    }
}

#[test]
fn failures_before_and_after_the_head() {
    let server = server();
    server.get("/http/trap").problem(500, "guest-trap");
    server.get("/http/silent").problem(500, "guest-no-response");
    let exit = server.get("/http/exit?3").problem(500, "guest-exit");
    assert_eq!(exit.member("exit_code"), 1, "WASI 0.2 knows success and failure only");
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let broken = server.try_call(Request::get("/http/trap-later").version(version), "").expect_err("it traps");
        assert_eq!((broken.status, &broken.body[..]), (Some(200), &b"begun"[..]), "{broken:?}");
    }
    server.logged(&["function=http", "status=200", "failure=", "unreachable"]);
    // A body that its guest did not finish is no whole answer.
    let unfinished = server.try_call(Request::get("/http/unfinished"), "");
    assert!(unfinished.is_err() || unfinished.is_ok_and(|answer| answer.status >= 500), "taken as whole");
}

#[test]
fn the_world_outside_the_request() {
    let server = WasmBox::launch()
        .function("http.wasm", http_guest())
        .function("set.wasm", http_guest())
        .function("set.toml", "env = { GREETING = 'hi' }\nargs = ['--fixed']")
        .env("SECRET", "of the server")
        .start();
    let answer = server.get("/http/streams").ok();
    assert_eq!(answer.text(), "Ok(0)", "there is no standard input but an empty one");
    server.logged(&["guest", "function=http", "to stdout"]);
    server.logged(&["guest", "function=http", "to stderr"]);
    assert_eq!(server.get("/http/environment").ok().text(), "");
    assert_eq!(server.get("/set/environment").ok().text(), "GREETING=hi\narg --fixed\n");
    assert!(server.get("/http/directory").ok().text().starts_with("no directory"));
    let port = server.address().port();
    let socket = server.get(&format!("/http/socket?{port}")).ok();
    assert!(socket.text().starts_with("no connection"), "{}", socket.text());
}

/// A server that answers every request with 302 and its target.
fn other_server() -> SocketAddr {
    server_on("127.0.0.1:0")
}

fn server_on(address: &str) -> SocketAddr {
    let listener = TcpListener::bind(address).expect("a free port");
    let address = listener.local_addr().expect("a bound socket");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut reader = BufReader::new(stream.expect("a connection"));
            let mut request = String::new();
            while !request.ends_with("\r\n\r\n") && reader.read_line(&mut request).is_ok_and(|bytes| bytes > 0) {}
            let target = request.split(' ').nth(1).unwrap_or_default();
            let length = target.len();
            let answer = format!(
                "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: {length}\r\n\r\n{target}"
            );
            let _ = reader.get_mut().write_all(answer.as_bytes());
        }
    });
    address
}

#[test]
fn outbound_requests_need_two_grants() {
    let other = other_server();
    let settings = format!("allowed-outbound-hosts = ['{other}']");
    let launch = WasmBox::launch()
        .function("without.wasm", http_guest())
        .function("granted.wasm", http_guest())
        .function("granted.toml", settings);
    let target = format!("outbound?{other}/path?and=query");
    // The function's settings alone grant nothing.
    let server = launch.start();
    server
        .get(&format!("/granted/{target}"))
        .problem(422, "module-invalid")
        .names(&[&other.to_string(), "--allow-outbound"]);
    let denied = |server: &WasmBox, path: &str| {
        let text = server.get(path).ok().text().to_owned();
        assert!(text.starts_with("error") && text.contains("HttpRequestDenied"), "{path}: {text}");
    };
    denied(&server, &format!("/without/{target}"));
    // The operator's flag alone grants nothing to a function that does not ask.
    let server = server.stop().flag("--allow-outbound", other).start();
    denied(&server, &format!("/without/{target}"));
    // Both: and a redirect is an answer, not followed.
    assert_eq!(server.get(&format!("/granted/{target}")).ok().text(), "status 302 body /path?and=query");
    // Another port, another name of the same host, another scheme.
    let port = other.port();
    let own = server.address();
    for elsewhere in [
        own.to_string(),
        server.admin_address().to_string(),
        format!("localhost:{port}"),
        "127.0.0.1".into(),
        format!("127.0.0.1.:{port}"),
        format!("127.1:{port}"),
    ] {
        denied(&server, &format!("/granted/outbound?{elsewhere}/"));
    }
    assert!(server.get(&format!("/granted/outbound?https://{other}/")).ok().text().starts_with("error"));
    server.logged(&["outbound request refused", "127.0.0.1", "allowed-outbound-hosts", "--allow-outbound"]);
}

#[test]
fn outbound_requests_go_to_addresses_of_ipv6_too() {
    let other = server_on("[::1]:0");
    let server = WasmBox::launch()
        .function("http.wasm", http_guest())
        .function("http.toml", format!("allowed-outbound-hosts = ['{other}']"))
        .flag("--allow-outbound", other)
        .start();
    assert_eq!(server.get(&format!("/http/outbound?{other}/path")).ok().text(), "status 302 body /path");
    let elsewhere = server.get(&format!("/http/outbound?[::1]:{}/", server.address().port())).ok();
    assert!(elsewhere.text().contains("HttpRequestDenied"), "{}", elsewhere.text());
}

#[test]
fn an_outbound_request_ends_with_its_invocation() {
    // Accepts nothing, answers nothing.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let other = silent.local_addr().expect("a bound socket");
    let server = WasmBox::launch()
        .function("http.wasm", http_guest())
        .function("http.toml", format!("allowed-outbound-hosts = ['{other}', '127.0.0.1:1']"))
        .flag("--allow-outbound", format!("{other},127.0.0.1:1"))
        .start();
    // Nobody listens there.
    assert!(server.get("/http/outbound?127.0.0.1:1/").ok().text().starts_with("error"));
    let descriptors = server.process().descriptors();
    for _ in 0..3 {
        let request = Request::get(format!("/http/outbound?{other}/")).header("Invocation-Timeout", "300");
        server.call(request, "").problem(504, "deadline-exceeded");
    }
    eventually("the connections are closed", || (server.process().descriptors() <= descriptors + 1).then_some(()));
}

#[test]
fn components_of_other_kinds() {
    let server = WasmBox::launch()
        .example("rust-http.wasm")
        .function("neither.wat", "(component)")
        .function("core.wat", guest::hello())
        .start();
    assert_eq!(server.get("/rust-http/").ok().text(), "hello\n");
    assert_eq!(server.post("/rust-http/", "body").ok().text(), "body");
    let request = server.get("/rust-http/request").ok();
    assert!(request.text().starts_with("GET /rust-http/request\n"), "{}", request.text());
    server.get("/neither").problem(422, "module-invalid");
    let listing = server.admin("/functions").ok();
    let listing: serde_json::Value = serde_json::from_slice(&listing.body).expect("the listing is JSON");
    assert_eq!(listing[1]["kind"], "http-component", "{listing}");
}
