//! What attackers get: how each request was answered, and how its connection ended. Each is a documented outcome, and none hangs.
//!
//! An outcome is a word or two: `200`; `503 queue-full`, a problem with its code; `200 broken off`, an answer whose connection ended before it;
//! `RST_STREAM REFUSED_STREAM`, `200 RST_STREAM CANCEL` and `GOAWAY PROTOCOL_ERROR` of HTTP/2; [`CLOSED`].

use std::{
    collections::BTreeMap,
    fs,
    io::{ErrorKind, Read},
    net::TcpStream,
    sync::{LazyLock, Mutex, PoisonError},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    frames::{END_STREAM, Frame, Frames, HEADER_TABLE_SIZE, INITIAL_WINDOW_SIZE, kind, status},
    patience::PATIENCE,
    strict::{self, Strict},
    workspace,
};

/// The connection ended without an answer.
pub const CLOSED: &str = "closed";
/// What is kept of all answers of a connection: one that is longer has no end here.
const KEPT: usize = 4 << 20;
/// What is kept of an answer on HTTP/2: problems are shorter.
const DOCUMENT: usize = 64 << 10;
/// Of HTTP/2: more than all answers need.
pub const WINDOW: u32 = 1 << 30;
/// A connection that sends on and on hangs, too.
const ENDLESS: Duration = Duration::from_secs(60);

/// How requests of attackers were answered, and how many in each way.
#[derive(Debug, Default)]
pub struct Outcomes(Mutex<BTreeMap<String, usize>>);

impl Outcomes {
    pub fn add(&self, outcome: impl Into<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(outcome.into()).or_default() += 1;
    }

    pub fn extend(&self, outcomes: impl IntoIterator<Item = String>) {
        outcomes.into_iter().for_each(|outcome| self.add(outcome));
    }

    /// All of these came, and nothing but these and what may come beside them.
    ///
    /// # Panics
    /// If it is otherwise.
    #[track_caller]
    pub fn assert_are(&self, all: &[&str], beside: &[&str]) {
        let outcomes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        eprintln!("the attackers got {outcomes:?}");
        assert!(!outcomes.is_empty(), "nobody attacked");
        assert!(all.iter().all(|expected| outcomes.contains_key(*expected)), "{outcomes:?}, not all of {all:?}");
        let expected = |outcome: &String| all.iter().chain(beside).any(|expected| outcome == expected);
        assert!(outcomes.keys().all(expected), "{outcomes:?}, not {all:?} and {beside:?}");
    }
}

/// How all requests on a connection of HTTP/1 were answered, until the server closed it.
///
/// # Panics
/// If it does not, or what comes is no answer.
pub fn http1(stream: TcpStream) -> Vec<String> {
    answers(stream, usize::MAX)
}

/// How the first request on a connection of HTTP/1 was answered.
///
/// # Panics
/// As [`http1`].
pub fn first_of_http1(stream: TcpStream) -> String {
    answers(stream, 1).swap_remove(0)
}

fn answers(mut stream: TcpStream, most: usize) -> Vec<String> {
    stream.set_nonblocking(false).expect("an option of sockets");
    stream.set_read_timeout(Some(PATIENCE)).expect("the timeout is not zero");
    let give_up = Instant::now() + ENDLESS;
    let (mut received, mut piece) = (Vec::new(), vec![0; 64 << 10]);
    loop {
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(size) => received.extend_from_slice(&piece[..size.min(KEPT.saturating_sub(received.len()))]),
            Err(error) if is_end(&error) => break,
            Err(error) => panic!("a request hangs: {error}, after {:?}", shown(&received)),
        }
        let come = if most < usize::MAX { said(&received) } else { Vec::new() };
        if come.iter().filter(|answer| answer.complete).count() >= most {
            return come.iter().take(most).map(outcome).collect();
        }
        assert!(Instant::now() < give_up, "a connection does not end, after {:?}", shown(&received));
    }
    let come = said(&received);
    if come.is_empty() { vec![CLOSED.into()] } else { come.iter().take(most).map(outcome).collect() }
}

fn said(received: &[u8]) -> Vec<Strict> {
    strict::answers(received, &[]).unwrap_or_else(|error| panic!("{error}, in {:?}", shown(received)))
}

fn shown(received: &[u8]) -> String {
    String::from_utf8_lossy(&received[..received.len().min(300)]).into_owned()
}

/// Whether the server has closed the connection.
fn is_end(error: &std::io::Error) -> bool {
    use ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    [BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof].contains(&error.kind())
}

/// What an answer of HTTP/1 says.
///
/// # Panics
/// If that is a problem which is not documented.
pub fn outcome(answer: &Strict) -> String {
    match answer.code() {
        _ if !answer.complete => format!("{} broken off", answer.status),
        Some(code) => problem(answer.status, Some(code), &answer.body),
        None => answer.status.to_string(),
    }
}

/// A problem's status and code, which the document of errors must have.
fn problem(status: u16, named: Option<&str>, document: &[u8]) -> String {
    /// The statuses of docs/errors.md, by their codes.
    static DOCUMENTED: LazyLock<BTreeMap<String, u16>> = LazyLock::new(|| {
        let document = fs::read_to_string(workspace::root().join("docs/errors.md")).expect("the document");
        let section = |section: &str| {
            let (code, rest) = section.split_once("\n\n")?;
            Some((code.to_owned(), rest.get(..3)?.parse().ok()?))
        };
        document.split("\n## ").skip(1).filter_map(section).collect()
    });
    let problem: Value = serde_json::from_slice(document).unwrap_or_else(|error| panic!("{error}: {status}"));
    let code = problem["code"].as_str().unwrap_or_else(|| panic!("no code in {problem}"));
    assert!(named.is_none_or(|named| named == code), "{named:?} is the code of {problem}");
    assert_eq!(problem["status"], status, "{problem}");
    assert_eq!(DOCUMENTED.get(code), Some(&status), "{problem}");
    assert_ne!(code, "internal", "a fault of the box's: {problem}");
    format!("{status} {code}")
}

/// A connection of HTTP/2 whose client wants to see what becomes of its requests: statuses are written out, and what is answered needs no further
/// window.
///
/// # Panics
/// If the server closes it at once.
pub fn http2(stream: TcpStream) -> Frames {
    let mut frames = Frames::on(stream, &[(HEADER_TABLE_SIZE, 0), (INITIAL_WINDOW_SIZE, WINDOW)]);
    frames.send(kind::WINDOW_UPDATE, 0, 0, &WINDOW.to_be_bytes()).expect("the server takes frames");
    frames
}

/// Requests on a connection of HTTP/2.
#[derive(Debug, Default)]
pub struct Streams {
    waiting: BTreeMap<u32, Response>,
    /// Why the server ends the connection, if it says so.
    goaway: Option<String>,
    outcomes: Vec<String>,
}

/// What came of an answer.
#[derive(Debug, Default)]
struct Response {
    status: Option<u16>,
    document: Vec<u8>,
}

impl Response {
    /// The connection has ended so.
    fn unfinished(&self, end: &str) -> String {
        self.status.map_or_else(|| end.to_owned(), |status| format!("{status} broken off"))
    }

    /// It alone has ended so.
    fn reset(&self, error: &str) -> String {
        let status = self.status.map(|status| format!("{status} ")).unwrap_or_default();
        format!("{status}RST_STREAM {error}")
    }

    fn whole(&self) -> String {
        let status = self.status.expect("the head comes first");
        // What the HTTP library refuses, and what the admin port says, is no problem's document.
        if self.document.first() == Some(&b'{') && status >= 400 {
            return problem(status, None, &self.document);
        }
        status.to_string()
    }
}

impl Streams {
    /// A request is sent on this stream.
    pub fn begin(&mut self, stream: u32) {
        self.waiting.insert(stream, Response::default());
    }

    /// How many have no answer yet.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// A frame has come. Whether it is the last one of an answer.
    ///
    /// # Panics
    /// If it is not one that may come.
    pub fn see(&mut self, frame: &Frame) -> bool {
        if frame.kind == kind::GOAWAY {
            self.goaway(&frame.payload);
            return false;
        }
        let Some(response) = self.waiting.get_mut(&frame.stream) else { return false };
        let ended = match frame.kind {
            kind::RST_STREAM => Some(response.reset(error_name(&frame.payload))),
            kind::HEADERS => {
                response.status = response.status.or_else(|| status(&frame.payload));
                assert!(response.status.is_some(), "no status: {frame:x?}");
                (frame.flags & END_STREAM != 0).then(|| response.whole())
            }
            kind::DATA => {
                let room = DOCUMENT.saturating_sub(response.document.len());
                response.document.extend_from_slice(&frame.payload[..frame.payload.len().min(room)]);
                (frame.flags & END_STREAM != 0).then(|| response.whole())
            }
            _ => None,
        };
        let Some(outcome) = ended else { return false };
        self.waiting.remove(&frame.stream);
        self.outcomes.push(outcome);
        true
    }

    /// What is not answered before it (RFC 9113, section 6.8), and what comes later.
    fn goaway(&mut self, payload: &[u8]) {
        let (last, error) = payload.split_first_chunk::<4>().expect("GOAWAY names the last stream");
        let last = u32::from_be_bytes(*last) & 0x7fff_ffff;
        let goaway = format!("GOAWAY {}", error_name(error));
        for (_, response) in self.waiting.extract_if(last.saturating_add(1).., |_, _| true) {
            self.outcomes.push(response.unfinished(&goaway));
        }
        self.goaway = Some(goaway);
    }

    /// Sees what has come, without waiting. Gives the streams that are answered with it.
    pub fn see_ready(&mut self, frames: &mut Frames) -> Vec<u32> {
        let come = std::iter::from_fn(|| frames.receive_ready());
        come.filter(|frame| self.see(frame)).map(|frame| frame.stream).collect()
    }

    /// What became of all requests: answers are waited for.
    ///
    /// # Panics
    /// If one hangs.
    pub fn settle(mut self, frames: &mut Frames) -> Vec<String> {
        frames.set_patience(PATIENCE);
        let give_up = Instant::now() + ENDLESS;
        while !self.waiting.is_empty() {
            assert!(Instant::now() < give_up, "streams do not end: {:?}", self.waiting);
            match frames.receive() {
                Ok(frame) => {
                    self.see(&frame);
                }
                Err(error) if is_end(&error) => {
                    let end = self.goaway.take().unwrap_or_else(|| CLOSED.into());
                    let waiting = std::mem::take(&mut self.waiting);
                    self.outcomes.extend(waiting.values().map(|response| response.unfinished(&end)));
                }
                Err(error) => panic!("streams hang: {error}, {:?}", self.waiting),
            }
        }
        self.outcomes
    }
}

/// The name of an error code (RFC 9113, section 7), which is first.
fn error_name(payload: &[u8]) -> &'static str {
    const NAMES: [&str; 14] = [
        "NO_ERROR",
        "PROTOCOL_ERROR",
        "INTERNAL_ERROR",
        "FLOW_CONTROL_ERROR",
        "SETTINGS_TIMEOUT",
        "STREAM_CLOSED",
        "FRAME_SIZE_ERROR",
        "REFUSED_STREAM",
        "CANCEL",
        "COMPRESSION_ERROR",
        "CONNECT_ERROR",
        "ENHANCE_YOUR_CALM",
        "INADEQUATE_SECURITY",
        "HTTP_1_1_REQUIRED",
    ];
    let code = payload.first_chunk().map(|code| u32::from_be_bytes(*code) as usize).expect("an error has a code");
    NAMES.get(code).unwrap_or_else(|| panic!("{code} is no error's code"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::END_HEADERS;

    fn answer(head: &str, body: &str) -> String {
        let bytes = format!("HTTP/1.1 {head}\r\n\r\n{body}");
        outcome(&said(bytes.as_bytes())[0])
    }

    #[test]
    fn answers_are_what_they_say() {
        assert_eq!(answer("200 OK\r\ncontent-length: 2", "hi"), "200");
        assert_eq!(answer("200 OK\r\ncontent-length: 3", "hi"), "200 broken off");
        let full = r#"{"code":"queue-full","status":503}"#;
        let head = format!("503 Full\r\ncontent-length: {}\r\nwasmbox-error: queue-full", full.len());
        assert_eq!(answer(&head, full), "503 queue-full");
    }

    #[test]
    #[should_panic = "left: Some(503)"]
    fn a_code_has_the_status_that_is_documented() {
        problem(500, None, br#"{"code":"queue-full","status":500}"#);
    }

    #[test]
    fn streams_end_one_by_one_or_with_their_connection() {
        let mut streams = Streams::default();
        (1..=9).step_by(2).for_each(|stream| streams.begin(stream));
        let frame = |kind, flags, stream, payload: &[u8]| Frame { kind, flags, stream, payload: payload.to_vec() };
        for frame in [
            frame(kind::HEADERS, END_HEADERS | END_STREAM, 1, &[0x20, 0x88]),
            frame(kind::HEADERS, END_HEADERS, 3, &[0x88]),
            frame(kind::HEADERS, END_HEADERS, 5, &[0x48, 0x83, 0x6c, 0x0c, 0xff]),
            frame(kind::DATA, END_STREAM, 5, br#"{"code":"queue-full","status":503}"#),
            frame(kind::RST_STREAM, 0, 3, &[0, 0, 0, 8]),
            frame(kind::GOAWAY, 0, 0, &[0, 0, 0, 7, 0, 0, 0, 11]),
        ] {
            streams.see(&frame);
        }
        assert_eq!(streams.outcomes, ["200", "503 queue-full", "200 RST_STREAM CANCEL", "GOAWAY ENHANCE_YOUR_CALM"]);
        assert_eq!(streams.waiting(), 1);
    }
}
