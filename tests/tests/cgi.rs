//! Commands as CGI programs: methods, paths below a name, bodies of unknown length, an environment of their own.

use http::{HeaderMap, Method, Version};
use wasmbox_tests::{
    Request, WasmBox,
    client::{Http2, VERSIONS},
    guest,
};

/// A CGI program that answers with its environment.
fn program() -> String {
    let (data, print) = guest::text("Content-Type: text/plain\n\n");
    guest::command_with(&data, &format!("{print} (call $print_environment)"))
}

/// A CGI program that answers with as much of its input as it was told there is, like those that trust `CONTENT_LENGTH`: and with that first.
fn reader() -> String {
    let (data, print) = guest::text("Content-Type: text/plain\n\n");
    guest::command_with(&data, &format!("{print} (call $print_environment) (call $copy (i32.const 0) (i32.const 1))"))
}

fn request(method: &str, path: &str) -> http::request::Builder {
    Request::builder().method(Method::from_bytes(method.as_bytes()).expect("a method")).uri(path)
}

#[test]
fn methods_are_those_of_the_settings() {
    let server = WasmBox::launch()
        .function("rest.wat", program())
        .function("rest.toml", "output = 'cgi'\nmethods = ['GET', 'PUT', 'DELETE', 'PURGE']")
        .function("all.wat", program())
        .function("all.toml", "output = 'cgi'\nmethods = ['OPTIONS', 'POST']")
        .start();
    for version in VERSIONS {
        server.speak(version);
        for method in ["GET", "PUT", "DELETE", "PURGE"] {
            let answer = server.call(request(method, "/rest"), "").ok();
            assert!(answer.text().contains(&format!("REQUEST_METHOD={method}\0")), "{method}: {}", answer.text());
        }
        assert_eq!(server.call(request("HEAD", "/rest"), "").ok().body, "");
        for method in ["POST", "PATCH", "purge"] {
            let answer = server.call(request(method, "/rest"), "");
            answer.problem(405, "method-not-allowed").names(&[method]);
            assert_eq!(answer.header("allow"), "GET, HEAD, PUT, DELETE, PURGE, OPTIONS");
        }
        let asked = server.call(request("OPTIONS", "/rest"), "");
        assert_eq!((asked.status, asked.header("allow")), (204, "GET, HEAD, PUT, DELETE, PURGE, OPTIONS"));
        assert!(server.call(request("OPTIONS", "/all"), "").ok().text().contains("REQUEST_METHOD=OPTIONS\0"));
        server.get("/all").problem(405, "method-not-allowed");
    }
}

#[test]
fn methods_that_are_none_are_an_error_of_the_settings() {
    let server = WasmBox::launch()
        .function("none.wat", program())
        .function("none.toml", "methods = []")
        .function("bad.wat", program())
        .function("bad.toml", "methods = ['GE T']")
        .function("trace.wat", program())
        .function("trace.toml", "methods = ['TRACE']")
        .start();
    server.get("/none").problem(422, "module-invalid").names(&["none.toml", "methods"]);
    server.get("/bad").problem(422, "module-invalid").names(&["bad.toml", "GE T"]);
    server.get("/trace").problem(422, "module-invalid").names(&["trace.toml", "TRACE"]);
}

#[test]
fn paths_below_a_program_are_its_own() {
    let server = WasmBox::launch()
        .function("files.wat", program())
        .function("files.toml", "output = 'cgi'\npath = 'prefix'")
        .function("plain.wat", program())
        .start();
    for version in VERSIONS {
        server.speak(version);
        for (path, info) in [
            ("/files/", "/"),
            ("/files/a/b%20c/%C3%A9?x=/y", "/a/b c/é"),
            ("/files/../etc", "/../etc"),
            ("/files//x", "//x"),
        ] {
            let answer = server.get(path).ok();
            assert!(answer.text().contains(&format!("\0PATH_INFO={info}\0")), "{path}: {}", answer.text());
            assert!(answer.text().contains("\0SCRIPT_NAME=/files\0"));
        }
        assert!(!server.get("/files").ok().text().contains("PATH_INFO"));
        for path in ["/files/%00", "/files/%ff"] {
            server.get(path).problem(400, "bad-argument").names(&["path"]);
        }
        server.get("/plain/below").problem(404, "module-not-found").names(&["prefix"]);
    }
}

#[test]
fn a_body_of_unknown_length_gets_one() {
    let server = WasmBox::launch().function("reader.wat", reader()).function("reader.toml", "output = 'cgi'").start();
    let head = "POST /reader HTTP/1.1\r\nHost: box\r\nTransfer-Encoding: chunked\r\n\r\n";
    for chunks in [&[][..], &["hello"], &["hello", " in", " pieces"]] {
        let mut wire = server.wire(head);
        chunks.iter().for_each(|chunk| wire.send_chunk(chunk.as_bytes()));
        wire.send_chunk(b"");
        let (answer, body) = (wire.answer().ok(), chunks.concat());
        assert!(answer.text().contains(&format!("\0CONTENT_LENGTH={}\0", body.len())), "{}", answer.text());
        assert!(answer.text().ends_with(&body) && !answer.text().contains("TRANSFER_ENCODING"));
    }
    let client = Http2::connect(server.address());
    for body in ["", "hello"] {
        let answer = client.post("/reader", body.as_bytes().to_vec(), HeaderMap::new()).ok();
        assert!(answer.text().contains(&format!("\0CONTENT_LENGTH={}\0", body.len())), "{}", answer.text());
        assert!(answer.text().ends_with(body));
    }
    // With a length, it is streamed as ever.
    let longer = "y".repeat(3 << 20);
    assert!(server.post("/reader", longer.clone()).ok().text().ends_with(&longer));
}

/// A program sees of HTTP/2 what it sees of HTTP/1, with another version; what it says of a connection is nobody's.
#[test]
fn programs_over_http2() {
    let (data, print) = guest::text(
        "Status: 201 Created\nContent-Type: text/plain\nConnection: close\nTransfer-Encoding: chunked\nKeep-Alive: timeout=5\n\
         Upgrade: h2c\nX-Mixed-Case: kept\n\n",
    );
    let body = "(call $print_environment) (call $copy (i32.const 0) (i32.const 1))";
    let server = WasmBox::launch()
        .function("rest.wat", guest::command_with(&data, &format!("{print} {body}")))
        .function("rest.toml", "output = 'cgi'\nmethods = ['GET', 'PUT']\npath = 'prefix'")
        .start();
    server.speak(Version::HTTP_2);
    for size in [0, 5, 3 << 20] {
        let input = "x".repeat(size);
        let request = request("PUT", "/rest/a%20b?c=d").header("x-own", "1").header("content-type", "text/x-own");
        let answer = server.call(request, input.clone());
        assert_eq!((answer.status, answer.version, answer.header("x-mixed-case")), (201, Version::HTTP_2, "kept"));
        for name in ["connection", "transfer-encoding", "keep-alive", "upgrade", "status"] {
            assert!(!answer.headers.contains_key(name), "{name} in {answer:?}");
        }
        let (environment, echoed) = answer.text().rsplit_once('\0').expect("an environment");
        assert_eq!(echoed.len(), size);
        let length = format!("CONTENT_LENGTH={size}");
        for variable in [
            "REQUEST_METHOD=PUT",
            "SERVER_PROTOCOL=HTTP/2.0",
            "SCRIPT_NAME=/rest",
            "PATH_INFO=/a b",
            "QUERY_STRING=c=d",
            "CONTENT_TYPE=text/x-own",
            "HTTP_X_OWN=1",
            &length,
        ] {
            let is_there = environment.split('\0').any(|known| known == variable);
            assert!(is_there || (size == 0 && variable == length), "{variable} is not in {environment:?}");
        }
    }
    let head = server.call(request("HEAD", "/rest"), "");
    assert_eq!((head.status, head.body.len()), (201, 0));
}

#[test]
fn an_environment_of_the_settings_alone() {
    let server = WasmBox::launch()
        .function("own.wat", guest::command("(call $print_environment)"))
        .function("own.toml", "environment = 'settings'\nenv = { GREETING = 'hello' }")
        .start();
    for version in VERSIONS {
        server.speak(version);
        assert_eq!(server.call(Request::post("/own").header("x-test", "1"), "abc").ok().text(), "GREETING=hello\0");
    }
}
