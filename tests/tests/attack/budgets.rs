//! Clients that take what all of them share before anybody is admitted: the memory of streams and of bodies.
//!
//! They come from an address that is not the victim's, and the victim needs what they take.

use std::{
    io::{ErrorKind, Write},
    net::{Shutdown, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use wasmbox_tests::{
    Attack,
    attack::{ENEMY, TIME, connect_from, goes_on},
    attacker::{self, Outcomes, Streams},
    frames::{END_HEADERS, frame, kind, request},
    guest,
};

/// Each connection has as many streams as it may, all the time, and each of them waits for a body that never comes.
#[test]
fn streams_that_wait() {
    let attack = Attack::within(512).with_all_ways_to_call().log_bytes(64 << 20);
    let outcomes = Outcomes::default();
    attack.run(|server| {
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| streams(server.address(), &outcomes));
            }
        });
    });
    outcomes.assert_are(&["503 queue-full", "504 deadline-exceeded"], &[]);
}

fn streams(address: SocketAddr, outcomes: &Outcomes) {
    const STREAMS: usize = 256;
    let started = Instant::now();
    let mut frames = attacker::http2(connect_from(ENEMY, address));
    let mut streams = Streams::default();
    let head = request("POST", "/hello", &[("memory-request", "1"), ("invocation-timeout", "2000")]);
    let mut next = 1;
    while goes_on(started) {
        let mut bytes = Vec::new();
        while streams.waiting() < STREAMS {
            bytes.extend(frame(kind::HEADERS, END_HEADERS, next, &head));
            streams.begin(next);
            next += 2;
        }
        frames.send_bytes(&bytes).expect("the server takes frames");
        let again = Instant::now() + Duration::from_millis(500);
        while Instant::now() < again {
            thread::sleep(Duration::from_millis(10));
            // Its place is free when the client has no more to send, either.
            for answered in streams.see_ready(&mut frames) {
                frames.send(kind::RST_STREAM, 0, answered, &[0, 0, 0, 8]).expect("the server takes frames");
            }
        }
    }
    outcomes.extend(streams.settle(&mut frames));
}

/// Bodies of 64 KiB that come in pieces. Those that are not refused are answered in the end.
#[test]
fn bodies_that_are_slow() {
    let attack = Attack::within(512).with_all_ways_to_call().function("echo.wat", guest::echo());
    let outcomes = Outcomes::default();
    attack.run(|server| {
        let started = Instant::now();
        thread::scope(|scope| {
            for _ in 0..200 {
                scope.spawn(|| {
                    while goes_on(started) {
                        outcomes.add(body(server.address()));
                        thread::sleep(Duration::from_millis(200));
                    }
                });
            }
        });
    });
    outcomes.assert_are(&["200", "503 queue-full"], &[]);
}

fn body(address: SocketAddr) -> String {
    const BODY: usize = 64 << 10;
    const AT_ONCE: usize = 40 << 10;
    const PIECE: usize = 1 << 10;
    let mut stream = connect_from(ENEMY, address);
    let head = format!(
        "POST /echo HTTP/1.1\r\nHost: box\r\nConnection: close\r\nMemory-Request: 1\r\nContent-Length: {BODY}\r\n\r\n"
    );
    stream.write_all(&[head.as_bytes(), &[b'x'; AT_ONCE]].concat()).expect("the server takes the beginning");
    stream.set_read_timeout(Some(Duration::from_millis(100))).expect("the timeout is not zero");
    for _ in 0..(BODY - AT_ONCE) / PIECE {
        match stream.peek(&mut [0]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            // An answer before its body was sent.
            other => {
                other.expect("a connection that is not reset");
                stream.shutdown(Shutdown::Write).expect("a connection");
                break;
            }
        }
        stream.write_all(&[b'x'; PIECE]).expect("the server takes the body");
    }
    attacker::first_of_http1(stream)
}

/// Heads of 60 KiB, of which the last bytes come late. What there is no memory for is not read yet, and read later; a request of which all is
/// read, and for which there is none then, is refused.
#[test]
fn heads_that_are_large() {
    let attack = Attack::within(512).with_all_ways_to_call().function("echo.wat", guest::echo()).descriptors(900);
    let outcomes = Outcomes::default();
    attack.run(|server| {
        thread::scope(|scope| {
            for _ in 0..300 {
                scope.spawn(|| outcomes.add(head(server.address())));
            }
        });
    });
    outcomes.assert_are(&["200"], &["503 queue-full"]);
}

fn head(address: SocketAddr) -> String {
    let mut stream = connect_from(ENEMY, address);
    let padding = "x".repeat(60 << 10);
    let head =
        format!("GET /echo HTTP/1.1\r\nHost: box\r\nConnection: close\r\nMemory-Request: 1\r\nX-Padding: {padding}");
    stream.write_all(head.as_bytes()).expect("the server or its kernel takes the beginning");
    thread::sleep(TIME);
    stream.write_all(b"\r\n\r\n").expect("the server takes the end");
    attacker::first_of_http1(stream)
}
