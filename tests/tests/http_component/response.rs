//! The response: status, head, length, and failures before and after they are out.

use http::Version;
use wasmbox_tests::Request;

use super::server;

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
