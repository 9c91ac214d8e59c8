//! Clients that take what all of them share before anybody is admitted: the memory of streams and of bodies.
//!
//! They come from an address that is not the victim's, and the victim needs what they take.

use std::{
    collections::BTreeMap,
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use wasmbox_tests::{
    Attack,
    attack::{ENEMY, TIME, connect_from, goes_on},
    frames::{END_HEADERS, END_STREAM, Frames, frame, kind, request},
    guest,
    patience::PATIENCE,
};

/// How the enemy's requests were answered: their status with the code of their problem.
#[derive(Default)]
struct Answers(Mutex<BTreeMap<String, usize>>);

impl Answers {
    fn add(&self, answer: String) {
        *self.0.lock().expect("no panic").entry(answer).or_default() += 1;
    }

    /// All of these came, and nothing but these and what may come beside them.
    #[track_caller]
    fn assert_are(self, all: &[&str], beside: &[&str]) {
        let answers = self.0.into_inner().expect("no panic");
        eprintln!("the enemy got {answers:?}");
        assert!(all.iter().all(|expected| answers.contains_key(*expected)), "{answers:?}, not all of {all:?}");
        let expected = |answer: &String| all.iter().chain(beside).any(|expected| answer == expected);
        assert!(answers.keys().all(expected), "{answers:?}, not {all:?} and {beside:?}");
    }
}

/// The status and the code of a problem.
fn problem(document: &[u8]) -> String {
    let problem: serde_json::Value = serde_json::from_slice(document).expect("a problem is a JSON document");
    format!("{} {}", problem["status"], problem["code"].as_str().expect("a problem has a code"))
}

/// Each connection has as many streams as it may, all the time, and each of them waits for a body that never comes.
#[test]
fn streams_that_wait() {
    let attack = Attack::within(512).with_all_ways_to_call().log_bytes(64 << 20);
    let answers = Answers::default();
    attack.run(|server| {
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| streams(server.address(), &answers));
            }
        });
    });
    answers.assert_are(&["503 queue-full", "504 deadline-exceeded"], &[]);
}

fn streams(address: SocketAddr, answers: &Answers) {
    const STREAMS: usize = 256;
    let started = Instant::now();
    let mut frames = Frames::on(connect_from(ENEMY, address), &[]);
    // What is answered needs no further window.
    frames.send(kind::WINDOW_UPDATE, 0, 0, &(1_u32 << 30).to_be_bytes()).expect("the server takes frames");
    frames.set_patience(Duration::from_millis(100));
    let head = request("POST", "/hello", &[("memory-request", "1"), ("invocation-timeout", "2000")]);
    let (mut waiting, mut next) = (BTreeMap::<u32, Vec<u8>>::new(), 1);
    let mut opened = started;
    loop {
        if goes_on(started) && opened <= Instant::now() {
            let mut bytes = Vec::new();
            while waiting.len() < STREAMS {
                bytes.extend(frame(kind::HEADERS, END_HEADERS, next, &head));
                waiting.insert(next, Vec::new());
                next += 2;
            }
            frames.send_bytes(&bytes).expect("the server takes frames");
            opened = Instant::now() + Duration::from_millis(500);
        }
        if waiting.is_empty() && !goes_on(started) {
            return;
        }
        let frame = match frames.receive() {
            Ok(frame) => frame,
            Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
            Err(error) => panic!("the connection: {error}"),
        };
        if frame.kind == kind::GOAWAY {
            panic!("the connection ends: {frame:?}");
        }
        let Some(document) = waiting.get_mut(&frame.stream) else { continue };
        if frame.kind == kind::DATA {
            document.extend(&frame.payload);
            if frame.flags & END_STREAM != 0 {
                answers.add(problem(document));
                waiting.remove(&frame.stream);
                frames.send(kind::RST_STREAM, 0, frame.stream, &[0, 0, 0, 8]).expect("the server takes frames");
            }
        } else if frame.kind == kind::RST_STREAM {
            panic!("a stream without an answer: {frame:?}");
        }
    }
}

/// Bodies of 64 KiB that come in pieces. Those that are not refused are answered in the end.
#[test]
fn bodies_that_are_slow() {
    let attack = Attack::within(512).with_all_ways_to_call().function("echo.wat", guest::echo());
    let answers = Answers::default();
    attack.run(|server| {
        let started = Instant::now();
        thread::scope(|scope| {
            for _ in 0..200 {
                scope.spawn(|| {
                    while goes_on(started) {
                        answers.add(body(server.address()));
                        thread::sleep(Duration::from_millis(200));
                    }
                });
            }
        });
    });
    answers.assert_are(&["200", "503 queue-full"], &[]);
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
    answer(stream)
}

/// Heads of 60 KiB, of which the last bytes come late. What there is no memory for is not read yet, and read later; a request of which all is
/// read, and for which there is none then, is refused.
#[test]
fn heads_that_are_large() {
    let attack = Attack::within(512).with_all_ways_to_call().function("echo.wat", guest::echo()).descriptors(900);
    let answers = Answers::default();
    attack.run(|server| {
        thread::scope(|scope| {
            for _ in 0..300 {
                scope.spawn(|| answers.add(head(server.address())));
            }
        });
    });
    answers.assert_are(&["200"], &["503 queue-full"]);
}

fn head(address: SocketAddr) -> String {
    let mut stream = connect_from(ENEMY, address);
    let padding = "x".repeat(60 << 10);
    let head =
        format!("GET /echo HTTP/1.1\r\nHost: box\r\nConnection: close\r\nMemory-Request: 1\r\nX-Padding: {padding}");
    stream.write_all(head.as_bytes()).expect("the server or its kernel takes the beginning");
    thread::sleep(TIME);
    stream.write_all(b"\r\n\r\n").expect("the server takes the end");
    answer(stream)
}

/// How a request is answered, on a connection that ends then.
fn answer(mut stream: TcpStream) -> String {
    stream.set_read_timeout(Some(PATIENCE)).expect("the timeout is not zero");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("a whole answer");
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a head");
    let (head, document) = (String::from_utf8_lossy(&answer[..end]), &answer[end + 4..]);
    if head.starts_with("HTTP/1.1 200 ") {
        assert!(head.contains(&format!("content-length: {}", document.len())), "{head}");
        return "200".into();
    }
    assert!(head.contains("application/problem+json"), "{head}");
    problem(document)
}
