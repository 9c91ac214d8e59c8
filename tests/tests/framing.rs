//! Nothing that a guest says decides where its response ends: the next response on the connection is another caller's.

use http::{Method, Request, Version};
use wasmbox_tests::{
    WasmBox,
    client::Http2,
    component::{http_guest, p3_guest},
    eventually, guest, strict,
    wire::parsed,
};

/// What the guest is asked to do.
#[derive(Debug, Clone)]
struct Case {
    announced: Option<u64>,
    status: u16,
    /// Whether its response begins before it has ended.
    waits: bool,
    /// Whether it says that its body is whole.
    finishes: bool,
    sizes: &'static [u64],
}

impl Case {
    fn all() -> Vec<Case> {
        let mut cases = Vec::new();
        for announced in [None, Some(0), Some(3), Some(5), Some(60)] {
            for status in [200, 204, 304, 404] {
                for waits in [false, true] {
                    for finishes in [true, false] {
                        for sizes in [&[][..], &[5], &[2, 3], &[5, 55], &[1, 2, 120]] {
                            cases.push(Case { announced, status, waits, finishes, sizes });
                        }
                    }
                }
            }
        }
        cases
    }

    fn path(&self) -> String {
        let announced = self.announced.map_or("none".into(), |length| length.to_string());
        let pause = if self.waits { "wait" } else { "now" };
        let end = if self.finishes { "finish" } else { "forget" };
        let sizes: Vec<_> = self.sizes.iter().map(u64::to_string).collect();
        format!("/http/framing?{announced},{},{pause},{end},{}", self.status, sizes.join("-"))
    }

    fn sent(&self) -> u64 {
        self.sizes.iter().sum()
    }

    fn is_bodiless(&self) -> bool {
        [204, 304].contains(&self.status)
    }

    /// Whether the guest sends what it announces.
    fn is_consistent(&self) -> bool {
        self.announced.is_none_or(|announced| announced == self.sent())
    }

    /// The response, if one came and is whole, must be what the guest sent, whole, or an error of the server's.
    fn check(&self, method: &Method, status: u16, body: &[u8]) {
        if status == 500 {
            assert!(!self.is_consistent() || !self.finishes, "{self:?} {method}: it did nothing wrong");
            return;
        }
        assert_eq!(status, self.status, "{self:?} {method}");
        let has_body = !self.is_bodiless() && *method != Method::HEAD;
        let expected = if has_body { self.sent() } else { 0 };
        assert_eq!(body.len() as u64, expected, "{self:?} {method}: {:?}", String::from_utf8_lossy(body));
        assert!(expected == 0 || self.is_consistent(), "{self:?} {method}: whole, though it announced another length");
    }
}

fn server() -> WasmBox {
    WasmBox::launch()
        .function("hello.wat", guest::hello())
        .function("http.wasm", http_guest())
        .function("p3.wasm", p3_guest())
        .flag("--memory-request", 8)
        .start()
}

/// Raw bytes on connections that are kept: what follows a response is the next one, or nothing.
#[test]
fn the_next_response_on_a_connection_is_never_a_guests() {
    let server = server();
    for case in Case::all() {
        for method in [Method::GET, Method::HEAD] {
            let mut wire = server.wire(format!(
                "{method} {} HTTP/1.1\r\nHost: box\r\n\r\nGET /hello HTTP/1.1\r\nHost: box\r\nConnection: close\r\n\r\n",
                case.path()
            ));
            let bytes = wire.rest();
            let responses = parsed(&bytes, &[method.clone(), Method::GET]);
            let text = String::from_utf8_lossy(&bytes);
            match responses.as_slice() {
                // Broken off: the client sees that it is not whole.
                [] => assert!(!case.is_consistent() || !case.finishes, "{case:?} {method}: broken off: {text}"),
                [first] => panic!("{case:?} {method}: {} is whole, and the next is missing: {text}", first.status),
                [first, second] => {
                    case.check(&method, first.status, &first.body);
                    assert_eq!((second.status, &second.body[..]), (200, &b"hello\n"[..]), "{case:?} {method}: {text}");
                }
                more => panic!("{case:?} {method}: {} responses to 2 requests: {text}", more.len()),
            }
        }
    }
}

#[test]
fn a_stream_of_http2_is_what_was_announced_or_is_reset() {
    let server = server();
    for case in Case::all() {
        for method in [Method::GET, Method::HEAD] {
            let request = Request::builder().method(method.clone()).uri(case.path()).version(Version::HTTP_2);
            match server.try_call(request, "") {
                Ok(answer) => case.check(&method, answer.status, &answer.body),
                Err(broken) => assert!(!case.is_consistent() || !case.finishes, "{case:?} {method}: {broken:?}"),
            }
        }
    }
    let connection = Http2::connect(server.address());
    assert_eq!(connection.get_all(&["/hello".into()])[0].text(), "hello\n");
}

/// The attack as it was: many requests of others on two connections of a proxy, one of them hostile.
#[test]
fn a_response_is_not_split() {
    let server = server();
    for pause in ["now", "wait"] {
        let mut wire = server.wire(format!(
            "GET /http/framing?5,200,{pause},forget,5-50 HTTP/1.1\r\nHost: box\r\nConnection: close\r\n\r\n"
        ));
        let bytes = wire.rest();
        match strict::answers(&bytes, &["GET"]).expect("what the standard says").as_slice() {
            // Broken off before its head had left.
            [] => assert!(bytes.is_empty(), "{bytes:?}"),
            [answer] if answer.status == 500 => assert_eq!(answer.code(), Some("guest-no-response")),
            [answer] => {
                assert!(answer.header("content-length").eq([b"5"]), "{bytes:?}");
                assert!(!answer.complete && answer.body.is_empty(), "not even the five: they are not all: {bytes:?}");
            }
            several => panic!("{} answers to one request", several.len()),
        }
    }
    eventually("the log says why", || server.log().contains("announced 5 bytes and sent more").then_some(()));
}

/// A command with a head of its own says nothing about its length either.
#[test]
fn the_length_of_cgi_output_is_its_own() {
    for (length, body) in [(3, "forged after three"), (300, "too short")] {
        for wait in ["", "(call $sleep (i64.const 20))"] {
            let output =
                format!("Content-Length: {length}\nTransfer-Encoding: identity\nConnection: keep-alive\n\n{body}");
            let server = WasmBox::launch()
                .function("cgi.wat", guest::printing(output, wait))
                .function("cgi.toml", "output = \"cgi\"\noutput-buffer-bytes = 16")
                .function("hello.wat", guest::hello())
                .start();
            let mut wire =
                server.wire("GET /cgi HTTP/1.1\r\nHost: box\r\n\r\nGET /hello HTTP/1.1\r\nHost: box\r\n\r\n");
            let answer = wire.answer();
            if answer.status == 200 {
                assert_eq!(answer.text(), body);
            }
            assert_eq!(wire.answer().ok().text(), "hello\n");
        }
    }
}

/// What a guest announces goes out behind chunks, to who asked for it; never what frames a message, or is the server's own.
#[test]
fn trailers_that_are_asked_for() {
    let server = server();
    for query in ["", "wait", "length", "wait,length"] {
        let path = format!("/http/trailers?{query}");
        let asks = |version| Request::get(&path).header("TE", "trailers").version(version);
        for version in [Version::HTTP_11, Version::HTTP_2] {
            let answer = server.call(asks(version), "").ok();
            assert_eq!(answer.text(), "before the trailers");
            assert_eq!(answer.header("trailer"), "x-sum, x-missing", "{version:?} {query}");
            let trailers = answer.trailers.unwrap_or_default();
            let mut names: Vec<_> = trailers.keys().map(http::HeaderName::as_str).collect();
            names.sort_unstable();
            // HTTP/2 needs no announcement.
            let expected = if version == Version::HTTP_2 { &["x-silent", "x-sum"][..] } else { &["x-sum"] };
            assert_eq!(names, expected, "{version:?} {query}");
            assert_eq!(trailers["x-sum"], "42");
        }
        // On a connection that goes on, byte by byte.
        let next = "GET /hello HTTP/1.1\r\nHost: box\r\nConnection: close\r\n\r\n";
        let mut wire = server.wire(format!("GET {path} HTTP/1.1\r\nHost: box\r\nTE: trailers\r\n\r\n{next}"));
        let head = wire.head();
        assert_eq!(
            (head.headers.get("content-length"), &head.headers["transfer-encoding"]),
            (None, &"chunked".parse().unwrap())
        );
        let rest = wire.rest();
        let rest = String::from_utf8_lossy(&rest);
        let end = "\r\nbefore the trailers\r\n0\r\nx-sum: 42\r\n\r\nHTTP/1.1 200 OK\r\n";
        assert!(rest.contains(end) && rest.ends_with("\r\n\r\nhello\n"), "{rest}");
        // Who does not ask gets none, and is told of none.
        for request in [
            format!("GET {path} HTTP/1.1\r\nHost: box\r\n\r\n{next}"),
            format!("HEAD {path} HTTP/1.1\r\nHost: box\r\nTE: trailers\r\n\r\n{next}"),
            format!("GET {path} HTTP/1.0\r\nTE: trailers\r\n\r\n"),
        ] {
            let rest = server.wire(&request).rest();
            let rest = String::from_utf8_lossy(&rest);
            assert!(!rest.contains("x-sum") && !rest.contains("trailer:"), "{request}{rest}");
            assert!(rest.ends_with("hello\n") || rest.ends_with("before the trailers"), "{request}{rest}");
        }
    }
    let answer = server.call(Request::get("/p3/trailers").header("TE", "trailers"), "").ok();
    assert_eq!((answer.text(), answer.header("trailer")), ("body", "x-checksum"));
    assert_eq!(answer.trailers.expect("trailers")["x-checksum"], "abc");
}
