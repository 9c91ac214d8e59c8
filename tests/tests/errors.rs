//! Every error that a client can be told, each provoked over HTTP.

use std::{fs, os::unix::fs::PermissionsExt};

use http::Method;
use wasmbox_tests::{Request, WasmBox, Wire, binary, component, guest, server::half_written, workspace};

/// The server holds all requests back that come while one of 64 MiB runs; there is place for one to wait.
fn narrow(queue: u64) -> WasmBox {
    let server = WasmBox::launch()
        .function("sleeping.wat", guest::sleeping())
        .function("hello.wat", guest::hello())
        .flag("--memory-request", 64)
        .flag("--concurrent-resource-request", 64)
        .flag("--queue-depth-resource-units", queue)
        .start();
    server.get("/hello").ok();
    server.wait_until_idle();
    server
}

/// Starts an invocation that goes on until the connection is dropped.
fn occupy(server: &WasmBox) -> Wire {
    let wire = server.wire("GET /sleeping HTTP/1.1\r\nHost: box\r\n\r\n");
    server.wait_until_running("sleeping", 1);
    wire
}

#[test]
fn bad_module_name() {
    let server = WasmBox::launch().start();
    for path in ["/.hidden", "/a%20b", "/%2e%2e", "//hello", "/..", "/é".replace('é', "%C3%A9").as_str(), "/a:b"] {
        server.get(path).problem(400, "bad-module-name").names(&["letters"]);
    }
    server.get(&format!("/{}", "a".repeat(129))).problem(400, "bad-module-name");
    server.get(&format!("/{}", "a".repeat(128))).problem(404, "module-not-found");
}

#[test]
fn bad_request() {
    let server = WasmBox::with("hello.wat", guest::hello());
    server.wire("GET /hello HTTP/1.1\r\n\r\n").answer().problem(400, "bad-request").names(&["Host"]);
}

#[test]
fn bad_limit() {
    let server = WasmBox::with("hello.wat", guest::hello());
    for (header, value, bounds) in [
        ("Memory-Request", "lots", ["64Ki", "4096Mi"]),
        ("Cpu-Quota", "-1", ["1m", "m"]),
        ("Invocation-Timeout", "0", ["1ms", "300000ms"]),
    ] {
        let problem = server.call(Request::get("/hello").header(header, value), "").problem(400, "bad-limit");
        problem.names(&[header, value, bounds[0], bounds[1]]);
        for (member, expected) in [("header", header), ("value", value), ("minimum", bounds[0])] {
            assert_eq!(problem.member(member), expected);
        }
        assert!(problem.member("maximum").is_string());
    }
}

#[test]
fn bad_argument() {
    let server = WasmBox::with("hello.wat", guest::hello());
    server.get("/hello?arg=fine&arg=%FF").problem(400, "bad-argument").names(&["2", "UTF-8"]);
    server.get("/hello?arg=a%00b").problem(400, "bad-argument").names(&["1", "NUL"]);
    server.post("/hello", r#"{"parameter": "a\u0000b"}"#).problem(400, "bad-argument").names(&["NUL"]);
}

#[test]
fn body_unreadable() {
    let server = WasmBox::with("echo.wat", guest::echo());
    // Announced are 10 bytes, 3 come.
    let mut wire = server.wire("POST /echo HTTP/1.1\r\nHost: box\r\nContent-Length: 10\r\n\r\nabc");
    wire.finish();
    wire.answer().problem(400, "body-unreadable");
    // A chunk whose size is none: the connection cannot be used any more, not even for an answer.
    let broken = "POST /echo HTTP/1.1\r\nHost: box\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{\"\r\nnonsense\r\n";
    server.wire(broken).rest();
    server.logged(&["invocation", "0001", "body-unreadable"]);
}

#[test]
fn exceeds_capacity() {
    let server = narrow(64);
    server
        .call(Request::get("/hello").header("Memory-Request", "65"), "")
        .problem(400, "exceeds-capacity")
        .names(&["65 MiB", "64 MiB"]);
}

#[test]
fn module_not_found() {
    let server = WasmBox::with("hello.wat", guest::hello());
    server.get("/nothing").problem(404, "module-not-found").names(&["nothing"]);
    server.get("/").problem(404, "module-not-found");
    // Only an HTTP component has paths below its name.
    server.get("/hello/below").problem(404, "module-not-found").names(&["hello"]);
    // There is nothing else beside the two probes.
    server.get("/-/metrics").problem(404, "module-not-found");
}

#[test]
fn method_not_allowed() {
    let server = WasmBox::with("hello.wat", guest::hello());
    for method in [Method::PUT, Method::DELETE, Method::PATCH, Method::TRACE] {
        let answer = server.call(Request::builder().method(method.clone()).uri("/hello"), "");
        answer.problem(405, "method-not-allowed").names(&[method.as_str()]);
        assert_eq!(answer.header("allow"), "GET, HEAD, POST, OPTIONS");
    }
}

#[test]
fn length_required() {
    let server = WasmBox::launch().function("cgi.wat", guest::echo()).function("cgi.toml", "output = 'cgi'").start();
    let mut wire = server.wire("POST /cgi HTTP/1.1\r\nHost: box\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..18 {
        let _ = wire.try_send(format!("10000\r\n{}\r\n", "x".repeat(0x10000)));
    }
    wire.answer().problem(411, "length-required").names(&["Content-Length", "1048576"]);
}

#[test]
fn body_too_large() {
    let server = WasmBox::launch()
        .function("echo.wat", guest::echo())
        .function("hello.wat", guest::hello())
        .function("http.wasm", component::http_guest())
        .flag("--max-body", "1Mi")
        .start();
    let too_large = vec![b'x'; (1 << 20) + 1];
    assert_eq!(server.post("/echo", too_large[1..].to_vec()).ok().body.len(), 1 << 20);
    // Refused for what its length says, before any of it comes.
    for path in ["/echo", "/hello", "/http/echo"] {
        let mut wire = server.wire(format!("POST {path} HTTP/1.1\r\nHost: box\r\nContent-Length: 1048577\r\n\r\n"));
        wire.answer().problem(413, "body-too-large").names(&["1048576"]);
    }
    // Found to be too large when it comes: what the function made of the first part is no answer.
    let server = WasmBox::launch()
        .function("echo.wat", guest::echo())
        .function("http.wasm", component::http_guest())
        .flag("--max-body", "64Ki")
        .start();
    for path in ["/echo", "/http/echo"] {
        let mut wire = server.wire(format!("POST {path} HTTP/1.1\r\nHost: box\r\nTransfer-Encoding: chunked\r\n\r\n"));
        wire.send_chunk(&too_large[..40_000]);
        wire.send_chunk(&too_large[..40_000]);
        wire.send_chunk(b"");
        if path == "/echo" {
            let problem = wire.answer().problem(413, "body-too-large");
            assert_eq!(problem.member("limit_bytes"), 65536);
        } else {
            // The head is out already, so all that is left is to break the answer off.
            assert_eq!(wire.head().status, 200);
            let end = (0..100).find_map(|_| wire.chunk().err().or(None));
            assert!(end.is_some(), "the answer is whole");
        }
    }
}

#[test]
fn module_invalid() {
    let mut truncated = binary::encoded(&guest::hello());
    truncated.truncate(truncated.len() / 2);
    let server = WasmBox::launch()
        .function("garbage.wasm", "not a module")
        .function("empty.wasm", "")
        .function("truncated.wasm", truncated)
        .function("text.wat", "(module (func (export \"_start\") (i32.cons 1)))")
        .function("type.wat", "(module (func (export \"_start\") (result i32) (i64.const 1)))")
        .function("import.wat", "(module (import \"env\" \"unheard_of\" (func)) (func (export \"_start\")))")
        .function("library.wat", "(module (func (export \"add\")))")
        .function("parameter.wat", "(module (func (export \"_start\") (param i32)))")
        .function("component.wat", "(component)")
        .function("large.wasm", vec![0; 70_000])
        .function("settings.wat", guest::hello())
        .function("settings.toml", "memory = 3")
        .flag("--max-module-size", "64Ki")
        .start();
    for (name, parts) in [
        ("garbage", &["garbage.wasm", "signatures"][..]),
        ("empty", &["empty.wasm"]),
        ("truncated", &["truncated.wasm", "offset"]),
        ("text", &["text.wat", "i32.cons"]),
        ("type", &["type.wat", "type mismatch"]),
        ("import", &["import.wat", "unheard_of"]),
        ("library", &["library.wat", "_start"]),
        ("parameter", &["parameter.wat", "_start"]),
        ("component", &["component.wat", "wasi:http/incoming-handler"]),
        ("large", &["large.wasm", "70000", "65536", "--max-module-size"]),
        ("settings", &["settings.toml", "memory"]),
    ] {
        server.get(&format!("/{name}")).problem(422, "module-invalid").names(parts);
    }
}

#[test]
fn module_precompiled_untrusted() {
    let server = WasmBox::launch().function("native.wasm", native_image(&guest::hello())).start();
    server.get("/native").problem(422, "module-precompiled-untrusted").names(&["native.wasm", "TRUST_PRECOMPILED"]);
}

/// The native image of a module: what a server puts into its cache, without the 32 bytes that authenticate it there.
fn native_image(text: &str) -> Vec<u8> {
    let server = WasmBox::with("module.wat", text);
    server.get("/module");
    let entries = fs::read_dir(server.launched().cache()).expect("the cache is a directory");
    let images: Vec<_> = entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "cwasm"))
        .collect();
    assert_eq!(images.len(), 1, "{images:?}");
    let mut image = fs::read(&images[0]).expect("the image can be read");
    image.truncate(image.len() - 32);
    image
}

#[test]
fn guest_exit() {
    let server = WasmBox::with("exit.wat", guest::printing("not an answer", "(call $exit (i32.const 3))"));
    let answer = server.get("/exit");
    let problem = answer.problem(500, "guest-exit");
    problem.names(&["3"]);
    assert_eq!(problem.member("exit_code"), 3);
    // As a shell shows them: C's exit(-1), Python's sys.exit(200), AssemblyScript's abort; and what is no success stays none.
    for (code, shown) in [(-1, 255), (200, 200), (255, 255), (125, 125), (126, 126), (0x1003, 3), (256, 256)] {
        let name = format!("exit{}.wat", code & 0xffff);
        server.put(&name, guest::command(&format!("(call $exit (i32.const {code}))")));
        let answer = server.get(&format!("/{name}"));
        assert_eq!(answer.problem(500, "guest-exit").member("exit_code"), shown, "{code}");
    }
    server.put("zero.wat", guest::printing("fine", "(call $exit (i32.const 0))"));
    assert_eq!(server.get("/zero").ok().text(), "fine");
}

#[test]
fn not_implemented() {
    let server = WasmBox::launch()
        .function("echo.wat", guest::echo())
        .function("http.wasm", component::http_guest())
        .function("p3.wasm", component::p3_guest())
        .start();
    for codings in ["gzip, chunked", "gzip\r\nTransfer-Encoding: chunked", "identity, chunked"] {
        let head = format!("POST /echo HTTP/1.1\r\nHost: box\r\nTransfer-Encoding: {codings}\r\n\r\n0\r\n\r\n");
        let coding = codings.split([',', '\r']).next().unwrap_or_default();
        server.wire(head).answer().problem(501, "not-implemented").names(&[coding]);
    }
    for path in ["echo", "http/request", "p3/request"] {
        let upgrade = format!("GET /{path} HTTP/1.1\r\nHost: box\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
        server.wire(upgrade).answer().problem(501, "not-implemented").names(&["WebSocket"]);
    }
}

/// What cannot run says what to build instead.
#[test]
fn unusable_modules_are_recognised() {
    let import = |module: &str, name: &str| {
        guest::command_importing(&format!(r#"(import "{module}" "{name}" (func (param i32)))"#), "")
    };
    let server = WasmBox::launch()
        .function("go.wat", import("gojs", "runtime.wasmExit"))
        .function("bindgen.wat", import("wbg", "__wbg_log"))
        .function("emscripten.wat", import("env", "emscripten_resize_heap"))
        .function("assemblyscript.wat", import("env", "abort"))
        .function("undefined.wat", import("env", "my_function"))
        .function("threads.wat", import("wasi", "thread-spawn"))
        .function("legacy.wat", "(module (tag $t) (func (export \"_start\") try catch $t end))")
        .function("wide.wat", "(module (memory i64 1) (func (export \"_start\")))")
        .function("library.wat", "(module (func (export \"add\")))")
        .function("future.wat", "(component (type (future u32)))")
        .start();
    for (name, words) in [
        ("go", &["GOOS=wasip1"][..]),
        ("bindgen", &["wasm-bindgen", "wasm32-wasip1"]),
        ("emscripten", &["Emscripten", "wasi-sdk"]),
        ("assemblyscript", &["AssemblyScript", "wasi-shim"]),
        ("undefined", &["env::my_function", "linker"]),
        ("threads", &["threads", "wasm32-wasip1"]),
        ("legacy", &["legacy_exceptions", "recompile"]),
        ("wide", &["memory64", "32 bits"]),
        ("library", &["_start", "command"]),
        ("future", &["cm_async", "WASI 0.3"]),
    ] {
        server.get(&format!("/{name}")).problem(422, "module-invalid").names(words);
    }
}

#[test]
fn guest_trap() {
    let server = WasmBox::launch()
        .function("unreachable.wat", guest::command("unreachable"))
        .function("division.wat", guest::command("(drop (i32.div_u (i32.const 1) (i32.const 0)))"))
        .function("bounds.wat", guest::command("(drop (i32.load (i32.const -4)))"))
        .function("indirect.wat", guest::command_with("(table 1 funcref)", "(call_indirect (i32.const 0))"))
        .function("start.wat", guest::command_with("(func $start unreachable) (start $start)", ""))
        .function("http.wasm", component::http_guest())
        .start();
    for (name, trap) in [
        ("unreachable", "unreachable"),
        ("division", "divide by zero"),
        ("bounds", "out of bounds memory access"),
        ("indirect", "uninitialized element"),
        ("start", "unreachable"),
        ("http/trap", "unreachable"),
    ] {
        let answer = server.get(&format!("/{name}"));
        let problem = answer.problem(500, "guest-trap");
        problem.names(&[trap]);
        assert!(problem.member("trap").as_str().is_some_and(|text| text.contains(trap)), "{problem:?}");
    }
}

#[test]
fn guest_memory_limit() {
    let server = WasmBox::with("hungry.wat", guest::hungry());
    let answer = server.call(Request::get("/hungry").header("Memory-Request", "3"), "");
    let problem = answer.problem(500, "guest-memory-limit");
    assert_eq!(problem.member("limit_bytes"), 3 << 20);
    assert_eq!(problem.member("wanted_bytes"), (3 << 20) + 65536);
}

#[test]
fn guest_output_limit() {
    let server = WasmBox::launch()
        .function("flood.wat", guest::flood(0))
        .function("fits.wat", guest::flood(4))
        .function("http.wasm", component::http_guest())
        .flag("--max-output", "256Ki")
        .flag("--output-buffer-bytes", 1 << 20)
        .start();
    assert_eq!(server.get("/fits").ok().body.len(), 256 << 10);
    let problem = server.get("/flood").problem(500, "guest-output-limit");
    assert_eq!(problem.member("limit_bytes"), 256 << 10);
    assert_eq!(server.get("/http/write?262144").ok().body.len(), 256 << 10);
    // An HTTP component decides itself when its answer starts: such an answer is broken off, and the log says why.
    let broken = server.try_call(Request::get("/http/write?262145"), "").expect_err("more than the limit");
    assert!(broken.body.len() <= 256 << 10, "{broken:?}");
    server.logged(&["invocation", "function=http", "failure=", "262144 bytes of output"]);
}

#[test]
fn guest_bad_header() {
    let server = WasmBox::launch()
        .function("cgi.wat", guest::printing("no header\n\nbody", ""))
        .function("cgi.toml", "output = 'cgi'")
        .start();
    server.get("/cgi").problem(500, "guest-bad-header").names(&["no header"]);
}

#[test]
fn guest_no_response() {
    let server = WasmBox::launch()
        .function("http.wasm", component::http_guest())
        .function("p3.wasm", component::p3_guest())
        .start();
    // What a guest says is not repeated at any length, neither here nor in the log.
    for function in ["http", "p3"] {
        let answer = server.get(&format!("/{function}/long-error?500000"));
        answer.problem(500, "guest-no-response").names(&["InternalError", "xxx"]);
        assert!(answer.body.len() < 2000, "{} bytes", answer.body.len());
    }
    assert!(server.log().len() < 20_000, "{} bytes", server.log().len());
    server.get("/http/silent").problem(500, "guest-no-response");
    server.get("/http/error").problem(500, "guest-no-response").names(&["as asked"]);
}

#[test]
fn preopen_unavailable() {
    let launch = WasmBox::launch().function("hello.wat", guest::hello());
    let root = launch.directory().join("root");
    let granted = root.join("granted");
    fs::create_dir_all(&granted).expect("a new directory");
    let settings = format!("preopens = [{{ host = '{}', guest = '/data' }}]", granted.display());
    let server = launch.function("hello.toml", settings).flag("--preopen-root", root.display()).start();
    server.get("/hello").ok();
    // What was granted is gone: neither the client nor the guest is to blame.
    fs::remove_dir(&granted).expect("the directory is empty");
    server.get("/hello").problem(500, "preopen-unavailable").names(&["/data"]);
}

#[test]
fn internal() {
    let launch = WasmBox::launch().function("hello.wat", guest::hello()).function("secret.wat", guest::hello());
    fs::set_permissions(launch.directory(), fs::Permissions::from_mode(0o755)).expect("the directory is ours");
    // A file that the box's user may not read: neither the client nor the guest is to blame.
    let secret = launch.functions().join("secret.wat");
    fs::set_permissions(secret, fs::Permissions::from_mode(0o000)).expect("the file is ours");
    let user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let server = launch.flag("--cache-dir", "none").through(user).start();
    server.get("/hello").ok();
    server.get("/secret").problem(500, "internal");
}

#[test]
fn queue_full() {
    let server = narrow(0);
    let running = occupy(&server);
    server.get("/hello").problem(503, "queue-full").names(&["64 MiB"]);
    drop(running);
    server.wait_until_idle();
    server.get("/hello").ok();
}

/// The box has less than any process needs, so a guest can never have what it wants.
#[test]
fn evicted() {
    let server = WasmBox::launch()
        .function("hello.wat", guest::hello())
        .env("MEMORY_LIMIT", 1)
        .flag("--concurrent-resource-request", 1000)
        .start();
    server.get("/hello").problem(503, "evicted").names(&["memory"]);
}

#[test]
fn queue_timeout() {
    let server = narrow(64);
    let running = occupy(&server);
    server.call(Request::get("/hello").header("Invocation-Timeout", "100"), "").problem(503, "queue-timeout");
    drop(running);
    server.wait_until_idle();
    server.get("/hello").ok();
}

#[test]
fn draining() {
    let mut server = WasmBox::launch().function("busy.wat", guest::busy()).flag("--drain-timeout", "300ms").start();
    let mut running = server.wire("GET /busy HTTP/1.1\r\nHost: box\r\n\r\n");
    server.wait_until_running("busy", 1);
    server.signal(rustix::process::Signal::TERM);
    running.answer().problem(503, "draining");
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn compiling() {
    let server = WasmBox::launch().start();
    let file = half_written(&server.functions().join("hello.wat"), guest::hello().as_bytes());
    let request = || Request::get("/hello").header("Invocation-Timeout", "200");
    server.call(request(), "").problem(503, "compiling").names(&["hello.wat"]);
    drop(file);
    server.get("/hello").ok();
}

#[test]
fn deadline_exceeded() {
    let server = WasmBox::with("busy.wat", guest::busy());
    let answer = server.call(Request::get("/busy").header("Invocation-Timeout", "300"), "");
    answer.problem(504, "deadline-exceeded").names(&["300 ms", "Invocation-Timeout"]);
}

/// An error tells its client nothing of where things lie on the server.
#[test]
fn errors_name_no_directory_of_the_server() {
    let launch = WasmBox::launch().function("hello.wat", guest::hello()).function("garbage.wasm", "garbage");
    let root = launch.directory().join("root");
    let granted = root.join("granted");
    fs::create_dir_all(&granted).expect("a new directory");
    let settings = format!("preopens = [{{ host = '{}', guest = '/data' }}]", granted.display());
    let server = launch.function("hello.toml", settings).flag("--preopen-root", root.display()).start();
    server.get("/hello").ok();
    fs::remove_dir(&granted).expect("the directory is empty");
    let directory = server.launched().directory().display().to_string();
    for path in ["/hello", "/garbage", "/nothing", "/.hidden"] {
        let answer = server.get(path);
        assert!(!answer.text().contains(&directory), "{}", answer.text());
    }
}

/// The answer and the log name the same invocation, and the metrics count it.
#[test]
fn an_error_is_logged_and_counted() {
    let server = WasmBox::with("trap.wat", guest::command("unreachable"));
    let answer = server.get("/trap");
    let id = answer.header("wasmbox-invocation-id");
    server.logged(&["invocation", id, "trap", "500", "guest-trap", "unreachable"]);
    let metrics = server.metrics();
    assert_eq!(metrics.sum("wasmbox_invocations_total", &["function=\"trap\"", "status=\"500\""]), 1.0);
    server.get("/nothing").problem(404, "module-not-found");
    assert_eq!(server.metrics().sum("wasmbox_rejected_total", &["code=\"module-not-found\""]), 1.0);
    server.logged(&["invocation", "404", "module-not-found"]);
}

/// Each code that docs/errors.md lists, which are all that the server has (cli.rs), is provoked in this file, or, if it is of the admin port, by the
/// tests of uploads.
#[test]
fn every_code_is_provoked_here() {
    let list = fs::read_to_string(workspace::root().join("docs/errors.md")).expect("the document");
    let codes: Vec<&str> = list.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert!(codes.len() >= 22, "{codes:?}");
    let uploads = [
        include_str!("upload/requests.rs"),
        include_str!("upload/races.rs"),
        include_str!("upload/interrupted.rs"),
        include_str!("upload/hostile.rs"),
    ];
    let provoked = [include_str!("errors.rs"), &uploads.concat()].concat();
    for code in codes {
        assert!(provoked.contains(&format!(", \"{code}\")")), "{code} is not provoked");
    }
}
