//! HTTP/1.1 byte by byte, for what no decent client sends or sees.

use std::{
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Version};

use crate::{client::Answer, patience::PATIENCE};

/// A connection.
pub struct Wire(BufReader<TcpStream>);

/// The first lines of an answer.
#[derive(Debug)]
pub struct Head {
    pub status: u16,
    pub headers: HeaderMap,
}

impl Wire {
    /// # Panics
    /// If nobody listens there.
    pub fn connect(address: SocketAddr) -> Wire {
        let stream = TcpStream::connect(address).expect("the server accepts connections");
        stream.set_read_timeout(Some(PATIENCE)).expect("the timeout is not zero");
        stream.set_write_timeout(Some(PATIENCE)).expect("the timeout is not zero");
        stream.set_nodelay(true).expect("an option of TCP");
        Wire(BufReader::new(stream))
    }

    /// Waits so long for what it reads.
    pub fn patient(self, patience: Duration) -> Wire {
        self.0.get_ref().set_read_timeout(Some(patience)).expect("the timeout is not zero");
        self
    }

    /// Connects and sends.
    pub fn send_to(address: SocketAddr, bytes: impl AsRef<[u8]>) -> Wire {
        let mut wire = Wire::connect(address);
        wire.send(bytes);
        wire
    }

    /// # Panics
    /// If the server does not take it.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).expect("the server takes what is sent");
    }

    /// # Errors
    /// If the server does not take it.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.0.get_mut().write_all(bytes.as_ref())
    }

    /// Sends one chunk of a chunked body; an empty one ends it.
    pub fn send_chunk(&mut self, data: &[u8]) {
        let mut chunk = format!("{:x}\r\n", data.len()).into_bytes();
        chunk.extend_from_slice(data);
        chunk.extend_from_slice(b"\r\n");
        self.send(chunk);
    }

    /// Says that nothing more will be sent. The server may have closed the connection already.
    pub fn finish(&mut self) {
        let _ = self.0.get_mut().shutdown(Shutdown::Write);
    }

    /// Ends the connection with a reset.
    pub fn reset(self) {
        let no_time = Some(std::time::Duration::ZERO);
        rustix::net::sockopt::set_socket_linger(self.0.get_ref(), no_time).expect("an option of TCP");
    }

    /// Reads the head of a final answer; interim ones (100) are skipped.
    ///
    /// # Panics
    /// If none comes.
    pub fn head(&mut self) -> Head {
        loop {
            let head = self.interim_head();
            if head.status >= 200 {
                return head;
            }
        }
    }

    /// Reads the head of the next answer.
    ///
    /// # Panics
    /// If none comes.
    pub fn interim_head(&mut self) -> Head {
        let status_line = self.line();
        let status = status_line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.unwrap_or_else(|| panic!("{status_line:?} is no status line"));
        let mut headers = HeaderMap::new();
        loop {
            let line = self.line();
            if line.is_empty() {
                return Head { status, headers };
            }
            let (name, value) = line.split_once(": ").unwrap_or_else(|| panic!("{line:?} is no header"));
            let name: HeaderName = name.parse().expect("a header's name");
            headers.append(name, HeaderValue::from_str(value).expect("a header's value"));
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("an answer within the time for one");
        assert!(line.ends_with("\r\n"), "the connection ended in {line:?}");
        line.truncate(line.len() - 2);
        line
    }

    /// Reads one chunk of a chunked body; `None` is its proper end.
    ///
    /// # Errors
    /// If the connection ends before.
    pub fn chunk(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        let mut size = String::new();
        self.0.read_line(&mut size)?;
        let size = usize::from_str_radix(size.trim_end(), 16).map_err(|_| ErrorKind::UnexpectedEof)?;
        let mut data = vec![0; size + 2];
        self.0.read_exact(&mut data)?;
        assert!(data.ends_with(b"\r\n"), "a chunk ends with a line's end");
        data.truncate(size);
        Ok((size > 0).then_some(data))
    }

    /// Reads exactly `size` bytes of a body that is not chunked.
    ///
    /// # Panics
    /// If they do not come.
    pub fn bytes(&mut self, size: usize) -> Vec<u8> {
        let mut data = vec![0; size];
        self.0.read_exact(&mut data).expect("as many bytes as announced");
        data
    }

    /// Reads a whole answer, to the end that its head announces.
    ///
    /// # Panics
    /// If it is not whole.
    pub fn answer(&mut self) -> Answer {
        let Head { status, headers } = self.head();
        let mut body = Vec::new();
        if let Some(length) = headers.get("content-length") {
            body = self.bytes(length.to_str().expect("digits").parse().expect("digits"));
        } else if headers.get("transfer-encoding").is_some() {
            while let Some(chunk) = self.chunk().expect("a whole body") {
                body.extend(chunk);
            }
        } else if ![204, 304].contains(&status) {
            self.0.read_to_end(&mut body).expect("the rest of the connection");
        }
        Answer { status, version: Version::HTTP_11, headers, body: Bytes::from(body), trailers: None }
    }

    /// Reads until the server closes the connection; gives what came.
    ///
    /// # Panics
    /// If it does not close it.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Ok(_) => rest,
            // What was sent to a closed connection is answered with a reset.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => rest,
            Err(error) => panic!("the server did not close the connection: {error}"),
        }
    }
}

/// The whole responses at the start of `bytes`, read strictly, each to a request with one of `methods` in turn; one that is not whole, and
/// all behind it, is left out.
///
/// # Panics
/// If the bytes are no responses, or there are more than requests.
pub fn parsed(mut bytes: &[u8], methods: &[http::Method]) -> Vec<Answer> {
    let mut answers = Vec::new();
    while !bytes.is_empty() {
        let method =
            methods.get(answers.len()).unwrap_or_else(|| panic!("{:?} is left", String::from_utf8_lossy(bytes)));
        let Some((answer, rest)) = first(bytes, method) else { break };
        answers.push(answer);
        bytes = rest;
    }
    answers
}

fn first<'a>(bytes: &'a [u8], method: &http::Method) -> Option<(Answer, &'a [u8])> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let text = std::str::from_utf8(&bytes[..end]).expect("a head is text");
    let mut rest = &bytes[end + 4..];
    let mut lines = text.split("\r\n");
    let status_line = lines.next()?;
    assert!(status_line.starts_with("HTTP/1.1 "), "{status_line:?} is no status line");
    let status = status_line[9..12].parse().expect("a status");
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap_or_else(|| panic!("{line:?} is no header"));
        let name: HeaderName = name.parse().expect("a header's name");
        headers.append(name, HeaderValue::from_str(value).expect("a header's value"));
    }
    let mut body = Vec::new();
    if *method == http::Method::HEAD || [204, 304].contains(&status) {
        // Nothing, whatever the head says.
    } else if headers.contains_key("transfer-encoding") {
        loop {
            let end = rest.windows(2).position(|window| window == b"\r\n")?;
            let size = std::str::from_utf8(&rest[..end]).ok().and_then(|size| usize::from_str_radix(size, 16).ok());
            let size = size.expect("a chunk's size");
            let chunk = rest.get(end + 2..end + 2 + size + 2)?;
            assert!(chunk.ends_with(b"\r\n"), "a chunk ends with a line's end");
            body.extend_from_slice(&chunk[..size]);
            rest = &rest[end + 2 + size + 2..];
            if size == 0 {
                break;
            }
        }
    } else {
        let length: usize = headers.get("content-length")?.to_str().expect("digits").parse().expect("digits");
        body.extend_from_slice(rest.get(..length)?);
        rest = &rest[length..];
    }
    Some((Answer { status, version: Version::HTTP_11, headers, body: Bytes::from(body), trailers: None }, rest))
}
