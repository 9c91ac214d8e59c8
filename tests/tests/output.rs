//! What becomes of a command's output: the answer's body, streamed, with back-pressure.

use std::{
    collections::{BTreeSet, HashSet},
    fs, thread,
    time::Duration,
};

use wasmbox_tests::{Request, WasmBox, client::VERSIONS, component, eventually, guest, workspace};

/// The box itself is small; this is what it may need beside its guests' memory.
const LITTLE: u64 = 100 << 20;

#[test]
fn a_gibibyte_passes_through_little_memory() {
    let server = WasmBox::with("flood.wat", guest::flood(16 << 10));
    let mut wire = server.wire("GET /flood HTTP/1.1\r\nHost: box\r\nInvocation-Timeout: 300s\r\n\r\n");
    assert_eq!(wire.head().status, 200);
    let mut received = 0_u64;
    while let Some(chunk) = wire.chunk().expect("a whole body") {
        received += chunk.len() as u64;
    }
    assert_eq!(received, 1 << 30);
    let peak = server.process().peak_resident_bytes();
    assert!(peak < LITTLE, "{peak} bytes");
    server.logged(&["function=flood", "status=200"]);
}

#[test]
fn a_client_that_stops_reading_stops_the_guest() {
    let server = WasmBox::with("flood.wat", guest::flood(0));
    let mut wire = server.wire("GET /flood HTTP/1.1\r\nHost: box\r\n\r\n");
    wire.head();
    assert!(wire.chunk().expect("some output").is_some());
    // The sockets' buffers fill up, then the guest waits: it uses no CPU.
    eventually("the guest stands still", || {
        let before = server.process().cpu_ticks();
        thread::sleep(Duration::from_millis(300));
        (server.process().cpu_ticks() - before <= 1).then_some(())
    });
    assert_eq!(server.running("flood"), 1.0);
    assert!(server.process().peak_resident_bytes() < LITTLE);
    // It goes on when its client does.
    for _ in 0..1000 {
        assert!(wire.chunk().expect("more output").is_some());
    }
    drop(wire);
    server.wait_until_idle();
    assert!(server.process().peak_resident_bytes() < LITTLE);
}

#[test]
fn a_client_that_leaves_ends_the_guest() {
    let server = WasmBox::launch()
        .function("busy.wat", guest::busy())
        .function("sleeping.wat", guest::sleeping())
        .function("flood.wat", guest::flood(0))
        .function("echo.wat", guest::echo())
        .start();
    for (name, head) in [
        ("busy", "\r\n"),
        ("sleeping", "\r\n"),
        ("flood", "\r\n"),
        // Waits for input that does not come.
        ("echo", "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"),
    ] {
        let mut wire = server.wire(format!("POST /{name} HTTP/1.1\r\nHost: box\r\n{head}"));
        server.wait_until_running(name, 1);
        if name == "flood" {
            wire.head();
        }
        drop(wire);
        server.wait_until_idle();
        let line = server.logged(&["invocation", &format!("function={name}")]);
        // A body that ends too early is what `echo` notices first.
        let blamed = line.contains("client left") || (name == "echo" && line.contains("body-unreadable"));
        assert!(blamed, "it is not the function's fault: {line}");
    }
    let gone = server.metrics().sum("wasmbox_invocations_total", &["status=\"499\""]);
    // The answer of `flood` had its head, with status 200.
    assert!((2.0..=3.0).contains(&gone), "{gone}");
    assert_eq!(server.metrics().sum("wasmbox_invocations_total", &["status=\"500\""]), 0.0);
}

#[test]
fn output_is_sent_when_the_guest_waits() {
    let waits = "(call $copy (i32.const 0) (i32.const 1))";
    let server = WasmBox::launch()
        .function("waits.wat", guest::printing("first ", waits))
        .function("waits.toml", "output-buffer-bytes = 0")
        .start();
    let mut wire = server.wire("POST /waits HTTP/1.1\r\nHost: box\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n");
    let head = wire.head();
    assert_eq!(head.status, 200);
    assert_eq!(wire.chunk().expect("a first part"), Some(b"first ".to_vec()));
    assert_eq!(wire.chunk().expect("a second part"), Some(b"x".to_vec()));
    assert_eq!(server.running("waits"), 1.0);
    wire.send_chunk(b"");
    assert_eq!(wire.chunk().expect("the end"), None);
}

/// Up to the first buffer, a failure still gets its status; beyond, the answer is broken off.
#[test]
fn a_failure_before_and_after_the_answer_has_started() {
    let fails = |bytes: u32| {
        guest::command(&format!(
            "(memory.grow (i32.const 2)) drop (call $print (i32.const 65536) (i32.const {bytes})) (call $exit (i32.const 3))"
        ))
    };
    let server = WasmBox::launch()
        .function("held.wat", fails(65_536))
        .function("started.wat", fails(65_537))
        .function("small.wat", guest::printing("0123456789", "(call $exit (i32.const 3))"))
        .function("small.toml", "output-buffer-bytes = 9")
        .function("trap.wat", guest::printing("x".repeat(10_000), "unreachable"))
        .function("trap.toml", "output-buffer-bytes = 0")
        .start();
    server.get("/held").problem(500, "guest-exit");
    for name in ["started", "small", "trap"] {
        // In HTTP/1.1 the last chunk is missing, in HTTP/2 the stream is reset.
        for version in [http::Version::HTTP_11, http::Version::HTTP_2] {
            let request = Request::get(format!("/{name}")).version(version);
            let broken = server.try_call(request, "").expect_err("the function failed");
            assert!(broken.status.is_none_or(|status| status == 200), "{broken:?}");
        }
    }
    server.logged(&["function=started", "status=200", "failure=", "exited with code 3"]);
}

#[test]
fn binary_and_text() {
    let every_byte: Vec<u8> = (0..=255).collect();
    let server = WasmBox::launch()
        .function("binary.wat", guest::printing(&every_byte, ""))
        .function("text.wat", guest::printing("héllo\n", ""))
        .function("empty.wat", guest::command(""))
        .function("nothing.wat", guest::command("(call $exit (i32.const 0))"))
        .start();
    let binary = server.get("/binary").ok();
    assert_eq!((binary.header("content-type"), &binary.body[..]), ("application/octet-stream", &every_byte[..]));
    let text = server.get("/text").ok();
    assert_eq!((text.header("content-type"), text.text()), ("text/plain; charset=utf-8", "héllo\n"));
    for name in ["/empty", "/nothing"] {
        assert_eq!(server.get(name).ok().header("content-length"), "0");
    }
    for answer in [binary, text] {
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("content-length"), answer.body.len().to_string());
    }
}

#[test]
fn headers_say_what_the_invocation_took() {
    let server = WasmBox::launch()
        .function("hello.wat", guest::hello())
        .function("works.wat", guest::command("(drop (memory.grow (i32.const 13))) (call $sleep (i64.const 30))"))
        .function("trap.wat", guest::command("unreachable"))
        .flag("--pod-name", "pod-7")
        .start();
    let mut ids = HashSet::new();
    for name in ["hello", "hello", "works", "trap"] {
        let answer = server.get(&format!("/{name}"));
        let id = answer.header("wasmbox-invocation-id");
        assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
        assert!(ids.insert(id.to_owned()), "{id} again");
        assert_eq!(answer.header("pod"), "pod-7");
        assert!(answer.number("num-current-requests") <= 1.0);
        assert!(answer.number("wasmbox-cpu-time-us") > 0.0);
        let pages = if name == "works" { 16 } else { 3 };
        assert_eq!(answer.number("wasmbox-memory-peak-bytes"), f64::from(pages << 16));
        let execution = answer.number("execution-time");
        assert!(execution > if name == "works" { 30.0 } else { 0.0 }, "{execution} ms");
        let timing = answer.header("server-timing");
        for part in ["queue;dur=", "compile;dur=", "exec;dur="] {
            let (_, value) = timing.split_once(part).unwrap_or_else(|| panic!("{part} is not in {timing}"));
            let value = value.split(',').next().and_then(|value| value.parse::<f64>().ok());
            assert!(value.is_some_and(|value| value >= 0.0), "{timing}");
        }
        server.logged(&["invocation", id, &format!("function={name}")]);
    }
}

#[test]
fn what_is_not_known_yet_is_not_in_the_head_of_a_stream() {
    let server = WasmBox::with("flood.wat", guest::flood(4));
    let answer = server.get("/flood").ok();
    for name in ["wasmbox-invocation-id", "pod", "num-current-requests", "server-timing"] {
        assert!(answer.headers.contains_key(name), "{name}");
    }
    for name in ["execution-time", "wasmbox-cpu-time-us", "wasmbox-memory-peak-bytes", "content-length"] {
        assert!(!answer.headers.contains_key(name), "{name}");
    }
    assert_eq!(answer.number("num-current-requests"), 1.0);
}

fn cgi(output: &str) -> (String, String) {
    (guest::printing(output, ""), "output = 'cgi'".to_owned())
}

#[test]
fn cgi_output() {
    let (with_status, settings) = cgi("Status: 404 Not Found\r\nContent-Type: text/html\r\n\r\n<p>\n\nx");
    let forged = "Wasmbox-Error: internal\nPod: other\nExecution-Time: 1\nConnection: close\n\
        Transfer-Encoding: gzip\nContent-Length: 999\nContent-Type: text/x-test\nSet-Cookie: a\nSet-Cookie: b\n\nbody";
    let server = WasmBox::launch()
        .function("status.wat", with_status)
        .function("status.toml", &settings)
        .function("location.wat", cgi("Location: /elsewhere\n\n").0)
        .function("location.toml", &settings)
        .function("forged.wat", cgi(forged).0)
        .function("forged.toml", &settings)
        .function(
            "large.wat",
            guest::printing("Content-Type: text/x-test\n\n", "(call $print (i32.const 65536) (i32.const 131072))"),
        )
        .function("large.toml", &settings)
        .start();
    for version in VERSIONS {
        server.speak(version);
        let answer = server.get("/status");
        assert_eq!((answer.status, answer.header("content-type"), answer.text()), (404, "text/html", "<p>\n\nx"));
        assert!(!answer.headers.contains_key("status"));
        assert!(!answer.headers.contains_key("wasmbox-error"), "it is the function's own answer, no error");
        let answer = server.get("/location");
        assert_eq!((answer.status, answer.header("location")), (302, "/elsewhere"));
        let answer = server.get("/forged").ok();
        assert_eq!((answer.header("content-type"), answer.text()), ("text/x-test", "body"));
        assert_eq!(answer.headers.get_all("set-cookie").iter().count(), 2);
        assert_ne!(answer.header("pod"), "other");
        assert_ne!(answer.header("execution-time"), "1");
        for name in ["wasmbox-error", "connection", "transfer-encoding"] {
            assert!(!answer.headers.contains_key(name), "{name} in {answer:?}");
        }
        assert_eq!(answer.header("content-length"), "4");
        assert_eq!(server.get("/large").ok().body.len(), 131_072);
    }
}

#[test]
fn bad_cgi_headers() {
    let bad = [
        "",
        "hello",
        "no colon\n\nbody",
        "\nbody",
        "Content-Type: text/plain\n",
        "Bad Name: x\n\n",
        ": x\n\n",
        "Status: abc\n\n",
        "Status: 99\n\n",
        "Status: 101 Switching Protocols\n\n",
        "Status: 200\nStatus: 404\n\n",
        "X: a\u{1}b\n\n",
    ];
    let mut launch = WasmBox::launch();
    for (index, output) in bad.iter().enumerate() {
        let (module, settings) = cgi(output);
        launch = launch.function(&format!("f{index}.wat"), module).function(&format!("f{index}.toml"), settings);
    }
    // No end of the header in sight: it is not waited for without bound, and the function is ended.
    let server = launch.function("endless.wat", guest::flood(0)).function("endless.toml", "output = 'cgi'").start();
    for version in VERSIONS {
        server.speak(version);
        for (index, output) in bad.iter().enumerate() {
            let answer = server.get(&format!("/f{index}"));
            assert_eq!(answer.status, 500, "{output:?}: {answer:?}");
            answer.problem(500, "guest-bad-header");
        }
        server.get("/endless").problem(500, "guest-bad-header");
    }
    server.wait_until_idle();
}

#[test]
fn other_versions_and_methods_get_the_output_too() {
    let server = WasmBox::launch()
        .function("hello.wat", guest::hello())
        .function("flood.wat", guest::flood(4))
        .function("endless.wat", guest::flood(0))
        .start();
    // HTTP/1.0 knows no chunks: the end of the connection is the end.
    let mut old = server.wire("GET /flood HTTP/1.0\r\n\r\n");
    let answer = old.answer().ok();
    assert!(!answer.headers.contains_key("transfer-encoding"));
    assert_eq!(answer.body.len(), 4 << 16);
    let head = server.call(Request::head("/hello"), "").ok();
    assert_eq!((head.header("content-length"), head.body.len()), ("6", 0));
    // Whoever asks for the head only does not wait for the body, and ends the function.
    server.call(Request::head("/endless"), "").ok();
    server.wait_until_idle();
}

/// docs/api.md has a row for each header that the box adds, and no row for another.
#[test]
fn the_headers_of_an_answer_are_documented() {
    let server = WasmBox::launch()
        .function("http.wasm", component::http_guest())
        .function("http.toml", "[instance]\nreuse = 2")
        .start();
    let answer = server.get("/http/instance").ok();
    let own = ["content-type", "content-length", "date"];
    let added: BTreeSet<&str> =
        answer.headers.keys().map(http::HeaderName::as_str).filter(|name| !own.contains(name)).collect();
    let document = fs::read_to_string(workspace::root().join("docs/api.md")).expect("a document");
    let section = document.split("\n## Headers of an answer\n").nth(1).expect("the section");
    let section = section.split("\n## ").next().unwrap_or_default().to_lowercase();
    let rows: BTreeSet<&str> =
        section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`')).map(|(name, _)| name).collect();
    assert!(added.is_subset(&rows), "{added:?} and {rows:?}");
    // There is no CPU limit where there are no cgroups.
    let limited = ["cgroup-creation-time", "cgroup-assign-time", "wasmbox-throttled-time-us"];
    let missing: Vec<&&str> = rows.difference(&added).filter(|name| !limited.contains(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
