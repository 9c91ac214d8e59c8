//! Clients that speak HTTP/1.1 as nobody should.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    time::Duration,
};

use wasmbox_tests::{Attack, WasmBox, attack::together, guest, strict};

/// Sends `bytes`, says that nothing more comes, reads to the end: all that came must be answers. Gives their statuses.
fn answered(server: &WasmBox, bytes: impl AsRef<[u8]>) -> Vec<u16> {
    let mut stream = TcpStream::connect(server.address()).expect("the server accepts connections");
    stream.set_read_timeout(Some(Duration::from_secs(90))).expect("the timeout is not zero");
    // It may be refused before all of it is sent.
    let _ = stream.write_all(bytes.as_ref());
    let _ = stream.shutdown(Shutdown::Write);
    let mut all = Vec::new();
    let end = stream.read_to_end(&mut all);
    assert!(
        end.as_ref().map_or_else(|error| error.kind() == std::io::ErrorKind::ConnectionReset, |_| true),
        "the connection is not closed: {end:?}, after {:?}",
        String::from_utf8_lossy(&all[..all.len().min(300)])
    );
    let answers = strict::answers(&all, &[]).unwrap_or_else(|error| panic!("{error}"));
    answers.iter().map(|answer| answer.status).collect()
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
            let statuses = answered(server, request);
            assert!(
                statuses.iter().all(|status| [200, 400, 404, 405, 408].contains(status)),
                "{statuses:?} to {request:?}"
            );
        });
    });
}
