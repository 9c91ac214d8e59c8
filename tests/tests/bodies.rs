//! Request bodies that do not end, come slowly, or are more than there is memory for; answers for which that is so.

use std::{net::SocketAddr, thread, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{Request, StatusCode};
use http_body_util::{StreamBody, combinators::BoxBody};
use hyper::{body::Frame, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use wasmbox_tests::{
    TestCgroup, WasmBox, Wire,
    component::{http_guest, p3_guest},
    eventually, guest,
    server::Launch,
};

const HELLO: &str = "GET /hello HTTP/1.1\r\nHost: box\r\n\r\n";
const CHUNKED: &str = "POST /echo HTTP/1.1\r\nHost: box\r\nTransfer-Encoding: chunked\r\n\r\n";

fn launch() -> Launch {
    WasmBox::launch()
        .function("hello.wat", guest::hello())
        .function("echo.wat", guest::echo())
        .function("late.wat", guest::command("(call $sleep (i64.const 4000)) (call $copy (i32.const 0) (i32.const 1))"))
        .function("http.wasm", http_guest())
        .flag("--memory-request", 8)
}

/// One client with all of the capacity, and a body that never ends: it ends, and others are served.
#[test]
fn who_stops_sending_gives_its_place_back() {
    let server = launch().flag("--body-timeout", "500ms").flag("--concurrent-resource-request", 8).start();
    server.get("/hello").ok();
    for start in [
        // Read while its function runs.
        format!("{CHUNKED}1\r\nx\r\n"),
        // Read ahead, and not admitted yet.
        "POST /echo HTTP/1.1\r\nHost: box\r\nContent-Length: 10\r\n\r\nx".into(),
        "POST /echo HTTP/1.1\r\nHost: box\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n{\"pa\r\n".into(),
        "POST /http/echo HTTP/1.1\r\nHost: box\r\nContent-Length: 10\r\n\r\nx".into(),
    ] {
        let mut wire = server.wire(start);
        wire.answer().problem(400, "body-unreadable").names(&["--body-timeout"]);
        server.wait_until_idle();
        server.get("/hello").ok();
    }
}

#[test]
fn a_byte_now_and_then_is_too_slow() {
    let server = launch().flag("--body-timeout", "600ms").start();
    let mut wire = server.wire(CHUNKED);
    for _ in 0..15 {
        // It may be over already.
        let _ = wire.try_send("1\r\nx\r\n");
        thread::sleep(Duration::from_millis(60));
    }
    wire.answer().problem(400, "body-unreadable");
    server.wait_until_idle();
}

/// It is the function that keeps its client waiting.
#[test]
fn a_function_may_read_when_it_wants() {
    let server = launch().flag("--body-timeout", "3s").start();
    let body = vec![b'x'; 4 << 20];
    assert!(server.post("/late", body.clone()).ok().body == body);
}

/// Its own error is told although it waited before it told it.
#[test]
fn a_guests_own_error_is_not_lost() {
    let server = launch().flag("--max-body", 1).start();
    let mut wire = server.wire("POST /http/late-error HTTP/1.1\r\nHost: box\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..20 {
        wire.send_chunk(&[b'x'; 64 << 10]);
    }
    wire.answer().problem(413, "body-too-large");
    server.post("/http/late-error", "short").problem(500, "guest-no-response").names(&["as asked"]);
}

/// Sends `start` of a body on so many streams of one connection, and never the rest.
async fn unfinished_streams(address: SocketAddr, streams: usize, start: Bytes) -> Vec<Option<StatusCode>> {
    let stream = TokioIo::new(TcpStream::connect(address).await.expect("the server accepts connections"));
    let handshake = http2::handshake(TokioExecutor::new(), stream).await;
    let (sender, connection) = handshake.expect("the server speaks HTTP/2");
    tokio::spawn(connection);
    let one = |start: Bytes| {
        let mut sender = sender.clone();
        async move {
            let pieces = stream::iter(Some(Ok::<_, std::io::Error>(Frame::data(start)))).chain(stream::pending());
            let request = Request::post(format!("http://{address}/echo")).body(BoxBody::new(StreamBody::new(pieces)));
            let answer = async {
                sender.ready().await.ok()?;
                sender.send_request(request.expect("a request")).await.ok()
            };
            tokio::time::timeout(Duration::from_secs(8), answer).await.ok().flatten().map(|answer| answer.status())
        }
    };
    futures_util::future::join_all((0..streams).map(|_| one(start.clone()))).await
}

/// Far more than there is memory for, before anything is admitted: others' requests are answered, the box lives.
#[test]
fn bodies_that_wait_do_not_fill_the_memory() {
    let container = TestCgroup::with_memory(256);
    let server = launch().within(&container).flag("--log-level", "info,invocation=off").start();
    server.get("/hello").ok();
    let process = server.process();
    let mut start = br#"{"parameter":""#.to_vec();
    start.resize((1 << 20) - 100, b'x');
    let start = Bytes::from(start);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let address = server.address();
    let attack =
        runtime.spawn(futures_util::future::join_all((0..9).map(|_| unfinished_streams(address, 120, start.clone()))));
    let mut held = Vec::new();
    let partial = format!("POST /echo HTTP/1.1\r\nHost: box\r\nContent-Length: 65536\r\n\r\n{}", "x".repeat(60_000));
    let partial_head = format!("GET /hello HTTP/1.1\r\nHost: box\r\nX: {}", "x".repeat(60_000));
    for index in 0..1500 {
        let mut wire = Wire::connect(address);
        let _ = wire.try_send(if index % 2 == 0 { &partial } else { &partial_head });
        held.push(wire);
        if index % 100 == 0 {
            assert_eq!(server.wire(HELLO).answer().ok().text(), "hello\n");
            server.admin("/live").ok();
        }
    }
    let statuses = runtime.block_on(attack).expect("no panic").concat();
    assert_eq!(statuses.len(), 9 * 120);
    let refused = [Some(StatusCode::SERVICE_UNAVAILABLE), Some(StatusCode::BAD_REQUEST), None];
    assert!(statuses.iter().all(|status| refused.contains(status)), "{statuses:?}");
    assert_eq!(server.process().0, process.0, "it lives");
    server.get("/hello").ok();
    drop(held);
    drop(runtime);
    server.wait_until_idle();
    eventually("a small body is taken", || (server.post("/echo", "small").status == 200).then_some(()));
}

/// Answers that nobody takes: when there is no memory for them their invocations' permits stay.
#[test]
fn answers_that_nobody_takes_stay_charged() {
    let container = TestCgroup::with_memory(256);
    let server = launch()
        .within(&container)
        .function("large.wat", guest::flood(128))
        .flag("--output-buffer-bytes", 9 << 20)
        .flag("--send-timeout", "10s")
        .start();
    server.get("/hello").ok();
    let unread: Vec<_> =
        (0..3).map(|_| server.wire("GET /large HTTP/1.1\r\nHost: box\r\nMemory-Request: 8\r\n\r\n")).collect();
    eventually("invocations end and stay charged", || {
        let metrics = server.metrics();
        let running = metrics.sum("wasmbox_in_flight_invocations", &[]);
        (running == 0.0 && metrics.sum("wasmbox_in_flight_resource_units", &[]) == 24.0).then_some(())
    });
    server.call(Request::get("/hello").header("Memory-Request", "1"), "").ok();
    drop(unread);
    server.wait_until_idle();
}

const EXPECTS: &str = "HTTP/1.1\r\nHost: box\r\nExpect: 100-continue\r\nContent-Length: 5\r\n";

/// A component is asked before its client is: the client sends its body when the component reads, and not at all if it need not.
#[test]
fn a_client_is_asked_for_its_body_when_the_function_reads() {
    let server = launch().function("p3.wasm", p3_guest()).start();
    for path in ["http/echo", "http/answer-first", "http/two-steps", "p3/copy", "p3/pass"] {
        let mut wire = server.wire(format!("POST /{path} {EXPECTS}\r\n"));
        assert_eq!(wire.interim_head().status, 100, "{path}");
        // Some have begun their answers already: the 100 came before their heads.
        wire.send("12345");
        let text = if path.ends_with("steps") { "first second" } else { "12345" };
        assert_eq!(wire.answer().ok().text(), text, "{path}");
        wire.send(HELLO);
        assert_eq!(wire.answer().ok().text(), "hello\n");
    }
    for path in ["http/status?403", "p3/status?403", "http/trap"] {
        let mut wire = server.wire(format!("POST /{path} {EXPECTS}\r\n"));
        let head = wire.interim_head();
        assert!([403, 500].contains(&head.status), "{path}: {head:?}");
        assert_eq!(head.headers["connection"], "close", "{path}: the client need not send its body");
    }
    // Whoever does not wait is answered as well.
    let mut wire = server.wire(format!("POST /http/echo {EXPECTS}\r\n12345"));
    assert_eq!(wire.answer().ok().text(), "12345");
}

#[test]
fn who_is_refused_is_not_asked_for_a_body() {
    let server = launch().flag("--max-body", "100Ki").flag("--concurrent-resource-request", 8).start();
    server.get("/http/status?200").ok();
    let refused = |request: String, status: u16| {
        let mut wire = server.wire(request);
        let head = wire.interim_head();
        assert_eq!(head.status, status, "{head:?}");
        assert_eq!(head.headers["connection"], "close");
    };
    for path in ["echo", "http/echo"] {
        refused(format!("POST /{path} {}\r\n", EXPECTS.replace("Length: 5", "Length: 500000")), 413);
        refused(format!("POST /{path} {EXPECTS}Memory-Request: x\r\n\r\n"), 400);
    }
    refused(format!("POST /nothing {EXPECTS}\r\n"), 404);
    refused(format!("DELETE /echo {EXPECTS}\r\n"), 405);
    let waiting = server.wire("GET /http/sleep HTTP/1.1\r\nHost: box\r\n\r\n");
    server.wait_until_running("http", 1);
    refused(format!("POST /http/echo {EXPECTS}Invocation-Timeout: 100ms\r\n\r\n"), 503);
    drop(waiting);
}

/// It is noticed also when the client has sent its body unasked.
#[test]
fn a_client_that_leaves_before_it_is_asked_ends_its_function() {
    let server = launch().start();
    for body in ["", "12345", "123"] {
        for path in ["http/loop", "http/sleep"] {
            let wire = server.wire(format!("POST /{path} {EXPECTS}\r\n{body}"));
            server.wait_until_running("http", 1);
            drop(wire);
            server.wait_until_idle();
        }
    }
}
