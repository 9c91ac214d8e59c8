//! The request body on its way to the guest: bounded in length, in what of it is held, and in the time that its client may take.
//!
//! What is read before the invocation is admitted, and what is read ahead of a guest that does not read yet, is reserved first. A body ends
//! once; whoever has not got it at hand any more sees by its [`BodyStatus`] how.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::{Notify, mpsc};

pub use super::body_end::{BodyEnd, BodyError, BodyStatus};
use super::{
    budget::{ByteBudget, Reservation},
    pace::{BodyWaits, Discarding, Pace},
};

/// The largest frame that the socket's reads and HTTP/2 give. Each body may hold one without asking.
pub const FRAME: u64 = 16 << 10;
/// Frames read ahead of a guest that does not read yet.
const FRAMES_AHEAD: usize = 16;

/// What a body is bounded by.
#[derive(Debug, Clone)]
pub struct BodyBounds {
    /// Bytes in all.
    pub length: u64,
    /// How long its client may pause.
    pub pause: Duration,
    /// What is read ahead is reserved here.
    pub budget: ByteBudget,
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
    status: BodyStatus,
}

/// Who sends it, how slowly, and from where memory is reserved for it.
#[derive(Debug)]
struct Client {
    pace: Pace,
    waits: BodyWaits,
    budget: ByteBudget,
}

/// Where the outstanding part comes from.
#[derive(Debug)]
enum Rest {
    /// Read by whoever polls.
    Direct { incoming: Incoming, client: Box<Client> },
    /// Read ahead by a task.
    Ahead { frames: mpsc::Receiver<Ahead>, taken: Arc<Notify>, left: SizeHint },
    /// Only these are left.
    Trailers(Box<HeaderMap>),
    /// Nothing is outstanding.
    Done,
}

#[derive(Debug)]
struct Ahead {
    frame: Result<Frame<Bytes>, BodyError>,
    _reserved: Reservation,
}

type NextFrame = Option<Result<Frame<Bytes>, BodyError>>;

/// The next frame, in good time.
async fn next_frame(incoming: &mut Incoming, client: &mut Client) -> NextFrame {
    let mut next = std::pin::pin!(std::future::poll_fn(|context| Pin::new(&mut *incoming).poll_frame(context)));
    // Mostly it is there, and needs no timer.
    let (frame, waited) = match futures_util::poll!(&mut next) {
        Poll::Ready(frame) => (frame, Duration::ZERO),
        Poll::Pending => {
            let since = Instant::now();
            let _waiting = client.waits.begin();
            match tokio::time::timeout(client.pace.patience(), next).await {
                Ok(frame) => (frame, since.elapsed()),
                Err(_) => return Some(Err(BodyError::TooSlow)),
            }
        }
    };
    if let Some(Ok(frame)) = &frame {
        client.pace.received(frame.data_ref().map_or(0, Bytes::len), waited);
    }
    frame.map(|frame| frame.map_err(BodyError::Read))
}

impl RequestBody {
    pub fn new(incoming: Incoming, bounds: &BodyBounds, waits: BodyWaits) -> Self {
        let limit = bounds.length;
        let rest = if incoming.is_end_stream() {
            Rest::Done
        } else {
            Rest::Direct {
                incoming,
                client: Box::new(Client { pace: Pace::new(bounds.pause), waits, budget: bounds.budget.clone() }),
            }
        };
        let (ahead, reserved, status) = (Bytes::new(), Reservation::default(), BodyStatus::default());
        RequestBody { ahead, reserved, rest, seen: 0, limit, status }
    }

    /// What is reserved for it is given back when it was taken.
    pub fn full(bytes: Bytes, reserved: Reservation) -> Self {
        let (rest, status) = (Rest::Done, BodyStatus::default());
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
        let frame = match &mut self.rest {
            Rest::Direct { incoming, client, .. } => next_frame(incoming, client).await,
            Rest::Ahead { .. } | Rest::Trailers(_) | Rest::Done => None,
        };
        self.checked(frame)
    }

    /// Reserves `bytes` more for what is read of a body before it is wanted; `None` if there are none.
    pub fn reserve(&self, bytes: u64) -> Option<Reservation> {
        match &self.rest {
            Rest::Direct { client, .. } => client.budget.reserve(bytes),
            Rest::Ahead { .. } | Rest::Trailers(_) | Rest::Done => None,
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
    pub fn into_buffered(mut self) -> Result<Bytes, Self> {
        if matches!(self.rest, Rest::Done) { Ok(std::mem::take(&mut self.ahead)) } else { Err(self) }
    }

    /// From now on the body is read ahead by a task, within bounds, whether the function reads or not. For hyper looks at a connection only
    /// while somebody wants its data: otherwise a client that leaves while it sends would not be noticed.
    pub fn read_ahead_from_now(&mut self) {
        match std::mem::replace(&mut self.rest, Rest::Done) {
            Rest::Direct { incoming, client } if !incoming.is_end_stream() => {
                let left = incoming.size_hint();
                let (sender, frames) = mpsc::channel(FRAMES_AHEAD);
                let taken = Arc::new(Notify::new());
                let reading = read_ahead(incoming, client, sender, taken.clone(), self.status.clone());
                // It ends with the body, or with the connection, or soon after nobody wants the body any more.
                tokio::spawn(reading);
                self.rest = Rest::Ahead { frames, taken, left };
            }
            Rest::Direct { .. } => {}
            rest @ (Rest::Ahead { .. } | Rest::Trailers(_) | Rest::Done) => self.rest = rest,
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
        // A task that reads ahead sees that its channel is closed.
        if let Rest::Direct { incoming, client } = std::mem::replace(&mut self.rest, Rest::Done)
            && !incoming.is_end_stream()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(discard(incoming, client.waits.discard()));
        }
    }
}

/// Reads ahead of the guest: one frame, and further ones as far as there is memory for them.
async fn read_ahead(
    mut incoming: Incoming,
    mut client: Box<Client>,
    sender: mpsc::Sender<Ahead>,
    taken: Arc<Notify>,
    status: BodyStatus,
) {
    loop {
        let reserved = if sender.capacity() == sender.max_capacity() {
            Reservation::default()
        } else if let Some(reserved) = client.budget.reserve(FRAME) {
            reserved
        } else {
            tokio::select! {
                () = taken.notified() => continue,
                () = sender.closed() => return discard(incoming, client.waits.discard()).await,
            }
        };
        // Before the next one is read: while the guest does not read, its client is not waited for.
        let place = tokio::select! {
            place = sender.reserve() => place,
            () = sender.closed() => return discard(incoming, client.waits.discard()).await,
        };
        let Ok(place) = place else { return discard(incoming, client.waits.discard()).await };
        let frame = tokio::select! {
            frame = next_frame(&mut incoming, &mut client) => frame,
            () = sender.closed() => return discard(incoming, client.waits.discard()).await,
        };
        let Some(frame) = frame else { return };
        let is_last = frame.is_err();
        if let Err(error) = &frame {
            status.set(error);
        }
        place.send(Ahead { frame, _reserved: reserved });
        if is_last {
            return;
        }
    }
}

/// How much of a body that nobody wants is still read, and for how long: closing a connection with unread data in it resets it, and
/// the client, still sending, would lose its answer (RFC 9112, section 9.6).
const DISCARD_BYTES: u64 = 64 << 20;
const DISCARD_TIME: Duration = Duration::from_secs(2);

/// Reads on what is left of a body, to throw it away. The connection's end ends it, too.
async fn discard(mut rest: Incoming, _noted: Discarding) {
    let reading = async {
        let mut discarded = 0;
        while let Some(Ok(frame)) = std::future::poll_fn(|context| Pin::new(&mut rest).poll_frame(context)).await {
            discarded += frame.data_ref().map_or(0, Bytes::len) as u64;
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
        self.let_go();
    }
}

impl Rest {
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<NextFrame> {
        match self {
            Rest::Direct { incoming, .. } => {
                Pin::new(incoming).poll_frame(context).map(|frame| frame.map(|frame| frame.map_err(BodyError::Read)))
            }
            Rest::Ahead { frames, taken, left } => {
                let ahead = std::task::ready!(frames.poll_recv(context));
                taken.notify_one();
                let frame = ahead.map(|ahead| ahead.frame);
                if let Some(Ok(frame)) = &frame
                    && let Some(data) = frame.data_ref()
                    && let Some(exact) = left.exact()
                {
                    *left = SizeHint::with_exact(exact.saturating_sub(data.len() as u64));
                }
                Poll::Ready(frame)
            }
            Rest::Trailers(_) | Rest::Done => match std::mem::replace(self, Rest::Done) {
                Rest::Trailers(trailers) => Poll::Ready(Some(Ok(Frame::trailers(*trailers)))),
                _ => Poll::Ready(None),
            },
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Rest::Direct { incoming, .. } => incoming.size_hint(),
            Rest::Ahead { left, .. } => *left,
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
            Rest::Ahead { .. } | Rest::Trailers(_) => false,
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
