//! Connections that cost something and ask for nothing: silent ones, slow ones, those that do not read.

use std::{io::ErrorKind, net::SocketAddr, thread, time::Duration};

use wasmbox_tests::{
    Request, WasmBox, Wire, client::Http2, component::http_guest, eventually, guest, server::Launch, wire::parsed,
};

const HELLO: &str = "GET /hello HTTP/1.1\r\nHost: box\r\n\r\n";
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fn launch() -> Launch {
    WasmBox::launch()
        .function("hello.wat", guest::hello())
        .function("echo.wat", guest::echo())
        .function("flood.wat", guest::flood(0))
        .function("slow.wat", guest::printing("slow", "(call $sleep (i64.const 3000))"))
        .flag("--memory-request", 1)
}

/// Starts of a request that never come to its head's end.
fn half_heads() -> Vec<Vec<u8>> {
    let http2 = |frames: &[&[u8]]| [PREFACE, b"\0\0\0\x04\0\0\0\0\0", &frames.concat()].concat();
    vec![
        Vec::new(),
        b"P".to_vec(),
        PREFACE[..12].to_vec(),
        PREFACE.to_vec(),
        http2(&[]),
        // HEADERS without END_HEADERS, then a CONTINUATION without.
        http2(&[b"\0\0\x01\x01\0\0\0\0\x01\x82"]),
        http2(&[b"\0\0\x01\x01\0\0\0\0\x01\x82", b"\0\0\x01\x09\0\0\0\0\x01\x86"]),
        b"GET /hello HTTP/1.1\r\nHost:".to_vec(),
    ]
}

/// Waits until the server has closed it; what it says before does not matter.
fn wait_until_closed(mut wire: Wire) {
    wire.rest();
}

#[test]
fn who_sends_no_head_is_closed_on_every_protocol() {
    let server = launch().flag("--head-timeout", "1500ms").start();
    let wires: Vec<_> = half_heads().iter().map(|start| server.wire(start)).collect();
    let admin: Vec<_> = half_heads().iter().map(|start| Wire::send_to(server.admin_address(), start)).collect();
    wires.into_iter().chain(admin).for_each(wait_until_closed);
    server.get("/hello").ok();
}

#[test]
fn who_is_idle_for_long_is_closed() {
    let server = launch().flag("--idle-timeout", "1500ms").start();
    let mut wire = server.wire(HELLO);
    wire.answer().ok();
    assert_eq!(wire.rest(), b"");
    let mut half = server.wire(format!("{HELLO}GET /hel"));
    half.answer().ok();
    assert_eq!(half.rest(), b"");
    let connection = Http2::connect(server.address());
    assert_eq!(connection.get_all(&["/hello".into()])[0].text(), "hello\n");
    eventually("no connection", || (server.metrics().sum("wasmbox_connections", &[]) == 0.0).then_some(()));
}

/// A function that waits is not an idle connection.
#[test]
fn a_function_may_take_longer_than_an_idle_connection() {
    let server =
        launch().flag("--idle-timeout", "1s").flag("--send-timeout", "1s").flag("--head-timeout", "1s").start();
    assert_eq!(server.get("/slow").ok().text(), "slow");
    assert_eq!(server.call(Request::get("/slow").version(http::Version::HTTP_2), "").ok().text(), "slow");
}

/// As many silent connections as there may be, and more: probes and functions answer all the time.
#[test]
fn a_full_port_closes_the_longest_idle_connection() {
    let server = launch().flag("--max-connections", 4).start();
    let connect = |address: SocketAddr, number: usize| -> Vec<Wire> {
        (0..number).map(|index| Wire::send_to(address, if index % 2 == 0 { "" } else { "GET /he" })).collect()
    };
    let silent = connect(server.address(), 20);
    server.get("/-/live").ok();
    server.get("/-/ready").ok();
    server.get("/hello").ok();
    let admin = connect(server.admin_address(), 600);
    for _ in 0..3 {
        server.admin("/live").ok();
        server.admin("/ready").ok();
    }
    drop((silent, admin));
    // Of those that were used it is the one that was used first.
    eventually("no connection", || (server.metrics().sum("wasmbox_connections", &[]) == 0.0).then_some(()));
    let mut kept: Vec<_> = (0..4)
        .map(|_| {
            let mut wire = server.wire(HELLO);
            wire.answer().ok();
            // So that one of them has been idle for longest.
            std::thread::sleep(std::time::Duration::from_millis(20));
            wire
        })
        .collect();
    server.wire(HELLO).answer().ok();
    assert_eq!(kept.remove(0).rest(), b"");
    // Busy ones stay, and a further one waits.
    let mut busy: Vec<_> = (0..4).map(|_| server.wire("GET /slow HTTP/1.1\r\nHost: box\r\n\r\n")).collect();
    server.wait_until_running("slow", 4);
    let mut waiting = server.wire(HELLO);
    for wire in &mut busy {
        assert_eq!(wire.answer().ok().text(), "slow");
    }
    waiting.answer().ok();
    // Who does not go on with a body makes room in the end; the others' requests go on.
    let head = "POST /echo HTTP/1.1\r\nHost: box\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
    let unfinished: Vec<_> = (0..4).map(|_| server.wire(format!("{head}1\r\nx\r\n"))).collect();
    server.wait_until_running("echo", 4);
    server.wire(HELLO).answer().ok();
    let answers = unfinished.into_iter().flat_map(|mut wire| {
        // One of them is closed.
        let _ = wire.try_send("0\r\n\r\n");
        parsed(&wire.rest(), &[http::Method::POST])
    });
    let answers: Vec<_> = answers.map(|answer| answer.ok().text().to_owned()).collect();
    assert!((1..4).contains(&answers.len()) && answers.iter().all(|text| text == "x"), "{answers:?}");
}

/// Nobody reads the answer: the function ends, and nothing is held any more.
#[test]
fn who_does_not_read_is_cut_off() {
    let server = launch().flag("--send-timeout", "2s").start();
    server.get("/hello").ok();
    let mut unread = server.wire("GET /flood HTTP/1.1\r\nHost: box\r\n\r\n");
    server.wait_until_running("flood", 1);
    server.wait_until_idle();
    let read = loop {
        match unread.chunk() {
            Ok(Some(_)) => {}
            Ok(None) => break Ok(()),
            Err(error) => break Err(error.kind()),
        }
    };
    assert!(matches!(read, Err(ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset)), "{read:?}");
}

/// On HTTP/2 that is a stream; another one, which may be another client's behind a proxy, goes on. Without another it is the connection.
#[test]
fn who_does_not_read_a_stream_loses_that_stream_alone() {
    let server = launch().flag("--send-timeout", "2s").start();
    server.get("/hello").ok();
    let connection = Http2::connect(server.address());
    let unread = connection.open("/flood");
    server.wait_until_running("flood", 1);
    eventually("the function ends", || {
        assert_eq!(connection.get_all(&["/hello".into()])[0].text(), "hello\n");
        (server.running("flood") == 0.0).then_some(())
    });
    assert!(connection.rest(unread).is_err());
    assert_eq!(connection.get_all(&["/hello".into()])[0].text(), "hello\n");
    let _unread = connection.open("/flood");
    eventually("no connection", || (server.metrics().sum("wasmbox_connections", &[]) == 0.0).then_some(()));
}

/// Who shuts its sending side down reads its answer all the same.
#[test]
fn a_client_may_half_close() {
    let server = WasmBox::launch()
        .function("hello.wat", guest::hello())
        .function("echo.wat", guest::echo())
        .function("late.wat", guest::printing("late", "(call $sleep (i64.const 300))"))
        .function("http.wasm", http_guest())
        .start();
    // Such a client is not waited for while its function is compiled.
    for name in ["hello", "echo", "late", "http"] {
        server.get(&format!("/{name}"));
    }
    let get = |path: &str| format!("GET /{path} HTTP/1.1\r\nHost: box\r\n\r\n");
    for (request, texts) in [
        (get("hello"), &["hello\n"][..]),
        (get("late"), &["late"]),
        (get("nothing"), &[]),
        (get("late") + &get("late") + &get("hello"), &["late", "late", "hello\n"]),
        ("POST /echo HTTP/1.1\r\nHost: box\r\nContent-Length: 5\r\n\r\n12345".into(), &["12345"]),
        ("POST /echo HTTP/1.1\r\nHost: box\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n".into(), &["ok"]),
        (
            "POST /http/echo HTTP/1.1\r\nHost: box\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n".into(),
            &["ok"],
        ),
    ] {
        let mut wire = server.wire(&request);
        wire.finish();
        for text in texts {
            assert_eq!(wire.answer().ok().text(), *text, "{request}");
        }
        if texts.is_empty() {
            wire.answer().problem(404, "module-not-found");
        }
        assert_eq!(wire.rest(), b"", "the connection ends with the last answer");
    }
    // A long one, too, whoever reads it how slowly; as long as it began soon.
    let large = 300 << 20;
    let mut wire = server.wire(get(&format!("http/write?{large}")));
    wire.finish();
    wire.head();
    let mut length = 0;
    while let Some(chunk) = wire.chunk().expect("a whole body") {
        length += chunk.len();
    }
    assert_eq!(length, large);
    // Half a request is none.
    let mut wire = server.wire("POST /echo HTTP/1.1\r\nHost: box\r\nContent-Length: 5\r\n\r\n123");
    wire.finish();
    wire.answer().problem(400, "body-unreadable");
}

/// However it leaves, and whenever: at once, later, in the middle of its answer, or with a reset.
#[test]
fn a_client_that_closes_ends_its_function() {
    let server = WasmBox::launch().function("http.wasm", http_guest()).start();
    for (path, pause, resets) in [
        ("loop", 0, false),
        ("sleep", 400, false),
        ("head-then-loop", 0, false),
        ("head-then-loop", 400, false),
        ("loop", 0, true),
        ("sleep", 400, true),
        ("head-then-loop", 0, true),
    ] {
        let mut wire = server.wire(format!("GET /http/{path} HTTP/1.1\r\nHost: box\r\n\r\n"));
        server.wait_until_running("http", 1);
        if path.starts_with("head") {
            wire.head();
        }
        thread::sleep(Duration::from_millis(pause));
        if resets {
            wire.reset();
        } else {
            drop(wire);
        }
        server.wait_until_idle();
    }
    assert!(!server.log().contains("deadline-exceeded"), "{}", server.log());
}

/// Whether one that closed its side behind its request still reads is not known before something is sent to it.
#[test]
fn a_half_closed_client_is_not_waited_for_long() {
    let server = WasmBox::launch().function("http.wasm", http_guest()).start();
    // Nor while its function is compiled.
    server.get("/http/request").ok();
    let mut wire = server.wire("GET /http/loop HTTP/1.1\r\nHost: box\r\n\r\n");
    wire.finish();
    server.wait_until_running("http", 1);
    assert_eq!(wire.rest(), b"");
    server.wait_until_idle();
}
