//! HTTP/2 frame by frame (RFC 9113), for what no decent client sends.

mod field_block;

use std::{
    collections::BTreeMap,
    io::{Error, ErrorKind, Read, Result, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use bytes::{Buf, BytesMut};
use rustix::net::{RecvFlags, recv};

pub use self::field_block::{block, request, status};
use crate::patience::PATIENCE;

/// The kinds of frames (RFC 9113, section 6).
pub mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PUSH_PROMISE: u8 = 5;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;

/// What a client sends first.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// `SETTINGS_HEADER_TABLE_SIZE`.
pub const HEADER_TABLE_SIZE: u16 = 1;
/// `SETTINGS_INITIAL_WINDOW_SIZE`.
pub const INITIAL_WINDOW_SIZE: u16 = 4;

/// Who takes nothing for so long has stopped reading.
const STALLED: Duration = Duration::from_secs(2);

/// A connection.
pub struct Frames {
    stream: TcpStream,
    /// What came, and is no whole frame yet.
    received: BytesMut,
}

#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// The bytes of one frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame's length has 24 bits").to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// The payload of SETTINGS.
pub fn settings(values: &[(u16, u32)]) -> Vec<u8> {
    values.iter().flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()[..]].concat()).collect()
}

impl Frames {
    /// A connection whose client has said its preface, and the settings that it wants.
    ///
    /// # Panics
    /// If nobody listens there.
    pub fn connect(address: SocketAddr, values: &[(u16, u32)]) -> Frames {
        Frames::on(TcpStream::connect(address).expect("the server accepts connections"), values)
    }

    /// The same, on a connection that is there.
    ///
    /// # Panics
    /// If the server closes it.
    pub fn on(stream: TcpStream, values: &[(u16, u32)]) -> Frames {
        let mut frames = Frames::begun(stream);
        let begin = [PREFACE, &frame(kind::SETTINGS, 0, 0, &settings(values))].concat();
        frames.send_bytes(&begin).expect("the server takes a preface");
        frames
    }

    /// A connection whose client has said its preface already.
    ///
    /// # Panics
    /// If it has no options.
    pub fn begun(stream: TcpStream) -> Frames {
        stream.set_nonblocking(false).expect("an option of sockets");
        stream.set_read_timeout(Some(PATIENCE)).expect("the timeout is not zero");
        stream.set_write_timeout(Some(STALLED)).expect("the timeout is not zero");
        stream.set_nodelay(true).expect("an option of TCP");
        Frames { stream, received: BytesMut::new() }
    }

    /// # Errors
    /// If the server has closed the connection, or takes nothing.
    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Result<()> {
        self.send_bytes(&frame(kind, flags, stream, payload))
    }

    /// # Errors
    /// If the server has closed the connection, or takes nothing.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends a whole GET.
    ///
    /// # Errors
    /// If the server has closed the connection, or takes nothing.
    pub fn get(&mut self, stream: u32, path: &str) -> Result<()> {
        self.send(kind::HEADERS, END_HEADERS | END_STREAM, stream, &request("GET", path, &[]))
    }

    /// Sends `piece` on each of `streams` in turns, as often as the server's windows allow, until `deadline`. `seen` is given each frame that comes.
    ///
    /// # Errors
    /// If the server has closed the connection, or takes nothing for a while.
    pub fn upload(
        &mut self,
        streams: &[u32],
        piece: &[u8],
        deadline: Instant,
        mut seen: impl FnMut(&Frame),
    ) -> Result<()> {
        // RFC 9113, section 6.9.2.
        const WINDOW: u64 = 65_535;
        // A window that stays shut is waited for no longer than that.
        self.stream.set_read_timeout(Some(STALLED))?;
        let (mut all, mut each) = (WINDOW, BTreeMap::new());
        let size = piece.len() as u64;
        let mut turn = 0;
        while Instant::now() < deadline {
            let next = (0..streams.len()).map(|step| streams[(turn + step) % streams.len()]);
            let open = next.take_while(|_| all >= size).find(|stream| *each.entry(*stream).or_insert(WINDOW) >= size);
            if let Some(stream) = open {
                self.send(kind::DATA, 0, stream, piece)?;
                all -= size;
                each.entry(stream).and_modify(|window| *window -= size);
                turn += 1;
                continue;
            }
            let frame = self.receive()?;
            seen(&frame);
            match (frame.kind, <[u8; 4]>::try_from(frame.payload.as_slice())) {
                (kind::WINDOW_UPDATE, Ok(increment)) => {
                    let increment = u64::from(u32::from_be_bytes(increment));
                    if frame.stream == 0 {
                        all += increment;
                    } else {
                        *each.entry(frame.stream).or_insert(WINDOW) += increment;
                    }
                }
                (kind::RST_STREAM, _) => drop(each.insert(frame.stream, 0)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Waits no longer than that for a frame.
    ///
    /// # Panics
    /// If it is zero.
    pub fn set_patience(&mut self, patience: Duration) {
        self.stream.set_read_timeout(Some(patience)).expect("the timeout is not zero");
    }

    /// The next frame.
    ///
    /// # Errors
    /// If the connection has ended, or none comes.
    pub fn receive(&mut self) -> Result<Frame> {
        let mut data = [0; 16 << 10];
        loop {
            if let Some(frame) = first(&mut self.received) {
                return Ok(frame);
            }
            match self.stream.read(&mut data)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                size => self.received.extend_from_slice(&data[..size]),
            }
        }
    }

    /// The next frame, if it is there. The connection's end is left for who waits for one.
    pub fn receive_ready(&mut self) -> Option<Frame> {
        let mut data = [0; 16 << 10];
        loop {
            if let Some(frame) = first(&mut self.received) {
                return Some(frame);
            }
            match recv(&self.stream, &mut data, RecvFlags::DONTWAIT) {
                Ok((0, _)) | Err(_) => return None,
                Ok((size, _)) => self.received.extend_from_slice(&data[..size]),
            }
        }
    }

    /// Reads until a frame of `kind` comes on `stream`.
    ///
    /// # Errors
    /// If the connection ends before.
    pub fn await_frame(&mut self, kind: u8, stream: u32) -> Result<Frame> {
        loop {
            let frame = self.receive()?;
            if frame.kind == kind && frame.stream == stream {
                return Ok(frame);
            }
            if frame.kind == kind::GOAWAY {
                return Err(Error::new(ErrorKind::ConnectionAborted, format!("GOAWAY: {frame:?}")));
            }
        }
    }

    /// Reads until the server closes the connection. `seen` is given each frame that comes.
    ///
    /// # Panics
    /// If it does not.
    pub fn until_closed(&mut self, mut seen: impl FnMut(&Frame)) {
        loop {
            match self.receive() {
                Ok(frame) => seen(&frame),
                Err(error) if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()) => {
                    panic!("the server does not close the connection: {error}");
                }
                Err(_) => return,
            }
        }
    }

    /// Says that nothing more will be sent. The server may have closed the connection already.
    pub fn finish(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }
}

/// The first frame of what came, if it is whole.
fn first(received: &mut BytesMut) -> Option<Frame> {
    let [a, b, c, kind, flags, s, t, u, v] = *received.first_chunk::<9>()?;
    let length = u32::from_be_bytes([0, a, b, c]) as usize;
    let payload = received.get(9..9 + length)?.to_vec();
    received.advance(9 + length);
    Some(Frame { kind, flags, stream: u32::from_be_bytes([s & 0x7f, t, u, v]), payload })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Those of RFC 7541, appendix C.6, and others.
    #[test]
    fn statuses_are_read_as_they_are_coded() {
        for (block, expected) in [
            (&[0x48, 0x82, 0x64, 0x02, 0x58][..], Some(302)),
            (&[0x48, 0x83, 0x64, 0x0e, 0xff, 0xc1], Some(307)),
            (&[0x20, 0x08, 0x83, 0x6c, 0x0c, 0xff], Some(503)),
            (&[0x88, 0xc1], Some(200)),
            (&[0x20, 0x8d], Some(404)),
            (&[0xbe], None),
            (&[0x48, 0x83, 0xff], None),
            (&[], None),
        ] {
            assert_eq!(status(block), expected, "{block:x?}");
        }
    }

    #[test]
    fn frames_come_in_pieces() {
        let bytes = [frame(kind::PING, ACK, 0, &[7; 8]), frame(kind::DATA, 0, 3, b"hello")].concat();
        let mut received = BytesMut::new();
        let mut frames = Vec::new();
        for byte in bytes {
            received.extend_from_slice(&[byte]);
            frames.extend(first(&mut received));
        }
        let seen: Vec<_> = frames.iter().map(|frame| (frame.kind, frame.stream, frame.payload.len())).collect();
        assert_eq!(seen, [(kind::PING, 0, 8), (kind::DATA, 3, 5)]);
    }
}
