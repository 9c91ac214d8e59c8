//! The request body on its way to the guest: read ahead while it is small, streamed with back-pressure when it is not, bounded always.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
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
    exceeded: Exceeded,
}

/// Set once a body turned out to be larger than its limit.
#[derive(Debug, Clone, Default)]
pub struct Exceeded(Arc<AtomicBool>);

impl Exceeded {
    pub fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
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
    pub fn new(ahead: Bytes, rest: Option<Incoming>, limit: u64) -> Self {
        let rest = rest.filter(|rest| !rest.is_end_stream());
        RequestBody { seen: ahead.len() as u64, ahead, rest, limit, exceeded: Exceeded::default() }
    }

    pub fn full(bytes: Bytes) -> Self {
        Self::new(bytes, None, u64::MAX)
    }

    /// Where to see later that the body was larger than its limit.
    pub fn exceeded(&self) -> Exceeded {
        self.exceeded.clone()
    }

    /// The whole body, if nothing is outstanding.
    pub fn into_buffered(self) -> Result<Bytes, Self> {
        if self.rest.is_none() { Ok(self.ahead) } else { Err(self) }
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
                self.exceeded.0.store(true, Ordering::Relaxed);
                self.rest = None;
                return Poll::Ready(Some(Err(BodyError::TooLarge { limit: self.limit })));
            }
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
