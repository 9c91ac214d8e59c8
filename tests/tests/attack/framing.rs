//! Answers that say what they are not: what a guest says decides nothing of the framing, so that the next answer on a connection is
//! always its own caller's.

use http::Version;
use wasmbox_tests::{Attack, Request, WasmBox, attack::together, client, component::http_guest, guest, strict};

use crate::{assert_coded, begun, host_memory::REFUSED};

/// What another's client would take for an answer.
const FORGED: &str = "HTTP/1.1 200 OK\r\nContent-Length: 7\r\nSet-Cookie: owned=1\r\n\r\nforged\n";

/// Sends a request to the attacker, and one to the victim behind it on the same connection, as a proxy does. Gives the code that the
/// attacker's caller gets, or `whole`, or `broken`.
fn behind(server: &WasmBox, method: &str, path: &str) -> String {
    let mut wire = server.wire(format!(
        "{method} {path} HTTP/1.1\r\nHost: box\r\n\r\nGET /hello HTTP/1.1\r\nHost: box\r\nConnection: close\r\n\r\n"
    ));
    let bytes = wire.rest();
    let answers = strict::answers(&bytes, &[method, "GET"]).unwrap_or_else(|error| panic!("{method} {path}: {error}"));
    let shown = String::from_utf8_lossy(&bytes);
    for answer in &answers {
        assert_eq!(answer.header("set-cookie").count(), 0, "{method} {path}: a forged answer: {shown}");
    }
    match answers.as_slice() {
        [first, second] => {
            assert!(first.complete && second.complete, "{method} {path}: {shown}");
            assert_eq!((second.status, &second.body[..]), (200, &b"hello\n"[..]), "{method} {path}: {shown}");
            first.code().unwrap_or("whole").to_owned()
        }
        [first] => {
            assert!(!first.complete, "{method} {path}: the next answer is missing: {shown}");
            "broken".to_owned()
        }
        [] => "broken".to_owned(),
        _ => panic!("{method} {path}: {} answers to two requests: {shown}", answers.len()),
    }
}

fn paths() -> Vec<String> {
    let mut paths = Vec::new();
    for length in ["0", "5", "6", "1000", "4294967296", ""] {
        for status in [200, 204, 205, 304, 404] {
            for how in ["now", "later"] {
                paths.push(format!("/http/hostile?lie,{length},{status},{how}"));
            }
        }
    }
    paths
}

#[test]
fn a_component_that_announces_another_length() {
    Attack::within(1024).function("http.wasm", http_guest()).run(|server| {
        for path in paths() {
            for method in ["GET", "HEAD", "POST"] {
                let outcome = behind(server, method, &path);
                assert!(["whole", "broken", "guest-no-response"].contains(&outcome.as_str()), "{path}: {outcome}");
            }
        }
    });
}

#[test]
fn a_component_that_announces_another_length_over_http2() {
    Attack::within(1024).function("http.wasm", http_guest()).run(|server| {
        for path in paths() {
            for method in ["GET", "HEAD"] {
                let request = Request::builder().method(method).uri(&path).version(Version::HTTP_2);
                // Either it is broken off, or its length is right: the client's library checks that.
                if let Some(answer) = begun(server.try_call(request, "")) {
                    assert!(!answer.headers.contains_key("set-cookie"), "{path}: {answer:?}");
                    if let Some(length) = answer.headers.get("content-length").filter(|_| method == "GET") {
                        let length: usize = length.to_str().expect("digits").parse().expect("digits");
                        assert!(length == answer.body.len() || answer.status == 304, "{path}: {answer:?}");
                    }
                }
            }
        }
    });
}

/// Statuses that end nothing, and heads that no client takes.
#[test]
fn a_component_with_an_impossible_head() {
    Attack::within(1024).function("http.wasm", http_guest()).run(|server| {
        for status in [100, 101, 103, 199] {
            let outcome = behind(server, "GET", &format!("/http/hostile?lie,5,{status},now"));
            assert_eq!(outcome, "guest-no-response", "{status}");
        }
        // More fields than a head may have. The guest may not get that far.
        for number in [50, 90, 1000, 20_000] {
            let path = format!("/http/hostile?headers,{number}");
            let answer = begun(server.try_call(Request::get(&path), ""));
            let code = answer.as_ref().map(|answer| answer.headers.contains_key("wasmbox-error"));
            assert!(number <= 50 || code != Some(false), "{number}: {answer:?}");
        }
        for number in [10, 1000, 20_000] {
            let path = format!("/http/hostile?trailers,{number}");
            if let Some(answer) = begun(server.try_call(Request::get(&path), "")).filter(|answer| answer.status != 200)
            {
                assert_coded(&answer, REFUSED);
            }
        }
    });
}

#[test]
fn a_cgi_program_that_says_how_long_it_is() {
    let heads = [
        "Content-Length: 5",
        "Content-Length: 5000",
        "Content-Length: 5\nContent-Length: 6",
        "Content-Length: -1",
        "Transfer-Encoding: chunked",
        "Transfer-Encoding: gzip, chunked\nContent-Length: 3",
        "Connection: close",
        "Connection: keep-alive, content-length",
        "Upgrade: h2c\nConnection: Upgrade",
        "Trailer: x-sum",
        "Keep-Alive: timeout=1000000",
        "Status: 100 Continue",
        "Status: 101 Switching Protocols\nUpgrade: h2c",
        "Status: 204 No Content",
        "Status: 304 Not Modified\nContent-Length: 9",
        "Status: 205",
        "Status: 999",
        "Status: 200 OK\rContent-Length: 5",
        "X-A: b\rSet-Cookie: owned=1",
        "X-A: b\0c",
        " folded: 1",
        ": no name",
    ];
    let mut attack = Attack::within(512);
    for (index, head) in heads.iter().enumerate() {
        attack = attack
            .function(&format!("cgi{index}.wat"), guest::printing(format!("{head}\n\nfirst{FORGED}"), ""))
            .function(&format!("cgi{index}.toml"), "output = \"cgi\"\n");
    }
    attack.run(|server| {
        for (index, head) in heads.iter().enumerate() {
            for method in ["GET", "HEAD", "POST"] {
                let outcome = behind(server, method, &format!("/cgi{index}"));
                assert!(["whole", "guest-bad-header"].contains(&outcome.as_str()), "{head:?}: {outcome}");
            }
        }
    });
}

/// Through connections that are shared by all, as those of a proxy are: the victim's answers are right. That is what the victim
/// beside it cannot see, as it has connections of its own.
#[test]
fn shared_connections() {
    Attack::within(1024).function("http.wasm", http_guest()).run(|server| {
        let proxy = client::Http2::connect(server.address());
        together(2, |client| {
            behind(server, "GET", &format!("/http/hostile?lie,{},200,now", 5 + client * 1000));
        });
        let paths: Vec<String> = (0..40).map(|_| "/hello".into()).collect();
        for answer in proxy.get_all(&paths) {
            assert_eq!(answer.ok().text(), "hello\n");
        }
    });
}
