//! Frames in any order, and an observer who knows which may come back.

use std::{collections::BTreeMap, net::SocketAddr};

use arbitrary::Unstructured;
use wasmbox_tests::frames::{END_HEADERS, END_STREAM, Frame, Frames, frame, kind, request};

/// Methods and paths of requests to the function port.
pub const FUNCTIONS: &[(&str, &str)] = &[("GET", "/hello"), ("POST", "/echo"), ("GET", "/flood"), ("", "*")];
/// The same of the admin port.
pub const ADMIN: &[(&str, &str)] = &[
    ("GET", "/live"),
    ("GET", "/metrics"),
    ("GET", "/overview.json?since=1"),
    ("PUT", "/functions/hello"),
    ("POST", "/"),
    ("", "*"),
];

/// The largest frame that a client takes unless it says otherwise (RFC 9113, section 6.5.2).
const LARGEST: usize = 16_384;

/// What a stream of the server's has sent.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
enum Sent {
    #[default]
    Nothing,
    Head,
    End,
}

pub fn act(address: SocketAddr, requests: &[(&str, &str)], bytes: &mut Unstructured) -> arbitrary::Result<()> {
    let mut frames = Frames::connect(address, &[]);
    let mut opened = 0;
    for _ in 0..bytes.int_in_range(1..=30)? {
        let stream = if bytes.ratio(4, 5)? { opened.max(1) } else { bytes.int_in_range(0..=20)? };
        let made = match bytes.int_in_range(0..=9)? {
            0..=3 => {
                opened += 2;
                let (method, path) = *bytes.choose(requests)?;
                let fields: &[(&str, &str)] = bytes.choose(&[
                    [].as_slice(),
                    &[("invocation-timeout", "200")],
                    &[("content-length", "5"), ("invocation-timeout", "200")],
                    &[("connection", "close")],
                    &[("Upper", "case")],
                ])?;
                let flags = if bytes.arbitrary()? { END_HEADERS | END_STREAM } else { END_HEADERS };
                frame(kind::HEADERS, flags, opened - 1, &request(method, path, fields))
            }
            4 => frame(kind::DATA, bytes.int_in_range(0..=1)?, stream, b"hello"),
            5 => frame(kind::RST_STREAM, 0, stream, &bytes.arbitrary::<[u8; 4]>()?),
            6 => frame(kind::WINDOW_UPDATE, 0, stream, &bytes.int_in_range(0..=100_000u32)?.to_be_bytes()),
            7 => frame(kind::PING, 0, 0, &[1; 8]),
            8 => frame(kind::CONTINUATION, bytes.arbitrary()?, stream, b""),
            _ => {
                let length = bytes.int_in_range(0..=40)?;
                let (kind, flags) = (bytes.arbitrary()?, bytes.arbitrary()?);
                frame(kind, flags, stream, bytes.bytes(length)?)
            }
        };
        if frames.send_bytes(&made).is_err() {
            break;
        }
    }
    frames.finish();
    let mut streams = BTreeMap::new();
    frames.until_closed(|frame| check(frame, opened, &mut streams));
    Ok(())
}

/// The frame may come: RFC 9113, sections 5.1 and 6.
fn check(frame: &Frame, opened: u32, streams: &mut BTreeMap<u32, Sent>) {
    assert!(frame.payload.len() <= LARGEST, "{} bytes", frame.payload.len());
    let on_stream = [kind::DATA, kind::HEADERS, kind::RST_STREAM, kind::CONTINUATION].contains(&frame.kind);
    assert!(frame.kind <= kind::CONTINUATION && frame.kind != kind::PUSH_PROMISE, "{frame:?}");
    assert!(frame.kind == kind::WINDOW_UPDATE || on_stream == (frame.stream > 0), "{frame:?}");
    if ![kind::DATA, kind::HEADERS].contains(&frame.kind) {
        return;
    }
    assert!(frame.stream % 2 == 1 && frame.stream < opened, "a stream that nobody opened: {frame:?}");
    let sent = streams.entry(frame.stream).or_default();
    assert_ne!(*sent, Sent::End, "behind its end: {frame:?}");
    assert!(frame.kind == kind::HEADERS || *sent == Sent::Head, "data before its head: {frame:?}");
    *sent = if frame.flags & END_STREAM == 0 { Sent::Head } else { Sent::End };
}
