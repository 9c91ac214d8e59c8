//! The guest's standard output as the response body.
//!
//! A first part is held back, so that a function that fails still gets its error status. When more comes, or what is held back would be more
//! than the invocation has room for, the response starts and the rest is streamed: at most [`CHUNK`] bytes here and [`CHUNKS_AHEAD`] chunks in the channel, then the guest waits for its client.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use tokio::{io::AsyncWrite, sync::mpsc};
use tokio_util::sync::ReusableBoxFuture;
use wasmtime_wasi::{
    async_trait,
    cli::{IsTerminal, StdoutStream},
    p2::{OutputStream, Pollable, StreamError},
};

use crate::memory::MemoryReservation;

/// What is collected before it is passed on, and the most a guest may write at once.
pub const CHUNK: usize = 64 << 10;
/// Chunks between the guest and a slow client.
pub const CHUNKS_AHEAD: usize = 2;

/// What is held back is at least this, whatever room there is.
const LEAST_BUFFER: usize = CHUNK;
/// Room that is left for what is streamed, and for the invocation's other memory: bytes.
const LEFT: usize = 512 << 10;

/// The memory of the invocation, and the most that it may cost.
pub struct Room {
    pub memory: Arc<MemoryReservation>,
    pub most: u64,
}

/// Starts the response: takes the first bytes and gives the channel for the rest.
pub type Start = Box<dyn FnOnce(Bytes) -> mpsc::Sender<Bytes> + Send>;

/// Standard output of one invocation. Clones and streams write to the same place.
#[derive(Clone)]
pub struct Stdout(Arc<Mutex<State>>);

struct State {
    room: Room,
    buffer: BytesMut,
    sink: Sink,
    written: u64,
    limit: u64,
    limit_exceeded: bool,
}

enum Sink {
    /// Nothing was sent yet; at most `buffer_limit` bytes are held back.
    Buffering {
        buffer_limit: usize,
        start: Start,
    },
    Streaming(mpsc::Sender<Bytes>),
    /// The client left.
    Gone,
}

impl Stdout {
    /// `buffer_limit`: bytes to hold back before the response starts, as far as there is `room`; `limit`: the most bytes in all.
    pub fn new(buffer_limit: usize, limit: u64, room: Room, start: Start) -> Self {
        Stdout(Arc::new(Mutex::new(State {
            room,
            buffer: BytesMut::new(),
            sink: Sink::Buffering { buffer_limit, start },
            written: 0,
            limit,
            limit_exceeded: false,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn limit_exceeded(&self) -> bool {
        self.state().limit_exceeded
    }

    pub fn client_gone(&self) -> bool {
        matches!(self.state().sink, Sink::Gone)
    }

    /// All output, if the response has not started.
    pub fn take_buffered(&self) -> Option<Bytes> {
        let mut state = self.state();
        matches!(state.sink, Sink::Buffering { .. }).then(|| state.buffer.split().freeze())
    }

    /// Passes on what is there, without waiting: the guest pauses, so its client should see what it has written.
    pub fn flush_streamed(&self) {
        self.state().try_send();
    }

    /// Waits until all output of a started response is passed on.
    pub async fn drain(&self) {
        self.send_until(0).await;
    }

    /// Waits until at most `rest` bytes are left here.
    async fn send_until(&self, rest: usize) {
        loop {
            let sender = match &mut *self.state() {
                State { sink: Sink::Streaming(sender), buffer, .. } if buffer.len() > rest => sender.clone(),
                _ => return,
            };
            let permit = sender.reserve_owned().await;
            let mut state = self.state();
            match permit {
                Ok(permit) => drop(permit.send(state.buffer.split().freeze())),
                Err(_) => state.sink = Sink::Gone,
            }
        }
    }
}

impl State {
    fn try_send(&mut self) {
        let Sink::Streaming(sender) = &self.sink else { return };
        if self.buffer.is_empty() {
            return;
        }
        let gone = match sender.try_reserve() {
            Ok(permit) => {
                permit.send(self.buffer.split().freeze());
                false
            }
            Err(mpsc::error::TrySendError::Full(())) => false,
            Err(mpsc::error::TrySendError::Closed(())) => true,
        };
        if gone {
            self.sink = Sink::Gone;
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), StreamError> {
        self.written = self.written.saturating_add(bytes.len() as u64);
        if self.written > self.limit {
            self.limit_exceeded = true;
            return Err(StreamError::trap("output limit exceeded"));
        }
        // Before it is held.
        if !self.has_room(bytes.len()) {
            self.start();
        }
        self.buffer.extend_from_slice(bytes);
        if matches!(self.sink, Sink::Buffering { buffer_limit, .. } if self.buffer.len() > buffer_limit) {
            self.start();
        }
        Ok(())
    }

    /// Starts the response with what is held back, if it has not started.
    fn start(&mut self) {
        match std::mem::replace(&mut self.sink, Sink::Gone) {
            Sink::Buffering { start, .. } => {
                let first = std::mem::take(&mut self.buffer).freeze();
                self.sink = Sink::Streaming(start(first));
            }
            other => self.sink = other,
        }
    }

    /// Whether `bytes` more can be held back: a buffer that is full becomes twice as large.
    fn has_room(&self, bytes: usize) -> bool {
        let (length, capacity) = (self.buffer.len() + bytes, self.buffer.capacity());
        length <= LEAST_BUFFER.max(capacity) || {
            let growth = length.max(2 * capacity) - capacity + LEFT;
            self.room.memory.has_room(growth as u64, self.room.most)
        }
    }

    /// Bytes that may be written now; zero while a slow client is waited for.
    fn room(&mut self) -> Result<usize, StreamError> {
        if self.buffer.len() >= CHUNK {
            self.try_send();
        }
        match self.sink {
            Sink::Gone => Err(StreamError::trap("the client left")),
            Sink::Buffering { .. } => Ok(CHUNK),
            Sink::Streaming(_) if self.buffer.len() < CHUNK => Ok(CHUNK),
            Sink::Streaming(_) => Ok(0),
        }
    }
}

#[async_trait]
impl Pollable for Stdout {
    async fn ready(&mut self) {
        self.send_until(CHUNK - 1).await;
    }
}

#[async_trait]
impl OutputStream for Stdout {
    fn write(&mut self, bytes: Bytes) -> Result<(), StreamError> {
        self.state().write(&bytes)
    }

    /// Nothing to do: what is written is passed on when a chunk is full or the guest pauses.
    fn flush(&mut self) -> Result<(), StreamError> {
        Ok(())
    }

    fn check_write(&mut self) -> Result<usize, StreamError> {
        self.state().room()
    }
}

/// Writes to standard output, for WASI 0.3.
struct Writer {
    stdout: Stdout,
    /// Until there is room: asked once, so that whoever makes room wakes it.
    room: Option<ReusableBoxFuture<'static, ()>>,
}

impl AsyncWrite for Writer {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        loop {
            if let Some(room) = &mut self.room {
                std::task::ready!(room.poll(context));
                self.room = None;
            }
            if self.stdout.state().room().map_err(std::io::Error::other)? > 0 {
                break;
            }
            let stdout = self.stdout.clone();
            self.room = Some(ReusableBoxFuture::new(async move { stdout.send_until(CHUNK - 1).await }));
        }
        let taken = bytes.len().min(CHUNK);
        self.stdout.state().write(&bytes[..taken]).map_err(std::io::Error::other)?;
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl IsTerminal for Stdout {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Stdout {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(Writer { stdout: self.clone(), room: None })
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}
