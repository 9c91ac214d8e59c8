//! An answer on its way to the socket.
//!
//! HTTP/1 sends one answer at a time: whether it is read shows at the socket. Answers of HTTP/2 have windows of their own, so one may be left
//! unread beside others that are read. Such an answer is let go of; the connection, which may carry other clients' requests, stays.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::activity::InFlight;
use crate::exchange::{
    budget::Reservation,
    response_body::{Aborted, ResponseBody},
};

/// What h2 is given at once: it keeps that while the client opens no window.
const PIECE: usize = 16 << 10;

#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    #[error("the client does not read its answer")]
    Unread,
    #[error(transparent)]
    Aborted(#[from] Aborted),
}

/// The body of an answer, with what its request holds of its connection.
pub struct Delivery {
    source: Source,
    /// Given back after the body: the fields are dropped in this order.
    _reserved: Reservation,
    in_flight: InFlight,
}

enum Source {
    Http1(ResponseBody),
    Http2(Arc<Mutex<Stream>>),
}

/// An answer on HTTP/2.
pub struct Stream {
    /// `None` when it was let go of.
    body: Option<ResponseBody>,
    /// What is left of a frame that was given out in pieces.
    rest: Bytes,
    /// Whether it is the body that is waited for, not the client.
    pending: bool,
    /// When the last piece was taken, as [`super::activity::Activity::now`].
    taken: u64,
}

impl Stream {
    /// Whether nobody reads it. If nothing was taken for `patience` milliseconds, all of it is let go of.
    pub fn end_if_unread(&mut self, now: u64, patience: u64) -> bool {
        if self.body.is_some() && !self.pending && now.saturating_sub(self.taken) >= patience {
            self.body = None;
            self.rest = Bytes::new();
        }
        self.body.is_none()
    }

    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, DeliveryError>>> {
        if !self.rest.is_empty() {
            return Poll::Ready(Some(Ok(self.piece())));
        }
        let Some(body) = &mut self.body else { return Poll::Ready(Some(Err(DeliveryError::Unread))) };
        let frame = Pin::new(body).poll_frame(context);
        self.pending = frame.is_pending();
        match std::task::ready!(frame) {
            Some(Ok(frame)) => Poll::Ready(Some(Ok(match frame.into_data() {
                Ok(data) => {
                    self.rest = data;
                    self.piece()
                }
                Err(other) => other,
            }))),
            Some(Err(error)) => Poll::Ready(Some(Err(error.into()))),
            None => Poll::Ready(None),
        }
    }

    fn piece(&mut self) -> Frame<Bytes> {
        Frame::data(self.rest.split_to(PIECE.min(self.rest.len())))
    }
}

impl Delivery {
    pub fn http1(body: ResponseBody, reserved: Reservation, in_flight: InFlight) -> Delivery {
        Delivery { source: Source::Http1(body), _reserved: reserved, in_flight }
    }

    pub fn http2(body: ResponseBody, reserved: Reservation, in_flight: InFlight) -> Delivery {
        let taken = in_flight.activity().now();
        let stream = Stream { body: Some(body), rest: Bytes::new(), pending: false, taken };
        let stream = Arc::new(Mutex::new(stream));
        in_flight.activity().watch(&stream);
        Delivery { source: Source::Http2(stream), _reserved: reserved, in_flight }
    }
}

impl Body for Delivery {
    type Data = Bytes;
    type Error = DeliveryError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, DeliveryError>>> {
        let this = &mut *self;
        match &mut this.source {
            Source::Http1(body) => Pin::new(body).poll_frame(context).map(|frame| frame.map(|frame| Ok(frame?))),
            Source::Http2(stream) => {
                let mut stream = stream.lock().unwrap_or_else(PoisonError::into_inner);
                stream.taken = this.in_flight.activity().now();
                stream.poll_frame(context)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Http1(body) => body.is_end_stream(),
            Source::Http2(stream) => {
                let stream = stream.lock().unwrap_or_else(PoisonError::into_inner);
                stream.rest.is_empty() && stream.body.as_ref().is_some_and(Body::is_end_stream)
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Http1(body) => body.size_hint(),
            Source::Http2(stream) => {
                let stream = stream.lock().unwrap_or_else(PoisonError::into_inner);
                let rest = stream.rest.len() as u64;
                let hint = stream.body.as_ref().map(Body::size_hint).unwrap_or_default();
                let mut all = SizeHint::new();
                all.set_lower(hint.lower() + rest);
                if let Some(upper) = hint.upper() {
                    all.set_upper(upper + rest);
                }
                all
            }
        }
    }
}
