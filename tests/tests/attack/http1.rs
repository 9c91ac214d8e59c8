//! Clients that speak HTTP/1.1 as nobody should.

use std::{
    io::Write,
    net::{Shutdown, TcpStream},
    thread,
    time::Duration,
};

use wasmbox_tests::{
    Attack, WasmBox,
    attack::together,
    attacker::{self, CLOSED, Outcomes},
    guest, strict,
};

/// Sends `bytes`, says that nothing more comes, and reads to the end what came.
fn answered(server: &WasmBox, bytes: impl AsRef<[u8]>) -> Vec<String> {
    let mut stream = TcpStream::connect(server.address()).expect("the server accepts connections");
    // It may be refused before all of it is sent.
    let _ = stream.write_all(bytes.as_ref());
    let _ = stream.shutdown(Shutdown::Write);
    attacker::http1(stream)
}

/// There is at most one answer, with one of these statuses. What is not understood may be closed without a word.
#[track_caller]
fn assert_refused(outcomes: &[String], statuses: &[u16], what: &str) {
    let [outcome] = outcomes else { panic!("{outcomes:?} to {what:?}") };
    let status = outcome.get(..3).and_then(|status| status.parse().ok());
    let is_expected = outcome == CLOSED || status.is_some_and(|status| statuses.contains(&status));
    assert!(is_expected, "{outcome}, not {statuses:?}, to {what:?}");
}

#[test]
fn heads_that_are_none() {
    let line = "GET /hello HTTP/1.1\r\nHost: box\r\n";
    let cases: Vec<(String, &[u16])> = vec![
        (format!("{line}{}\r\n", "X-A: b\r\n".repeat(5000)), &[431, 400]),
        (format!("{line}X-A: {}\r\n\r\n", "x".repeat(200_000)), &[431, 400]),
        (format!("GET /{} HTTP/1.1\r\nHost: box\r\n\r\n", "x".repeat(200_000)), &[414, 431, 400]),
        (format!("{} /hello HTTP/1.1\r\n\r\n", "G".repeat(200_000)), &[400, 431, 414]),
        (format!("{line}Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef"), &[400]),
        (format!("{line}Content-Length: +5\r\n\r\nabcde"), &[400]),
        (format!("{line}Content-Length: 5, 5\r\n\r\nabcde"), &[400, 200]),
        (format!("{line}Content-Length: 18446744073709551616\r\n\r\n"), &[400, 413, 431]),
        (format!("{line}Content-Length: 18446744073709551615\r\n\r\n"), &[400, 413, 431]),
        (format!("{line}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"), &[400, 501]),
        (format!("{line}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"), &[400]),
        (format!("{line}Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"), &[400, 200, 501]),
        (format!("{line}X-A: b\rX-B: c\r\n\r\n"), &[400]),
        (format!("{line} folded: 1\r\n\r\n"), &[400]),
        (format!("{line}: no name\r\n\r\n"), &[400]),
        (format!("{line}X-\0: b\r\n\r\n"), &[400]),
        ("GET /hello HTTP/9.9\r\n\r\n".into(), &[400, 505]),
        ("GET /hello\r\n\r\n".into(), &[400]),
        ("GET  /hello  HTTP/1.1\r\n\r\n".into(), &[400]),
        ("\r\n".repeat(100_000), &[400, 431]),
        ("\0".repeat(100_000), &[400]),
    ];
    Attack::within(256).function("echo.wat", guest::echo()).run(|server| {
        let ask = |(bytes, expected): &(String, &[u16])| {
            let first = &answered(server, bytes)[..1];
            assert_refused(first, expected, &bytes[..bytes.len().min(120)]);
        };
        cases.iter().for_each(ask);
        together(8, |client| ask(&cases[client % cases.len()]));
    });
}

/// A request that a proxy may read in another way than the box: either it is refused, or the connection ends behind it.
#[test]
fn requests_inside_requests() {
    let inner = "GET /inner HTTP/1.1\r\nHost: box\r\n\r\n";
    let line = "POST /echo HTTP/1.1\r\nHost: box\r\n";
    let length = inner.len();
    let cases = [
        format!("{line}Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{inner}"),
        format!("{line}Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n{inner}"),
        format!("{line}Transfer-Encoding: identity\r\nContent-Length: {length}\r\n\r\n{inner}"),
        format!("{line}Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n{inner}"),
        format!("{line}Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n{inner}"),
        format!("{line}Content-Length: {length}\r\nContent-Length: 0\r\n\r\n{inner}"),
    ];
    Attack::within(256).function("echo.wat", guest::echo()).function("inner.wat", guest::printing("inner", "")).run(
        |server| {
            for case in &cases {
                let mut wire = server.wire(case);
                wire.finish();
                let answers =
                    strict::answers(&wire.rest(), &["POST"]).unwrap_or_else(|error| panic!("{case}: {error}"));
                assert!(answers.len() <= 1, "{case:?}: {answers:?}");
            }
        },
    );
}

#[test]
fn chunks_that_cost_more_than_they_carry() {
    let line = "POST /echo HTTP/1.1\r\nHost: box\r\nConnection: close\r\nInvocation-Timeout: 4000\r\n\
        Transfer-Encoding: chunked\r\n\r\n";
    let cases = [
        format!("{line}{}0\r\n\r\n", "1\r\nx\r\n".repeat(200_000)),
        format!("{line}{}0\r\n\r\n", format!("1;{}\r\nx\r\n", "e".repeat(10_000)).repeat(300)),
        format!("{line}1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(1_000_000)),
        format!("{line}{}1\r\nx\r\n0\r\n\r\n", "0".repeat(1_000_000)),
        format!("{line}FFFFFFFFFFFFFFFF\r\nx"),
        format!("{line}FFFFFFFFFFFFFFFFF\r\nx"),
        format!("{line}1\r\nx\r\n0\r\n{}\r\n", "X-A: b\r\n".repeat(100_000)),
        format!("{line}1\r\nx\r\n0\r\nX-A: {}\r\n\r\n", "x".repeat(2_000_000)),
        format!("{line}-1\r\nx\r\n0\r\n\r\n"),
        format!("{line}1 \r\nx\r\n0\r\n\r\n"),
        format!("{line}1\nx\n0\n\n"),
    ];
    Attack::within(256).function("echo.wat", guest::echo()).run(|server| {
        let ask = |case: &String, statuses: &[u16]| {
            assert_refused(&answered(server, case), statuses, &case[line.len()..case.len().min(line.len() + 20)]);
        };
        cases.iter().for_each(|case| ask(case, &[200, 400, 413, 431]));
        // Together they wait for their turn.
        together(6, |client| ask(&cases[client % cases.len()], &[200, 400, 413, 431, 503, 504]));
    });
}

/// Ten thousand requests at once on one connection, and nobody reads: what is not read is not made.
#[test]
fn requests_without_reading_answers() {
    let request = "GET /flood HTTP/1.1\r\nHost: box\r\nMemory-Request: 1\r\n\r\n".repeat(10_000);
    let attack = Attack::within(256).function("flood.wat", guest::flood(20)).descriptors(700);
    let outcomes = Outcomes::default();
    attack.run(|server| {
        let mut streams: Vec<_> = (0..100)
            .map(|_| {
                let stream = TcpStream::connect(server.address()).expect("the server accepts connections");
                stream.set_nonblocking(true).expect("an option of sockets");
                stream
            })
            .collect();
        for _ in 0..40 {
            for stream in &mut streams {
                let _ = stream.write(request.as_bytes());
            }
            thread::sleep(Duration::from_millis(100));
        }
        // The first one; there is no end to the others.
        outcomes.extend(streams.into_iter().map(attacker::first_of_http1));
    });
    let others = ["503 queue-full", "503 queue-timeout", "503 evicted", "504 deadline-exceeded", "200 broken off"];
    outcomes.assert_are(&["200"], &others);
}

#[test]
fn old_versions_and_half_closed_connections() {
    let attack = Attack::within(256).function("echo.wat", guest::echo()).function("large.wat", guest::flood(100));
    attack.run(|server| {
        together(8, |client| {
            let request = [
                "GET /hello HTTP/1.0\r\n\r\n",
                "GET /large HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
                "POST /echo HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc",
                "POST /echo HTTP/1.1\r\nHost: box\r\nContent-Length: 1000\r\n\r\nabc",
                "POST /echo HTTP/1.1\r\nHost: box\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
                "POST /echo HTTP/1.1\r\nHost: box\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n",
                "GET /hello HTTP/1.1\r\nHost: box\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
                "CONNECT box:80 HTTP/1.1\r\nHost: box\r\n\r\n",
            ][client];
            assert_refused(&answered(server, request), &[200, 400, 404, 405, 408, 501], request);
        });
    });
}

/// Heads that name the variables of a proxy in front, so that programs take them for its own.
#[test]
fn names_that_become_those_of_a_proxy() {
    let attack = Attack::within(256).function("env.wat", guest::command("(call $print_environment)"));
    attack.run(|server| {
        let names = ["X_Remote_User", "x_remote_user", "X_REMOTE-USER", "X-Remote_User"];
        for name in names {
            let head = format!(
                "GET /env HTTP/1.1\r\nHost: box\r\n{name}: forged\r\nX-Remote-User: right\r\nProxy: forged\r\n\r\n"
            );
            let answer = server.wire(head).answer().ok();
            assert!(!answer.text().contains("forged"), "{name}: {:?}", answer.text());
            assert!(answer.text().contains("HTTP_X_REMOTE_USER=right\0"), "{name}: {:?}", answer.text());
        }
    });
}
