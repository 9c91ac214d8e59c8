//! Bodies that pass through while the guest runs.

use std::{thread, time::Duration};

use wasmbox_tests::eventually;

use super::server;

#[test]
fn the_body_is_passed_on_whatever_it_is() {
    let server = server();
    for body in [r#"{"parameter":"42"}"#, "", "\0", "{"] {
        assert_eq!(server.post("/http/echo?arg=%FF", body).ok().body, body);
    }
}

#[test]
fn streaming_both_ways() {
    let server = server();
    // A dialogue: each part is answered before the next is sent.
    let mut wire = server.wire("POST /http/echo HTTP/1.1\r\nHost: box\r\nTransfer-Encoding: chunked\r\n\r\n");
    for part in [&b"one"[..], b"two", b"three"] {
        wire.send_chunk(part);
        if part == b"one" {
            assert_eq!(wire.head().status, 200);
        }
        assert_eq!(wire.chunk().expect("the part"), Some(part.to_vec()));
    }
    wire.send_chunk(b"");
    assert_eq!(wire.chunk().expect("the end"), None);
    // The head and a first part before the request has ended.
    let mut wire = server.wire("POST /http/two-steps HTTP/1.1\r\nHost: box\r\nContent-Length: 100000\r\n\r\n");
    assert_eq!(wire.head().status, 200);
    assert_eq!(wire.chunk().expect("the first part"), Some(b"first ".to_vec()));
    wire.send(vec![b'x'; 100_000]);
    assert_eq!(wire.chunk().expect("the second part"), Some(b"second".to_vec()));
    // Much more than the guest or the box holds.
    let before = server.process().peak_resident_bytes();
    let large: Vec<u8> = (0..16_u32 << 20).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    assert!(server.post("/http/echo", large.clone()).ok().body == large, "what comes back differs");
    assert_eq!(server.post("/http/echo", "").ok().body, "");
    let growth = server.process().peak_resident_bytes().saturating_sub(before);
    assert!(growth < 12 << 20, "16 MiB through the box took {growth} bytes of its memory");
}

#[test]
fn back_pressure() {
    let server = server();
    server.get("/http/request").ok();
    let before = server.process().peak_resident_bytes();
    let mut wire = server.wire("GET /http/write?1073741824 HTTP/1.1\r\nHost: box\r\n\r\n");
    wire.head();
    eventually("the guest stands still", || {
        let before = server.process().cpu_ticks();
        thread::sleep(Duration::from_millis(300));
        (server.process().cpu_ticks() - before <= 1).then_some(())
    });
    assert_eq!(server.running("http"), 1.0);
    let growth = server.process().peak_resident_bytes().saturating_sub(before);
    assert!(growth < 24 << 20, "{growth} bytes");
    for _ in 0..100 {
        assert!(wire.chunk().expect("more").is_some());
    }
}

#[test]
fn a_client_that_leaves_ends_the_guest() {
    let server = server();
    for (path, head) in [
        ("loop", "\r\n"),
        ("sleep", "\r\n"),
        ("write?1099511627776", "\r\n"),
        ("echo", "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"),
    ] {
        let wire = server.wire(format!("POST /http/{path} HTTP/1.1\r\nHost: box\r\n{head}"));
        server.wait_until_running("http", 1);
        drop(wire);
        server.wait_until_idle();
    }
}
