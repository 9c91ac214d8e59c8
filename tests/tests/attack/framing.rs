//! Answers that say what they are not: what a guest says decides nothing of the framing, so that the next answer on a connection is
//! always its own caller's.

use http::Version;
use wasmbox_tests::{Attack, Request, WasmBox, component::http_guest, strict};

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
fn a_component_that_announces_another_length_over_http2() {
    Attack::within(512).function("http.wasm", http_guest()).run(|server| {
        for path in paths() {
            for method in ["GET", "HEAD"] {
                let request = Request::builder().method(method).uri(&path).version(Version::HTTP_2);
                // Either it is broken off, or its length is right: the client's library checks that.
                if let Ok(answer) = server.try_call(request, "") {
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
    Attack::within(512).function("http.wasm", http_guest()).run(|server| {
        for status in [100, 101, 103, 199] {
            let outcome = behind(server, "GET", &format!("/http/hostile?lie,5,{status},now"));
            assert_eq!(outcome, "guest-no-response", "{status}");
        }
        // More fields than a head may have. The guest may not get that far.
        for number in [50, 1000, 20_000] {
            let path = format!("/http/hostile?headers,{number}");
            let answer = server.try_call(Request::get(&path), "");
            let code = answer.as_ref().map(|answer| answer.headers.get("wasmbox-error").is_some());
            assert!(number <= 50 || matches!(code, Ok(true) | Err(_)), "{number}: {answer:?}");
        }
        for number in [10, 1000, 20_000] {
            let _ = server.try_call(Request::get(format!("/http/hostile?trailers,{number}")), "");
        }
    });
}
