//! The request body on its way to the guest: read ahead while it is small, streamed with back-pressure when it is not, bounded always.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::{Notify, mpsc};

/// A request body of at most `limit` bytes.
#[derive(Debug)]
pub struct RequestBody {
    /// What was read ahead.
    ahead: Bytes,
    rest: Option<Rest>,
    seen: u64,
    limit: u64,
    status: BodyStatus,
}

/// What became of a body, seen from where it is no longer at hand.
#[derive(Debug, Clone, Default)]
pub struct BodyStatus(Arc<Status>);

#[derive(Debug, Default)]
struct Status {
    too_large: AtomicBool,
    broken: AtomicBool,
    noticed: Notify,
}

impl BodyStatus {
    /// It turned out to be larger than its limit.
    pub fn is_too_large(&self) -> bool {
        self.0.too_large.load(Ordering::Relaxed)
    }

    /// It ended before its end.
    pub fn is_broken(&self) -> bool {
        self.0.broken.load(Ordering::Relaxed)
    }

    fn set_broken(&self) {
        self.0.broken.store(true, Ordering::Relaxed);
        self.0.noticed.notify_waiters();
    }

    /// Returns when the body has broken off.
    pub async fn broken(&self) {
        let mut noticed = std::pin::pin!(self.0.noticed.notified());
        noticed.as_mut().enable();
        if !self.is_broken() {
            noticed.await;
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("the request body is larger than {limit} bytes")]
    TooLarge { limit: u64 },
    #[error("the request body could not be read: {0}")]
    Read(#[from] hyper::Error),
}

impl From<BodyError> for wasmtime_wasi_http::Error {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::TooLarge { .. } => wasmtime_wasi_http::Error::HttpRequestBodySize(None),
            BodyError::Read(_) => wasmtime_wasi_http::Error::ConnectionTerminated,
        }
    }
}

impl RequestBody {
    pub fn new(incoming: Incoming, limit: u64) -> Self {
        let rest = Some(incoming).filter(|rest| !rest.is_end_stream()).map(Rest::Direct);
        RequestBody { ahead: Bytes::new(), rest, seen: 0, limit, status: BodyStatus::default() }
    }

    pub fn full(bytes: Bytes) -> Self {
        RequestBody { ahead: bytes, rest: None, seen: 0, limit: u64::MAX, status: BodyStatus::default() }
    }

    /// The most bytes it may have.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Puts back what was read first.
    pub fn unread(&mut self, ahead: Bytes) {
        self.ahead = ahead;
    }

    /// Where to see later what became of it.
    pub fn status(&self) -> BodyStatus {
        self.status.clone()
    }

    /// The whole body, if nothing is outstanding.
    pub fn into_buffered(mut self) -> Result<Bytes, Self> {
        if self.rest.is_none() { Ok(std::mem::take(&mut self.ahead)) } else { Err(self) }
    }
}

/// Where the outstanding part of a body comes from.
#[derive(Debug)]
enum Rest {
    Direct(Incoming),
    Pumped { frames: mpsc::Receiver<Result<Frame<Bytes>, hyper::Error>>, left: SizeHint },
}

/// Frames read ahead of a function that does not read yet; each has at most some ten KiB.
const FRAMES_AHEAD: usize = 16;

impl RequestBody {
    /// From now on the body is read ahead by a task, within bounds, whether the function reads or not. For hyper looks at a connection only
    /// while somebody wants its data: otherwise a client that leaves while it sends would not be noticed.
    pub fn read_ahead_from_now(&mut self) {
        let Some(Rest::Direct(mut incoming)) = self.rest.take() else { return };
        if incoming.is_end_stream() {
            return;
        }
        let left = incoming.size_hint();
        let (sender, frames) = mpsc::channel(FRAMES_AHEAD);
        let status = self.status.clone();
        // It ends with the body, or with the connection, or soon after nobody wants the body any more.
        tokio::spawn(async move {
            loop {
                let next = std::future::poll_fn(|context| Pin::new(&mut incoming).poll_frame(context));
                let frame = tokio::select! {
                    frame = next => frame,
                    () = sender.closed() => return discard(incoming).await,
                };
                let Some(frame) = frame else { return };
                let is_error = frame.is_err();
                if is_error {
                    status.set_broken();
                }
                if sender.send(frame).await.is_err() && !is_error {
                    return discard(incoming).await;
                }
                if is_error {
                    return;
                }
            }
        });
        self.rest = Some(Rest::Pumped { frames, left });
    }
}

/// How much of a body that nobody wants is still read, and for how long: closing a connection with unread data in it resets it, and
/// the client, still sending, would lose its answer (RFC 9112, section 9.6).
const DISCARD_BYTES: u64 = 64 << 20;
const DISCARD_TIME: Duration = Duration::from_secs(2);

/// Reads on what is left of a body, to throw it away. The connection's end ends it, too.
async fn discard(mut rest: Incoming) {
    let reading = async {
        let mut discarded = 0;
        while let Some(Ok(frame)) = std::future::poll_fn(|context| Pin::new(&mut rest).poll_frame(context)).await {
            discarded += frame.data_ref().map_or(0, |data| data.len() as u64);
            if discarded > DISCARD_BYTES {
                break;
            }
        }
    };
    // After that time the client has to live with a reset.
    let _ = tokio::time::timeout(DISCARD_TIME, reading).await;
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        // A pumped body's task sees that its channel is closed.
        if let Some(Rest::Direct(rest)) = self.rest.take()
            && !rest.is_end_stream()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(discard(rest));
        }
    }
}

impl Rest {
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self {
            Rest::Direct(incoming) => Pin::new(incoming).poll_frame(context),
            Rest::Pumped { frames, left } => {
                let frame = std::task::ready!(frames.poll_recv(context));
                if let Some(Ok(frame)) = &frame
                    && let Some(data) = frame.data_ref()
                    && let Some(exact) = left.exact()
                {
                    *left = SizeHint::with_exact(exact.saturating_sub(data.len() as u64));
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Rest::Direct(incoming) => incoming.is_end_stream(),
            Rest::Pumped { .. } => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Rest::Direct(incoming) => incoming.size_hint(),
            Rest::Pumped { left, .. } => *left,
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if !self.ahead.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.ahead)))));
        }
        let Some(rest) = &mut self.rest else { return Poll::Ready(None) };
        let frame = std::task::ready!(rest.poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.seen += data.len() as u64;
            if self.seen > self.limit {
                self.status.0.too_large.store(true, Ordering::Relaxed);
                return Poll::Ready(Some(Err(BodyError::TooLarge { limit: self.limit })));
            }
        }
        if let Some(Err(_)) = &frame {
            self.status.set_broken();
        }
        if !matches!(frame, Some(Ok(_))) {
            self.rest = None;
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Read)))
    }

    fn is_end_stream(&self) -> bool {
        self.ahead.is_empty() && self.rest.as_ref().is_none_or(Rest::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.rest {
            None => SizeHint::with_exact(self.ahead.len() as u64),
            Some(rest) => {
                let hint = rest.size_hint();
                let ahead = self.ahead.len() as u64;
                let mut total = SizeHint::new();
                total.set_lower(hint.lower().saturating_add(ahead));
                if let Some(upper) = hint.upper() {
                    total.set_upper(upper.saturating_add(ahead));
                }
                total
            }
        }
    }
}
