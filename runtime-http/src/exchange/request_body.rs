//! The request body on its way to the guest: bounded in length, in what of it is held, and in the time that its client may take.
//!
//! What is read before the invocation is admitted, and what is read ahead of a guest that does not read yet, is reserved first. A body ends
//! once; whoever has not got it at hand any more sees by its [`BodyStatus`] how.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::{
    body_end::BodyStatusOwner,
    budget::{ClientBudget, Reservation},
    expectation::Expectation,
    pace::BodyWaits,
    read_ahead::{Client, NextFrame, ReadAhead, discard, next_frame},
};
pub use super::{
    body_end::{BodyEnd, BodyError, BodyStatus},
    read_ahead::FRAME,
};

/// What a body is bounded by.
#[derive(Debug, Clone)]
pub struct BodyBounds {
    /// Bytes in all.
    pub length: u64,
    /// How long its client may pause.
    pub pause: Duration,
}

/// A request body.
#[derive(Debug)]
pub struct RequestBody {
    /// What was read ahead, and what is reserved for it.
    ahead: Bytes,
    reserved: Reservation,
    rest: Rest,
    seen: u64,
    limit: u64,
    status: BodyStatusOwner,
}

/// Where the outstanding part comes from.
#[derive(Debug)]
enum Rest {
    /// Read by whoever polls.
    Direct { incoming: Incoming, client: Box<Client> },
    /// Its client waits to be asked for it.
    Expected { expectation: Expectation, left: SizeHint },
    /// Read ahead by a task.
    Ahead(ReadAhead),
    /// Only these are left.
    Trailers(Box<HeaderMap>),
    /// Nothing is outstanding.
    Done,
}

impl RequestBody {
    /// What is read ahead is reserved in `budget`.
    pub fn new(incoming: Incoming, bounds: &BodyBounds, waits: BodyWaits, budget: &ClientBudget) -> Self {
        let limit = bounds.length;
        let rest = if incoming.is_end_stream() {
            Rest::Done
        } else {
            Rest::Direct { incoming, client: Box::new(Client::new(bounds.pause, waits, budget.clone())) }
        };
        let (ahead, reserved, status) = (Bytes::new(), Reservation::default(), BodyStatusOwner::default());
        RequestBody { ahead, reserved, rest, seen: 0, limit, status }
    }

    /// Of a client that waits to be asked for it.
    #[must_use]
    pub fn expected(mut self) -> Self {
        if let Rest::Direct { incoming, client } = std::mem::replace(&mut self.rest, Rest::Done) {
            let left = incoming.size_hint();
            self.rest = Rest::Expected { expectation: Expectation::new(incoming, client, self.status.clone()), left };
        }
        self
    }

    /// That which its client waits for, if nobody has asked for it.
    pub fn expectation(&self) -> Option<Expectation> {
        if let Rest::Expected { expectation, .. } = &self.rest { Some(expectation.clone()) } else { None }
    }

    /// What is reserved for it is given back when it was taken.
    pub fn full(bytes: Bytes, reserved: Reservation) -> Self {
        let (rest, status) = (Rest::Done, BodyStatusOwner::default());
        RequestBody { ahead: bytes, reserved, rest, seen: 0, limit: u64::MAX, status }
    }

    /// The most bytes it may have.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// The next frame of a body that nobody reads ahead yet.
    ///
    /// # Errors
    /// As its status then shows.
    pub async fn frame(&mut self) -> NextFrame {
        if let Rest::Expected { expectation, .. } = &self.rest
            && let Some(body) = expectation.take_unasked()
        {
            self.rest = Rest::Direct { incoming: body.incoming, client: body.client };
        }
        let frame = match &mut self.rest {
            Rest::Direct { incoming, client, .. } => next_frame(incoming, client).await,
            Rest::Expected { .. } | Rest::Ahead(_) | Rest::Trailers(_) | Rest::Done => None,
        };
        self.checked(frame)
    }

    /// Reserves `bytes` more for what is read of a body before it is wanted; `None` if there are none.
    pub fn reserve(&self, bytes: u64) -> Option<Reservation> {
        match &self.rest {
            Rest::Direct { client, .. } => client.reserve(bytes),
            Rest::Expected { .. } | Rest::Ahead(_) | Rest::Trailers(_) | Rest::Done => None,
        }
    }

    /// Puts back what was read first.
    pub fn unread(&mut self, ahead: Bytes, trailers: Option<HeaderMap>, reserved: Reservation) {
        (self.ahead, self.reserved) = (ahead, reserved);
        if let Some(trailers) = trailers {
            self.rest = Rest::Trailers(Box::new(trailers));
        }
    }

    /// Where to see later what became of it.
    pub fn status(&self) -> BodyStatus {
        self.status.clone()
    }

    /// The whole body, if nothing is outstanding.
    pub fn take_buffered(&mut self) -> Option<Bytes> {
        matches!(self.rest, Rest::Done).then(|| std::mem::take(&mut self.ahead))
    }

    /// From now on the body is read ahead by a task, within bounds, whether the function reads or not. For hyper looks at a connection only
    /// while somebody wants its data: otherwise a client that leaves while it sends would not be noticed.
    pub fn read_ahead_from_now(&mut self) {
        match std::mem::replace(&mut self.rest, Rest::Done) {
            Rest::Direct { incoming, client } if !incoming.is_end_stream() => {
                self.rest = Rest::Ahead(ReadAhead::start(incoming, client, self.status.clone(), Poll::Pending));
            }
            Rest::Direct { .. } => {}
            rest @ (Rest::Expected { .. } | Rest::Ahead(_) | Rest::Trailers(_) | Rest::Done) => self.rest = rest,
        }
    }

    /// Counts a frame; after the last one, or an error, nothing is outstanding.
    fn checked(&mut self, frame: NextFrame) -> NextFrame {
        let frame = match frame {
            Some(Ok(frame)) => {
                self.seen += frame.data_ref().map_or(0, Bytes::len) as u64;
                if self.seen <= self.limit {
                    return Some(Ok(frame));
                }
                Some(Err(BodyError::TooLarge { limit: self.limit }))
            }
            other => other,
        };
        if let Some(Err(error)) = &frame {
            self.status.set(error);
        }
        self.let_go();
        frame
    }

    /// Nothing more of it is wanted.
    fn let_go(&mut self) {
        match std::mem::replace(&mut self.rest, Rest::Done) {
            Rest::Direct { incoming, client } if !incoming.is_end_stream() => {
                if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                    runtime.spawn(discard(incoming, client.waits.discard()));
                }
            }
            Rest::Expected { expectation, .. } => expectation.unwanted(),
            // A task that reads ahead sees that its channel is closed.
            Rest::Direct { .. } | Rest::Ahead(_) | Rest::Trailers(_) | Rest::Done => {}
        }
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        self.let_go();
    }
}

impl Rest {
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<NextFrame> {
        match self {
            Rest::Direct { incoming, .. } => {
                Pin::new(incoming).poll_frame(context).map(|frame| frame.map(|frame| frame.map_err(BodyError::Read)))
            }
            Rest::Expected { expectation, .. } => match expectation.read() {
                Some(ahead) => {
                    *self = Rest::Ahead(ahead);
                    self.poll_frame(context)
                }
                // Its answer was sent: nobody is asked for it any more.
                None => Poll::Ready(Some(Err(BodyError::TooSlow))),
            },
            Rest::Ahead(ahead) => ahead.poll_frame(context),
            Rest::Trailers(_) | Rest::Done => match std::mem::replace(self, Rest::Done) {
                Rest::Trailers(trailers) => Poll::Ready(Some(Ok(Frame::trailers(*trailers)))),
                _ => Poll::Ready(None),
            },
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Rest::Direct { incoming, .. } => incoming.size_hint(),
            Rest::Expected { left, .. } => *left,
            Rest::Ahead(ahead) => ahead.left(),
            Rest::Trailers(_) | Rest::Done => SizeHint::with_exact(0),
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<NextFrame> {
        if !self.ahead.is_empty() {
            self.reserved = Reservation::default();
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.ahead)))));
        }
        let frame = std::task::ready!(self.rest.poll_frame(context));
        Poll::Ready(self.checked(frame))
    }

    fn is_end_stream(&self) -> bool {
        let is_done = match &self.rest {
            Rest::Direct { incoming, .. } => incoming.is_end_stream(),
            Rest::Expected { .. } | Rest::Ahead(_) | Rest::Trailers(_) => false,
            Rest::Done => true,
        };
        self.ahead.is_empty() && is_done
    }

    fn size_hint(&self) -> SizeHint {
        let hint = self.rest.size_hint();
        let ahead = self.ahead.len() as u64;
        let mut total = SizeHint::new();
        total.set_lower(hint.lower().saturating_add(ahead));
        if let Some(upper) = hint.upper() {
            total.set_upper(upper.saturating_add(ahead));
        }
        total
    }
}
