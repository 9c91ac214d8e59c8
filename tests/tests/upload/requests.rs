//! What the admin port takes, and what it answers.

use std::fs;

use http::{Method, header};
use wasmbox_tests::{Request, WasmBox, binary, client::exchange, component, eventually, guest};

use super::{
    TOKEN, ask, assert_nothing_left, delete, descriptors, etag, get, json, launch, put, request, roll_back, token_file,
    versions,
};

#[test]
fn a_function_is_put_called_replaced_and_removed() {
    let server = launch().start();
    let answer = put(&server, "greeting", guest::printing("one", ""));
    assert_eq!(answer.status, 201, "{answer:?}");
    let document = json(&answer);
    assert_eq!((&document["name"], &document["file"]), (&"greeting".into(), &"greeting.wasm".into()));
    assert_eq!((&document["version"], &document["settings"]), (&1.into(), &false.into()));
    assert_eq!(format!("\"{}\"", document["etag"].as_str().expect("a text")), etag(&answer));
    assert_eq!(server.get("/greeting").ok().text(), "one");
    // The same once more, with the file's ending: nothing changes.
    let same = put(&server, "greeting.wasm", guest::printing("one", "")).ok();
    assert_eq!((json(&same)["result"].as_str(), etag(&same)), (Some("unchanged"), etag(&answer)));
    // Binary, component, and with a length that is not known beforehand.
    put(&server, "greeting", binary::encoded(&guest::printing("two", ""))).ok();
    assert_eq!(server.get("/greeting").ok().text(), "two");
    assert_eq!(put(&server, "http", component::http_guest()).status, 201);
    server.get("/http/echo").ok();
    let seen = get(&server, "/functions/greeting").ok();
    assert_eq!(json(&seen)["version"], 2);
    assert_ne!(etag(&seen), etag(&answer));
    let head = ask(&server, request(Method::HEAD, "/functions/greeting"), "").ok();
    assert_eq!((etag(&head), head.body.len()), (etag(&seen), 0));
    let stored = json(&get(&server, "/functions?stored").ok());
    let names: Vec<&str> = stored.as_array().expect("a list").iter().filter_map(|one| one["name"].as_str()).collect();
    assert_eq!(names, ["greeting", "http"]);
    // The list of what is loaded stays what it was, for everybody.
    assert!(server.admin("/functions").ok().text().contains("\"state\": \"ready\""));
    assert_eq!(delete(&server, "/functions/greeting").status, 204);
    server.get("/greeting").problem(404, "module-not-found");
    delete(&server, "/functions/greeting").problem(404, "module-not-found").names(&["greeting"]);
    get(&server, "/functions/greeting").problem(404, "module-not-found");
    // What was removed is restored.
    roll_back(&server, "greeting", "").ok();
    assert_eq!(server.get("/greeting").ok().text(), "two");
    assert_nothing_left(&server.functions(), &["greeting.wasm", "http.wasm"]);
    eventually("no descriptor is left", || (descriptors(&server) == 0).then_some(()));
    server.logged(&["upload", "function=greeting", "method=PUT", "127.0.0.1"]);
    assert!(!server.log().contains(TOKEN));
}

#[test]
fn without_the_token_nothing_is_told() {
    let server = launch().function("there.wat", guest::hello()).start();
    let mut answers = Vec::new();
    for path in
        ["/functions/there", "/functions/nothing", "/functions/there/settings", "/functions/..", "/functions?stored"]
    {
        for method in [Method::GET, Method::PUT, Method::DELETE, Method::POST, Method::PATCH] {
            for value in [
                None,
                Some("Bearer"),
                Some("Bearer wrong"),
                Some(TOKEN),
                Some("Basic MDEyMzQ1Njc4OWFiY2RlZi10aGUtdG9rZW4="),
            ] {
                let mut request = Request::builder().method(method.clone()).uri(path);
                if let Some(value) = value {
                    request = request.header(header::AUTHORIZATION, value);
                }
                let answer = ask(&server, request, guest::hello());
                answer.problem(401, "unauthorized");
                assert!(answer.header("www-authenticate").starts_with("Bearer"), "{answer:?}");
                answers.push(answer.body);
            }
        }
    }
    answers.sort();
    answers.dedup();
    assert_eq!(answers.len(), 2, "all are told the same: that there is no token, or that it is wrong");
    assert_eq!(server.get("/there").ok().text(), "hello\n");
    assert_nothing_left(&server.functions(), &["there.wat"]);
    // Two headers are none.
    let twice = request(Method::GET, "/functions/there").header(header::AUTHORIZATION, format!("Bearer {TOKEN}"));
    ask(&server, twice, "").problem(401, "unauthorized");
}

#[test]
fn it_is_off_without_a_token_file() {
    let server = WasmBox::with("hello.wat", guest::hello());
    for method in [Method::GET, Method::PUT, Method::DELETE] {
        let answer = ask(&server, request(method, "/functions/hello"), guest::hello());
        answer.problem(404, "uploads-off").names(&["--upload-token-file", "UPLOAD_TOKEN_FILE"]);
    }
    assert_nothing_left(&server.functions(), &["hello.wat"]);
    assert!(!server.functions().join(".wasmbox").exists());
    server.admin("/functions").ok();
}

#[test]
fn a_token_file_without_a_good_token_prevents_the_start() {
    for content in ["", "tiny-one\n", "with space in it, too long\n"] {
        let launch = launch();
        fs::write(token_file(&launch), content).expect("a file");
        let said = launch.refusal();
        assert!(said.contains("--upload-token-file") && said.contains("openssl rand"), "{said}");
        assert!(content.is_empty() || !said.contains(content.trim()), "{said}");
    }
    let said = WasmBox::launch().flag("--upload-token-file", "/nowhere").refusal();
    assert!(said.contains("/nowhere"), "{said}");
}

/// Tokens can be exchanged one after the other.
#[test]
fn each_line_is_a_token() {
    let launch = launch();
    fs::write(token_file(&launch), format!("another-token-of-others\n{TOKEN}\n")).expect("a file");
    let server = launch.start();
    assert_eq!(put(&server, "hello", guest::hello()).status, 201);
}

#[test]
fn other_methods_and_queries() {
    let server = launch().function("hello.wat", guest::hello()).start();
    for (method, path, allow) in [
        (Method::POST, "/functions/hello", "GET, HEAD, PUT, DELETE"),
        (Method::GET, "/functions/hello/rollback", "POST"),
        (Method::PUT, "/functions/hello/versions", "GET, HEAD, DELETE"),
        (Method::PATCH, "/functions/hello/settings", "GET, HEAD, PUT, DELETE"),
    ] {
        let answer = ask(&server, request(method, path), "");
        answer.problem(405, "method-not-allowed");
        assert_eq!(answer.header("allow"), allow);
    }
    roll_back(&server, "hello", "?to=1").problem(400, "bad-request").names(&["version=NUMBER"]);
    let packed = request(Method::PUT, "/functions/hello").header(header::CONTENT_ENCODING, "gzip");
    ask(&server, packed, guest::hello()).problem(400, "bad-request").names(&["gzip"]);
    for value in ["hello", "\"a\" \"b", ""] {
        let bad = request(Method::PUT, "/functions/hello").header(header::IF_MATCH, value);
        ask(&server, bad, guest::hello()).problem(400, "bad-request").names(&["If-Match"]);
    }
    assert_eq!(server.get("/hello").ok().text(), "hello\n");
}

#[test]
fn what_is_no_function_changes_nothing() {
    let server = launch().function("hello.wat", guest::hello()).flag("--trust-precompiled", true).start();
    let native = [b"\x7fELF\x02\x01\x01\xc8".as_slice(), &[0; 100]].concat();
    put(&server, "hello", native).problem(422, "module-precompiled-untrusted");
    for (content, named) in [
        (b"".to_vec(), "signatures"),
        (b"hello".to_vec(), "signatures"),
        (b"\0asm\x01\0\0\0garbage".to_vec(), "hello.wasm"),
        (b"(module (func (export \"_start\") (unreachable".to_vec(), "hello.wasm"),
        (b"(module)".to_vec(), "_start"),
        (guest::command_importing("(import \"none\" \"such\" (func))", "").into_bytes(), "such"),
    ] {
        let problem = put(&server, "hello", content).problem(422, "module-invalid");
        problem.names(&[named]);
        assert!(!problem.detail().contains("/proc") && !problem.detail().contains(".wasmbox"), "{}", problem.detail());
    }
    assert_eq!(server.get("/hello").ok().text(), "hello\n");
    put(&server, "new", "hello").problem(422, "module-invalid");
    server.get("/new").problem(404, "module-not-found");
    assert_nothing_left(&server.functions(), &["hello.wat"]);
}

#[test]
fn settings_are_put_and_belong_to_a_version() {
    let server = launch().start();
    let settings = |text: &str| ask(&server, request(Method::PUT, "/functions/echo/settings"), text.to_owned());
    // Before the function: it never serves without them.
    assert_eq!(settings("args = ['first']").status, 201);
    put(&server, "echo", guest::arguments());
    let call = || server.get("/echo").ok().text().to_owned();
    assert_eq!(call(), "echo\0first\0\n\n");
    let first = etag(&get(&server, "/functions/echo").ok());
    assert_eq!(settings("args = ['second']").status, 204);
    assert_eq!(call(), "echo\0second\0\n\n");
    assert_ne!(etag(&get(&server, "/functions/echo").ok()), first, "settings are a part of it");
    for (bad, named) in [
        ("args = 'x'", "echo.toml"),
        ("memory = 1", "memory"),
        ("[limits]\nmemory-request = '100Gi'", "cap"),
        ("[[preopens]]\nhost = '/etc'\nguest = '/etc'", "/etc"),
    ] {
        settings(bad).problem(422, "module-invalid").names(&[named]);
    }
    let large = format!("# {}", "x".repeat(64 << 10));
    settings(&large).problem(413, "body-too-large").names(&["65536"]);
    assert_eq!(get(&server, "/functions/echo/settings").ok().text(), "args = ['second']");
    // Back, and forth again.
    roll_back(&server, "echo", "").ok();
    assert_eq!(call(), "echo\0first\0\n\n");
    roll_back(&server, "echo", "").ok();
    assert_eq!(call(), "echo\0second\0\n\n");
    assert_eq!(delete(&server, "/functions/echo/settings").status, 204);
    get(&server, "/functions/echo/settings").problem(404, "module-not-found");
    assert_eq!(call(), "echo\0\n\n");
    roll_back(&server, "echo", "").ok();
    assert_eq!(call(), "echo\0second\0\n\n");
    assert_nothing_left(&server.functions(), &["echo.toml", "echo.wasm"]);
    assert_eq!(delete(&server, "/functions/echo").status, 204);
    assert_nothing_left(&server.functions(), &[]);
    roll_back(&server, "echo", "").ok();
    assert_eq!(call(), "echo\0second\0\n\n");
}

#[test]
fn a_rollback_undoes_a_bad_push() {
    let server = launch().flag("--upload-versions", 3).start();
    let call = || server.get("/f").ok().text().to_owned();
    for text in ["1", "2", "3", "4"] {
        put(&server, "f", guest::printing(text, ""));
    }
    let numbers = || -> Vec<(u64, bool)> {
        let of = |one: &serde_json::Value| (one["version"].as_u64().expect("a number"), one["serving"] == true);
        versions(&server, "f").iter().map(of).collect()
    };
    assert_eq!(numbers(), [(4, true), (3, false), (2, false)]);
    roll_back(&server, "f", "").ok();
    assert_eq!((call().as_str(), numbers()), ("3", vec![(5, true), (4, false), (2, false)]));
    // One that is bad once more: back to what was good.
    put(&server, "f", guest::printing("5", "")).ok();
    roll_back(&server, "f", "").ok();
    assert_eq!(call(), "3");
    roll_back(&server, "f", "?version=4").ok();
    assert_eq!(call(), "4");
    roll_back(&server, "f", "?version=99").problem(404, "version-not-found").names(&["99"]);
    roll_back(&server, "nothing", "").problem(404, "version-not-found");
    assert_eq!(delete(&server, "/functions/f/versions").status, 204);
    assert_eq!(numbers().len(), 1);
    roll_back(&server, "f", "").problem(404, "version-not-found");
    assert_eq!(call(), "4");
    // All is forgotten.
    assert_eq!(delete(&server, "/functions/f").status, 204);
    assert_eq!(delete(&server, "/functions/f/versions").status, 204);
    roll_back(&server, "f", "").problem(404, "version-not-found");
    assert_nothing_left(&server.functions(), &[]);
    assert_eq!(fs::read_dir(server.functions().join(".wasmbox/history")).expect("a directory").count(), 0);
}

/// What somebody has put there by hand is replaced in its place, and can be had back.
#[test]
fn what_others_have_put_there_is_in_the_history() {
    let server = launch().function("f.wat", guest::printing("by hand", "")).start();
    put(&server, "f", guest::printing("put", "")).ok();
    assert_nothing_left(&server.functions(), &["f.wat"]);
    assert_eq!(server.get("/f").ok().text(), "put");
    server.put("f.wat", guest::printing("by hand again", ""));
    roll_back(&server, "f", "").ok();
    assert_eq!(server.get("/f").ok().text(), "put");
    roll_back(&server, "f", "").ok();
    assert_eq!(server.get("/f").ok().text(), "by hand again");
    assert_eq!(versions(&server, "f").len(), 3);
}

#[test]
fn running_invocations_keep_the_version_that_they_began_with() {
    let old = guest::printing("old ", "(call $copy (i32.const 0) (i32.const 1))");
    let server = launch().function("f.toml", "output-buffer-bytes = 0").start();
    put(&server, "f", old);
    let mut running = server.wire("POST /f HTTP/1.1\r\nHost: box\r\nTransfer-Encoding: chunked\r\n\r\n");
    running.send_chunk(b"input");
    server.wait_until_running("f", 1);
    put(&server, "f", guest::printing("new", "")).ok();
    assert_eq!(server.get("/f").ok().text(), "new");
    running.send_chunk(b"");
    assert_eq!(running.answer().ok().text(), "old input");
}

#[test]
fn requests_and_bytes_are_counted() {
    let server = launch().start();
    let module = guest::hello();
    assert_eq!(put(&server, "hello", module.clone()).status, 201);
    get(&server, "/functions/hello").ok();
    put(&server, "hello", "no module").problem(422, "module-invalid");
    let nobody = exchange(server.admin_address(), Request::delete("/functions/hello"), "").expect("a whole answer");
    nobody.problem(401, "unauthorized");
    let metrics = server.metrics();
    let count = |outcome: &str| metrics.sum("wasmbox_upload_requests_total", &[&format!("outcome=\"{outcome}\"")]);
    assert_eq!(["changed", "read", "refused", "unauthorized", "failed"].map(count), [1.0, 1.0, 1.0, 1.0, 0.0]);
    assert_eq!(metrics.sum("wasmbox_upload_bytes_total", &[]), (module.len() + "no module".len()) as f64);
    // Where nobody may put functions, nobody's tries are counted.
    let closed = WasmBox::launch().start();
    exchange(closed.admin_address(), Request::put("/functions/hello"), module)
        .expect("an answer")
        .problem(404, "uploads-off");
    assert_eq!(closed.metrics().sum("wasmbox_upload_requests_total", &[]), 0.0);
}
