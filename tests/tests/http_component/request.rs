//! The request, as a component sees it.

use http::{Method, Version};
use wasmbox_tests::{Request, WasmBox, component::http_guest};

use super::server;

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
