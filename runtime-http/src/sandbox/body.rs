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

/// A request body of at most `limit` bytes.
#[derive(Debug)]
pub struct RequestBody {
    /// What was read ahead.
    ahead: Bytes,
    rest: Option<Incoming>,
    seen: u64,
    limit: u64,
    fate: BodyFate,
}

/// What became of a body, seen from where it is no longer at hand.
#[derive(Debug, Clone, Default)]
pub struct BodyFate(Arc<Fate>);

#[derive(Debug, Default)]
struct Fate {
    too_large: AtomicBool,
    broken: AtomicBool,
}

impl BodyFate {
    /// It turned out to be larger than its limit.
    pub fn is_too_large(&self) -> bool {
        self.0.too_large.load(Ordering::Relaxed)
    }

    /// It ended before its end.
    pub fn is_broken(&self) -> bool {
        self.0.broken.load(Ordering::Relaxed)
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
        let rest = Some(incoming).filter(|rest| !rest.is_end_stream());
        RequestBody { ahead: Bytes::new(), rest, seen: 0, limit, fate: BodyFate::default() }
    }

    pub fn full(bytes: Bytes) -> Self {
        RequestBody { ahead: bytes, rest: None, seen: 0, limit: u64::MAX, fate: BodyFate::default() }
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
    pub fn fate(&self) -> BodyFate {
        self.fate.clone()
    }

    /// The whole body, if nothing is outstanding.
    pub fn into_buffered(mut self) -> Result<Bytes, Self> {
        if self.rest.is_none() { Ok(std::mem::take(&mut self.ahead)) } else { Err(self) }
    }
}

/// How much of a body that nobody wants is still read, and for how long: closing a connection with unread data in it resets it, and
/// the client, still sending, would lose its answer (RFC 9112, section 9.6).
const DISCARD_BYTES: u64 = 64 << 20;
const DISCARD_TIME: Duration = Duration::from_secs(2);

/// Reads on what is left of a body, to throw it away. The connection's end ends it, too.
fn discard(mut rest: Incoming) {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    if rest.is_end_stream() {
        return;
    }
    runtime.spawn(tokio::time::timeout(DISCARD_TIME, async move {
        let mut discarded = 0;
        while let Some(Ok(frame)) = std::future::poll_fn(|context| Pin::new(&mut rest).poll_frame(context)).await {
            discarded += frame.data_ref().map_or(0, |data| data.len() as u64);
            if discarded > DISCARD_BYTES {
                break;
            }
        }
    }));
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let Some(rest) = self.rest.take() {
            discard(rest);
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
        let frame = std::task::ready!(Pin::new(rest).poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.seen += data.len() as u64;
            if self.seen > self.limit {
                self.fate.0.too_large.store(true, Ordering::Relaxed);
                if let Some(rest) = self.rest.take() {
                    discard(rest);
                }
                return Poll::Ready(Some(Err(BodyError::TooLarge { limit: self.limit })));
            }
        }
        if let Some(Err(_)) = &frame {
            self.fate.0.broken.store(true, Ordering::Relaxed);
        }
        if !matches!(frame, Some(Ok(_))) {
            self.rest = None;
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Read)))
    }

    fn is_end_stream(&self) -> bool {
        self.ahead.is_empty() && self.rest.as_ref().is_none_or(Body::is_end_stream)
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
