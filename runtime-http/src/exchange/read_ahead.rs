//! What is read of a request's body ahead of its guest, by a task, and how it is read to no purpose but that its client gets the answer.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::{Notify, mpsc};

use super::{
    body_end::{BodyError, BodyStatus},
    budget::{ClientBudget, Reservation},
    pace::{BodyWaits, Discarding, Pace},
};

/// The largest frame that the socket's reads and HTTP/2 give. Each body may hold one without asking.
pub const FRAME: u64 = 16 << 10;
/// Frames read ahead of a guest that does not read yet.
const FRAMES_AHEAD: usize = 16;

pub(super) type NextFrame = Option<Result<Frame<Bytes>, BodyError>>;

/// Who sends it, how slowly, and from where memory is reserved for it.
#[derive(Debug)]
pub(super) struct Client {
    pace: Pace,
    pub(super) waits: BodyWaits,
    budget: ClientBudget,
}

impl Client {
    /// `pause`: how long it may send nothing.
    pub fn new(pause: Duration, waits: BodyWaits, budget: ClientBudget) -> Client {
        Client { pace: Pace::new(pause), waits, budget }
    }

    pub fn reserve(&self, bytes: u64) -> Option<Reservation> {
        self.budget.reserve(bytes)
    }
}

/// The next frame, in good time.
pub(super) async fn next_frame(incoming: &mut Incoming, client: &mut Client) -> NextFrame {
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

/// What a task reads ahead.
#[derive(Debug)]
pub(super) struct ReadAhead {
    frames: mpsc::Receiver<Ahead>,
    taken: Arc<Notify>,
    left: SizeHint,
}

#[derive(Debug)]
struct Ahead {
    frame: Result<Frame<Bytes>, BodyError>,
    _reserved: Reservation,
}

impl ReadAhead {
    /// Starts the task, with what was polled of the body already.
    pub(super) fn start(
        incoming: Incoming,
        client: Box<Client>,
        status: BodyStatus,
        first: Poll<Option<Result<Frame<Bytes>, hyper::Error>>>,
    ) -> ReadAhead {
        let left = incoming.size_hint();
        let (sender, frames) = mpsc::channel(FRAMES_AHEAD);
        let taken = Arc::new(Notify::new());
        let first = first.map(|frame| frame.map(|frame| frame.map_err(BodyError::Read)));
        // It ends with the body, or with the connection, or soon after nobody wants the body any more.
        tokio::spawn(read_ahead(first, incoming, client, sender, taken.clone(), status));
        ReadAhead { frames, taken, left }
    }

    /// What is left of it.
    pub fn left(&self) -> SizeHint {
        self.left
    }

    pub fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<NextFrame> {
        let ahead = ready!(self.frames.poll_recv(context));
        self.taken.notify_one();
        let frame = ahead.map(|ahead| ahead.frame);
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
            && let Some(exact) = self.left.exact()
        {
            self.left = SizeHint::with_exact(exact.saturating_sub(data.len() as u64));
        }
        Poll::Ready(frame)
    }
}

/// Reads ahead of the guest: one frame, and further ones as far as there is memory for them.
async fn read_ahead(
    mut first: Poll<NextFrame>,
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
        let frame = match std::mem::replace(&mut first, Poll::Pending) {
            Poll::Ready(frame) => frame,
            Poll::Pending => tokio::select! {
                frame = next_frame(&mut incoming, &mut client) => frame,
                () = sender.closed() => return discard(incoming, client.waits.discard()).await,
            },
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
pub(super) async fn discard(mut rest: Incoming, _noted: Discarding) {
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
