//! What is no name of a function, in each way of writing it: what leads elsewhere, what is encoded, what is too long.

use std::fs;

use http::Method;
use wasmbox_tests::guest;

use super::{TOKEN, ask, assert_nothing_left, delete, launch, put, request, token_file};

#[test]
fn names_that_are_none() {
    let server = launch().function("hello.wat", guest::hello()).start();
    let longer = |length: usize| "a".repeat(length);
    let refused = |path: &str, status: u16, code: &str| {
        let path = format!("/functions/{path}");
        for method in [Method::GET, Method::PUT, Method::DELETE] {
            ask(&server, request(method, &path), guest::hello()).problem(status, code);
        }
    };
    // Nothing is decoded, and nothing is resolved: what is no name is none, however it is written.
    let names = [
        "",
        // Dots, and what begins with one.
        ".",
        "..",
        "...",
        ".wasmbox",
        ".wasm",
        // Slashes, dots and backslashes that are encoded, once, twice, and in more bytes than they take.
        "a%2fb",
        "a%2Fb",
        "%2e%2e",
        "%2e%2e%2fetc",
        "..%2ftoken",
        "%252e%252e%252ftoken",
        "..%c0%aftoken",
        "%5c..%5ctoken",
        "hello%2fsettings",
        // Backslashes.
        "..\\token",
        "a\\b",
        "\\hello",
        // NUL and other characters.
        "a%00b",
        "%00",
        "hello.wasm%00",
        "hello%00.wasm",
        "hello%0a",
        "hello%20",
        "hello;x=y",
        "C:hello",
        "%C3%A9",
        // Endings that are not up to the caller.
        "a.toml",
        "a.wasm.wasm",
        "hello.toml",
        // Too long, with and without an ending.
        &longer(129),
        &(longer(129) + ".wasm"),
        &longer(255),
        &longer(4096),
    ];
    for name in names {
        refused(name, 400, "bad-module-name");
    }
    for path in ["../settings", "%2e%2e/versions", ".wasmbox/settings", "..\\a/settings", "hello.toml/settings"] {
        refused(path, 400, "bad-module-name");
    }
    let nowhere = [
        "../token",
        "./hello",
        "%2e%2e/token",
        ".wasmbox/lock",
        "/hello",
        "//etc/passwd",
        "a/b/c",
        "hello/",
        "hello//settings",
        "hello/..",
        "hello/../../token",
        "hello/..\\..\\token",
        "hello/%2e%2e/%2e%2e/token",
        "hello/settings/",
        "hello/settings/x",
        "hello/settings%2f..",
        "hello/versions/../../token",
        "hello/other",
        "hello/settings%00",
    ];
    for path in nowhere {
        refused(path, 404, "module-not-found");
    }
    // The longest that is one.
    let longest = longer(128);
    assert_eq!(put(&server, &longest, guest::hello()).status, 201);
    assert_eq!(delete(&server, &format!("/functions/{longest}")).status, 204);
    assert_eq!(fs::read_to_string(token_file(server.launched())).expect("the file"), format!("{TOKEN}\n"));
    assert_nothing_left(&server.functions(), &["hello.wat"]);
}
