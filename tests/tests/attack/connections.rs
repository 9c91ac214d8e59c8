//! Clients that occupy connections.

use std::{
    io::Write,
    net::{Shutdown, SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Resource, getrlimit, setrlimit};
use wasmbox_tests::{
    Attack,
    attack::{ENEMY, TIME, connect_from, goes_on, together},
    attacker::{self, CLOSED, Outcomes, Streams},
    frames::{Frames, HEADER_TABLE_SIZE, PREFACE, frame, kind, request, settings},
    guest,
};

/// How many connections an enemy has.
const MANY: usize = 2000;

/// The file descriptors of this process are as many as it may have: it holds the other ends.
fn raise_descriptors() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("a soft limit up to the hard one");
}

fn connections(address: SocketAddr, number: usize, first: &[u8]) -> Vec<TcpStream> {
    raise_descriptors();
    let stream = |_| {
        // Those that wait to be accepted may be too many: then it does without.
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_millis(100)).ok()?;
        let _ = stream.write_all(first);
        stream.set_nonblocking(true).expect("an option of sockets");
        Some(stream)
    };
    (0..number).filter_map(stream).collect()
}

/// How the first words on connections were answered, or that they were closed.
fn answered(connections: Vec<(Vec<u8>, Vec<TcpStream>)>) -> Outcomes {
    outcomes(connections, |stream| vec![attacker::first_of_http1(stream)], |_| ())
}

/// The same, and in the end all of them are closed.
fn ended(connections: Vec<(Vec<u8>, Vec<TcpStream>)>) -> Outcomes {
    outcomes(connections, attacker::http1, |frames| frames.until_closed(|_| ()))
}

fn outcomes(
    connections: Vec<(Vec<u8>, Vec<TcpStream>)>,
    http1: impl Fn(TcpStream) -> Vec<String>,
    end_http2: impl Fn(&mut Frames),
) -> Outcomes {
    let outcomes = Outcomes::default();
    for (first, streams) in connections {
        for stream in streams {
            if first.starts_with(PREFACE) {
                let (mut frames, mut streams) = (Frames::begun(stream), Streams::default());
                streams.begin(1);
                outcomes.extend(streams.settle(&mut frames));
                end_http2(&mut frames);
            } else {
                outcomes.extend(http1(stream));
            }
        }
    }
    outcomes
}

/// What a client may say and then be silent: nothing, a byte, half a preface, a head that does not end.
fn first_words() -> Vec<Vec<u8>> {
    let settings = frame(kind::SETTINGS, 0, 0, &settings(&[(HEADER_TABLE_SIZE, 0)]));
    vec![
        b"".to_vec(),
        b"P".to_vec(),
        PREFACE[..12].to_vec(),
        PREFACE.to_vec(),
        [PREFACE, &settings].concat(),
        [PREFACE, &settings, &frame(kind::HEADERS, 0, 1, &request("GET", "/hello", &[]))].concat(),
        [PREFACE, &settings, &frame(kind::HEADERS, 4, 1, &request("POST", "/nothing", &[]))].concat(),
        b"GET /hello HTTP/1.1\r\nHost: b".to_vec(),
        b"GET /hello HTTP/1.1\r\nHost: box\r\n\r\n".to_vec(),
        b"GET /-/live HTTP/1.1\r\nHost: box\r\n\r\n".to_vec(),
        b"POST /hello HTTP/1.1\r\nHost: box\r\nContent-Length: 100\r\n\r\nabc".to_vec(),
    ]
}

/// They cost little, and are closed in the end. The victim is served meanwhile.
#[test]
fn connections_that_say_nothing_or_little() {
    let words = first_words();
    // As always, but with a shorter wait for the end.
    let attack = ["--head-timeout", "--idle-timeout", "--body-timeout"]
        .into_iter()
        .fold(Attack::within(256), |attack, name| attack.flag(name, "2s"))
        .flag("--memory-request", 1)
        .descriptors(MANY + 600);
    attack.run(|server| {
        let each = MANY / words.len();
        let all = words.into_iter().map(|first| (first.clone(), connections(server.address(), each, &first)));
        ended(all.collect()).assert_are(
            &["200", "404 module-not-found", "400 body-unreadable", CLOSED],
            &["GOAWAY NO_ERROR", "503 queue-full", "503 queue-timeout"],
        );
    });
}

/// More than there may be at all. They are silent, so that they make room.
#[test]
fn more_silent_connections_than_there_may_be() {
    let attack = Attack::within(256).flag("--max-connections", 300).flag("--head-timeout", "5s").descriptors(800);
    attack.run(|server| {
        let mut all = Vec::new();
        for _ in 0..8 {
            all.extend(connections(server.address(), 100, b""));
            thread::sleep(TIME / 8);
        }
        ended(vec![(Vec::new(), all)]).assert_are(&[CLOSED], &[]);
    });
}

/// The admin port is for probes: that of a box that lives must not fail because somebody occupies it.
#[test]
fn silent_connections_on_the_admin_port() {
    let attack = Attack::within(256).descriptors(1200);
    attack.run(|server| {
        let all =
            first_words().into_iter().map(|first| (first.clone(), connections(server.admin_address(), 30, &first)));
        // The probes beside it ask all the time.
        answered(all.collect()).assert_are(&["404", "405", CLOSED], &["503 queue-full", "GOAWAY NO_ERROR"]);
    });
}

/// Bytes that come one by one, so that something always has come.
#[test]
fn bytes_one_by_one() {
    let attack = Attack::within(256).function("echo.wat", guest::echo()).descriptors(1200).flag("--memory-request", 1);
    attack.flag("--head-timeout", "5s").run(|server| {
        let head = b"POST /echo HTTP/1.1\r\nHost: box\r\nContent-Length: 1000000\r\nX-Padding: ";
        let body = b"POST /echo HTTP/1.1\r\nHost: box\r\nContent-Length: 1000000\r\nInvocation-Timeout: 3000\r\n\r\n";
        let mut heads = connections(server.address(), 150, head);
        let mut bodies = connections(server.address(), 50, body);
        let started = Instant::now();
        while goes_on(started) {
            for stream in heads.iter_mut().chain(&mut bodies) {
                let _ = stream.write(b"x");
            }
            thread::sleep(Duration::from_millis(100));
        }
        ended(vec![(head.to_vec(), heads)]).assert_are(&[CLOSED], &[]);
        ended(vec![(body.to_vec(), bodies)]).assert_are(&["504 deadline-exceeded"], &["400 body-unreadable", CLOSED]);
    });
}

/// Answers that nobody reads are not kept for ever.
#[test]
fn answers_that_nobody_reads() {
    let attack = Attack::within(256)
        .function("flood.wat", guest::flood(0))
        .function("large.wat", guest::flood(15))
        .descriptors(1200)
        .flag("--memory-request", 1)
        .flag("--invocation-timeout", "4s");
    attack.run(|server| {
        let request = |path| format!("GET /{path} HTTP/1.1\r\nHost: box\r\nConnection: close\r\n\r\n").into_bytes();
        let held: Vec<_> =
            ["flood", "large"].map(|path| (request(path), connections(server.address(), 150, &request(path)))).into();
        thread::sleep(TIME);
        // Now it is read: all of an answer, or what there was of it at its deadline.
        let refused = ["503 queue-full", "503 queue-timeout", "503 evicted", "504 deadline-exceeded"];
        ended(held).assert_are(&["200 broken off"], &[&["200", CLOSED], &refused[..]].concat());
    });
}

/// Nobody is there to be answered.
#[test]
fn connections_that_come_and_go() {
    let attack = Attack::within(256).descriptors(1500);
    attack.run(|server| {
        let words = first_words();
        together(4, |client| {
            for first in words.iter().skip(client % 3) {
                if let Ok(mut stream) = TcpStream::connect(server.address()) {
                    let _ = stream.write_all(first);
                }
            }
        });
    });
}

/// 3,000 bodies of a MiB that are read ahead, one on each connection, of the address that the victim has, too, as behind a proxy.
#[test]
fn bodies_before_admission() {
    uploads(|address, head| connections(address, 3000, head));
}

/// The same from an address of the attacker's own.
#[test]
fn bodies_before_admission_of_another_client() {
    raise_descriptors();
    uploads(|address, head| {
        let mut all: Vec<_> = (0..3000).map(|_| connect_from(ENEMY, address)).collect();
        all.iter().for_each(|stream| stream.set_nonblocking(true).expect("an option of sockets"));
        // One that was closed already gets no more.
        all.retain_mut(|stream| stream.write_all(head).is_ok());
        all
    });
}

fn uploads(connections: impl FnOnce(SocketAddr, &[u8]) -> Vec<TcpStream>) {
    let attack = Attack::within(512).function("echo.wat", guest::echo()).descriptors(3600);
    attack.run(|server| {
        let head = b"POST /echo HTTP/1.1\r\nHost: box\r\nConnection: close\r\nContent-Length: 1000000\r\n\r\n{\"parameter\":\"";
        let mut all = connections(server.address(), head);
        let data = [b'x'; 64 << 10];
        let started = Instant::now();
        while goes_on(started) {
            for stream in &mut all {
                let _ = stream.write(&data);
            }
        }
        // Most of them are not whole, and have an end now.
        all.iter().for_each(|stream| drop(stream.shutdown(Shutdown::Write)));
        let beside = ["200", "200 broken off", "400 body-unreadable", "503 queue-timeout", "503 evicted", "504 deadline-exceeded"];
        ended(vec![(head.to_vec(), all)]).assert_are(&["503 queue-full"], &[&beside[..], &[CLOSED]].concat());
    });
}
