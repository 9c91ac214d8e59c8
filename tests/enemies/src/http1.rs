//! Bytes that are nearly HTTP/1.1.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    time::Duration,
};

use arbitrary::Unstructured;
use wasmbox_tests::strict;

/// What requests to the function port begin with, or are.
pub const FUNCTIONS: &[&str] = &[
    "GET /hello HTTP/1.1\r\nHost: box\r\n\r\n",
    "GET /arguments?arg=a HTTP/1.1\r\nHost: box\r\n",
    "POST /echo HTTP/1.1\r\nHost: box\r\n",
    "POST /flood HTTP/1.0\r\n",
    "OPTIONS /hello HTTP/1.1\r\n",
    "GET /-/ready HTTP/1.1\r\n\r\n",
];

/// The same of the admin port.
pub const ADMIN: &[&str] = &[
    "GET /live HTTP/1.1\r\nHost: box\r\n\r\n",
    "GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: application/openmetrics-text\r\n",
    "GET /overview.json?since=1&functions=hello HTTP/1.1\r\nHost: localhost\r\n",
    "GET / HTTP/1.1\r\nHost: elsewhere\r\n",
    "GET /functions HTTP/1.0\r\n",
    "GET /functions/hello/logs?follow HTTP/1.1\r\nHost: box\r\n",
    "PUT /functions/hello HTTP/1.1\r\nHost: box\r\nAuthorization: Bearer 0123456789abcdef\r\n",
    "DELETE /functions/hello HTTP/1.1\r\nHost: box\r\n",
    "POST /live HTTP/1.1\r\nHost: box\r\n",
];

/// Pieces of requests, right and wrong.
const PIECES: &[&str] = &[
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "GET ",
    "/hello",
    " HTTP/1.1\r\n",
    "Content-Length: 5\r\n",
    "Content-Length: 0\r\n",
    "Content-Length: 4294967296\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: identity\r\n",
    "Connection: close\r\n",
    "Connection: keep-alive, upgrade\r\n",
    "Expect: 100-continue\r\n",
    "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n",
    "Invocation-Timeout: 200\r\n",
    "Memory-Request: 1\r\n",
    "Cpu-Quota: lots\r\n",
    "X-A: b\r\n",
    "\r\n",
    "\n",
    "\r",
    "hello",
    "5\r\nhello\r\n",
    "0\r\n\r\n",
    "0\r\nX-A: b\r\n\r\n",
    "ffffffffffffffff\r\n",
    ";x=y\r\n",
    "{\"parameter\":\"x\"}",
    "\0",
];

/// Sends pieces, and `requests` among them.
pub fn act(address: SocketAddr, requests: &[&str], bytes: &mut Unstructured) -> arbitrary::Result<()> {
    let mut stream = TcpStream::connect(address).expect("the server accepts connections");
    stream.set_read_timeout(Some(Duration::from_secs(90))).expect("the timeout is not zero");
    stream.set_write_timeout(Some(Duration::from_secs(90))).expect("the timeout is not zero");
    let mut sent = Vec::new();
    for _ in 0..bytes.int_in_range(1..=30)? {
        let piece = if bytes.ratio(1, 5)? {
            bytes.choose(requests)?.as_bytes()
        } else if bytes.ratio(7, 8)? {
            bytes.choose(PIECES)?.as_bytes()
        } else {
            let length = bytes.int_in_range(0..=40)?;
            bytes.bytes(length)?
        };
        sent.extend_from_slice(piece);
        if stream.write_all(piece).is_err() {
            break;
        }
    }
    let _ = stream.shutdown(Shutdown::Write);
    let mut received = Vec::new();
    match stream.read_to_end(&mut received) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => {
            panic!("the connection is not closed ({error}), after {:?}", String::from_utf8_lossy(&sent))
        }
        _ => {}
    }
    // HTTP/2 is another story.
    if received.starts_with(b"HTTP/1.") {
        let answers = strict::answers(&received, &[]);
        let answers = answers.unwrap_or_else(|error| panic!("{error}, to {:?}", String::from_utf8_lossy(&sent)));
        for answer in answers {
            assert_ne!(answer.code(), Some("internal"), "to {:?}", String::from_utf8_lossy(&sent));
        }
    }
    Ok(())
}
