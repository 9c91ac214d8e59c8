//! A connection's socket: what is read of heads is reserved before it is read; whether the client takes what is sent, and whether it is still
//! there, is noted.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::retry_on_intr,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf, Take},
    net::TcpStream,
    time::{Sleep, sleep},
};

use super::{
    LARGEST_HEAD,
    activity::Activity,
    preface::{Beginning, REFUSAL},
};
use crate::exchange::budget::{ClientBudget, Reservation};

/// The most that is read at once, and what of a head its connection may hold without asking. A frame of a body is no larger, either.
const READ: u64 = 16 << 10;
/// How often it is asked whether there is memory for more of a head.
const AGAIN: Duration = Duration::from_millis(100);

/// A socket that hyper reads and writes.
pub struct Socket {
    stream: Take<TcpStream>,
    activity: Arc<Activity>,
    heads: ClientBudget,
    /// The request whose head is read now, by its number.
    request: u32,
    /// What was read of that head, and what is reserved for it.
    head: u64,
    reserved: Reservation,
    /// Until it asks again for what there was not.
    again: Option<Pin<Box<Sleep>>>,
    beginning: Beginning,
}

impl Socket {
    pub fn new(stream: TcpStream, activity: Arc<Activity>, heads: ClientBudget) -> Socket {
        Socket {
            stream: stream.take(READ),
            activity,
            heads,
            request: 0,
            head: 0,
            reserved: Reservation::default(),
            again: None,
            beginning: Beginning::default(),
        }
    }

    /// Whether what comes is of a body, or not held.
    fn reads_no_head(&self) -> bool {
        self.activity.in_flight() > 0 || self.activity.bodies.discarding()
    }

    /// How much may be read now.
    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<u64> {
        let request = self.activity.requests();
        let no_head = self.reads_no_head();
        if request != self.request || no_head {
            (self.request, self.head, self.reserved) = (request, 0, Reservation::default());
        }
        if no_head {
            return Poll::Ready(READ);
        }
        // hyper holds no more of a head. What HTTP/2 sends beside it is not held.
        if self.reserved.bytes() >= LARGEST_HEAD as u64 {
            return Poll::Ready(READ);
        }
        while READ + self.reserved.bytes() <= self.head {
            if let Some(again) = &mut self.again {
                ready!(again.as_mut().poll(context));
            }
            let reserved = self.heads.reserve(READ);
            self.again = reserved.is_none().then(|| Box::pin(sleep(AGAIN)));
            self.reserved.add(reserved.unwrap_or_default());
        }
        Poll::Ready((READ + self.reserved.bytes() - self.head).min(READ))
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let room = ready!(self.poll_room(context));
        self.stream.set_limit(room);
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if self.activity.requests() == 0 {
            let this = &mut *self;
            this.beginning.read(&buffer.filled()[before..]);
        }
        let bytes = buffer.filled().len() - before;
        if bytes > 0 {
            self.activity.set_heard();
        }
        if !self.reads_no_head() {
            self.head += bytes as u64;
        }
        read
    }
}

impl Socket {
    /// Whether `bytes` are an answer of HTTP/1 to a client that began as one of HTTP/2.
    fn is_misunderstood(&self, bytes: &[u8]) -> bool {
        self.activity.requests() == 0 && self.beginning.is_http2() && bytes.starts_with(b"HTTP/1.")
    }

    /// Refuses it instead of what has `length` bytes.
    fn poll_refuse(&mut self, context: &mut Context<'_>, length: usize) -> Poll<io::Result<usize>> {
        // A new connection takes some bytes at once, or none.
        ready!(Pin::new(self.stream.get_mut()).poll_write(context, REFUSAL))?;
        Poll::Ready(Ok(length))
    }

    /// Looks whether the client of HTTP/1 whose request is in flight is still there. hyper reads nothing meanwhile, but flushes each time it
    /// is polled.
    fn watch(&self, context: &mut Context<'_>) -> io::Result<()> {
        if self.activity.is_http2() || self.activity.in_flight() == 0 {
            return Ok(());
        }
        let stream = self.stream.get_ref();
        if !self.activity.is_finished() {
            let mut byte = [0];
            let is_end = match stream.poll_peek(context, &mut ReadBuf::new(&mut byte)) {
                Poll::Pending => return Ok(()),
                Poll::Ready(peeked) => peeked? == 0,
            };
            // The end may be behind a body that nobody has asked for.
            if is_end || self.activity.bodies.expecting() && self.has(PollFlags::RDHUP)? {
                self.activity.set_finished();
            }
        }
        // Reading tells no error any more.
        if self.activity.is_finished() && self.has(PollFlags::HUP | PollFlags::ERR)? {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Ok(())
    }

    fn has(&self, flags: PollFlags) -> io::Result<bool> {
        let mut state = [PollFd::new(self.stream.get_ref(), flags)];
        retry_on_intr(|| poll(&mut state, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })))?;
        Ok(state[0].revents().intersects(flags))
    }

    fn noted<T>(&self, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.activity.set_blocked(written.is_pending());
        if written.is_ready() {
            self.activity.set_said();
        }
        written
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_misunderstood(bytes) {
            return self.poll_refuse(context, bytes.len());
        }
        let written = Pin::new(self.stream.get_mut()).poll_write(context, bytes);
        self.noted(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if slices.first().is_some_and(|first| self.is_misunderstood(first)) {
            return self.poll_refuse(context, slices.iter().map(|slice| slice.len()).sum());
        }
        let written = Pin::new(self.stream.get_mut()).poll_write_vectored(context, slices);
        self.noted(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.get_ref().is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.watch(context)?;
        Pin::new(self.stream.get_mut()).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.stream.get_mut()).poll_shutdown(context)
    }
}
