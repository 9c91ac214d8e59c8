//! Clients that occupy connections.

use std::{
    io::Write,
    net::{SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use wasmbox_tests::{
    Attack,
    attack::{goes_on, together},
    frames::{PREFACE, frame, kind, request},
    guest,
};

/// The file descriptors of this process are as many as it may have: it holds the other ends.
fn raise_descriptors() {
    use rustix::process::{Resource, getrlimit, setrlimit};
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

/// What a client may say and then be silent: nothing, a byte, half a preface, a head that does not end.
fn first_words() -> Vec<Vec<u8>> {
    let settings = frame(kind::SETTINGS, 0, 0, &[]);
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

/// Bytes that come one by one, so that something always has come.
#[test]
fn bytes_one_by_one() {
    let attack = Attack::within(256).function("echo.wat", guest::echo()).descriptors(1200).flag("--memory-request", 1);
    attack.run(|server| {
        let head = b"POST /echo HTTP/1.1\r\nHost: box\r\nContent-Length: 1000000\r\nX-Padding: ";
        let body = b"POST /echo HTTP/1.1\r\nHost: box\r\nContent-Length: 1000000\r\nInvocation-Timeout: 3000\r\n\r\n";
        let mut all = connections(server.address(), 300, head);
        all.extend(connections(server.address(), 100, body));
        let started = std::time::Instant::now();
        while goes_on(started) {
            for stream in &mut all {
                let _ = stream.write(b"x");
            }
            thread::sleep(Duration::from_millis(100));
        }
    });
}

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
