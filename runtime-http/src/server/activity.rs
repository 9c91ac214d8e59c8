//! What a connection does, and when it has done nothing for too long.
//!
//! hyper has a timer for heads of HTTP/1 alone, which starts after the version is known. So the box looks at connections itself: what is
//! begun and ended is noted here, and [`super::patience`] decides, without a clock, what becomes of the connection.

use std::{
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering},
    },
    task::Waker,
    time::{Duration, Instant},
};

use futures_util::task::AtomicWaker;

use super::{
    delivery::Stream,
    patience::{Observed, Order, PROMPT, Sending, Step, Timeouts},
};
use crate::exchange::pace::BodyWaits;

/// What kind of connection goes first when there are too many: the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Idle {
    /// All its requests wait for the rest of their bodies.
    Unfinished,
    /// Between requests.
    Unused,
    /// There never was one.
    Silent,
    /// It has its answer, and still sends a body that nobody wants.
    Discarding,
}

/// What a connection's task, its requests and the server share. It is on one thread at a time, but for the orders.
#[derive(Debug)]
pub struct Activity {
    accepted: Instant,
    order: AtomicU8,
    /// Milliseconds after `accepted`, as the following.
    ordered: AtomicU64,
    in_flight: AtomicU32,
    /// Requests so far.
    requests: AtomicU32,
    idle_since: AtomicU64,
    /// [`NEVER`] while the client takes what is sent.
    blocked_since: AtomicU64,
    is_http2: AtomicBool,
    /// When bytes came last, and when the last request's head did, or bytes were sent.
    heard: AtomicU64,
    said: AtomicU64,
    /// [`NEVER`] while the client may send more.
    finished: AtomicU64,
    /// Whether that was the end of its request, rather than of its interest in the answer.
    is_half_closed: AtomicBool,
    /// Whether something of this was noted that nobody has looked at.
    has_news: AtomicBool,
    /// Bodies that are waited for.
    pub bodies: BodyWaits,
    streams: Mutex<Vec<Weak<Mutex<Stream>>>>,
    task: AtomicWaker,
}

const NEVER: u64 = u64::MAX;

impl Activity {
    pub fn new() -> Arc<Activity> {
        Arc::new(Activity {
            accepted: Instant::now(),
            order: AtomicU8::new(Order::Serve as u8),
            ordered: AtomicU64::new(0),
            in_flight: AtomicU32::new(0),
            requests: AtomicU32::new(0),
            idle_since: AtomicU64::new(0),
            blocked_since: AtomicU64::new(NEVER),
            is_http2: AtomicBool::new(false),
            heard: AtomicU64::new(0),
            said: AtomicU64::new(0),
            finished: AtomicU64::new(NEVER),
            is_half_closed: AtomicBool::new(false),
            has_news: AtomicBool::new(false),
            bodies: BodyWaits::default(),
            streams: Mutex::default(),
            task: AtomicWaker::new(),
        })
    }

    /// Milliseconds since the connection was accepted.
    pub fn now(&self) -> u64 {
        u64::try_from(self.accepted.elapsed().as_millis()).unwrap_or(NEVER - 1)
    }

    fn observed(&self) -> Observed {
        let blocked = self.blocked_since.load(Ordering::Relaxed);
        Observed {
            now: Duration::from_millis(self.now()),
            order: self.order(),
            ordered: Duration::from_millis(self.ordered.load(Ordering::Relaxed)),
            in_flight: self.in_flight.load(Ordering::Acquire),
            bodies_waiting: self.bodies.waiting().0,
            discarding: self.is_discarding(),
            served: self.requests() > 0,
            idle_since: Duration::from_millis(self.idle_since.load(Ordering::Relaxed)),
            blocked_since: (blocked != NEVER).then(|| Duration::from_millis(blocked)),
            sending: self.sending(),
        }
    }

    fn sending(&self) -> Sending {
        let finished = self.finished.load(Ordering::Relaxed);
        if self.is_http2() || self.in_flight() == 0 {
            Sending::Open
        } else if finished == NEVER {
            if self.bodies.expecting() { Sending::Expects } else { Sending::Open }
        } else if !self.is_half_closed.load(Ordering::Relaxed) {
            Sending::Left
        } else {
            Sending::HalfClosed(Duration::from_millis(finished.max(self.said.load(Ordering::Relaxed))))
        }
    }

    /// Bytes came.
    pub fn set_heard(&self) {
        self.heard.store(self.now(), Ordering::Relaxed);
    }

    /// The client sends nothing more, while its request is in flight.
    pub fn set_finished(&self) {
        if !self.is_finished() {
            let now = self.now();
            let silent = Duration::from_millis(now.saturating_sub(self.heard.load(Ordering::Relaxed)));
            self.is_half_closed.store(silent <= PROMPT && !self.bodies.expecting(), Ordering::Relaxed);
            self.finished.store(now, Ordering::Relaxed);
            self.has_news.store(true, Ordering::Relaxed);
        }
    }

    pub fn is_finished(&self) -> bool {
        self.finished.load(Ordering::Relaxed) != NEVER
    }

    /// Bytes were sent.
    pub fn set_said(&self) {
        self.said.store(self.now(), Ordering::Relaxed);
    }

    /// Whether it has to be looked at sooner than it was to be.
    pub fn take_news(&self) -> bool {
        self.has_news.swap(false, Ordering::Relaxed)
    }

    /// What becomes of the connection now.
    pub fn step(&self, timeouts: &Timeouts) -> Step {
        let mut observed = self.observed();
        if observed.in_flight > 0 && self.is_http2() {
            let unread = self.end_unread_streams(timeouts.send);
            // Nobody reads anything here since the last request ended.
            if unread >= observed.in_flight {
                let idle_since = observed.idle_since;
                observed.blocked_since = Some(observed.blocked_since.map_or(idle_since, |since| since.min(idle_since)));
            }
        }
        observed.step(timeouts)
    }

    /// Lets go of answers that HTTP/2's windows have held up for too long. Gives how many there are.
    fn end_unread_streams(&self, patience: Duration) -> u32 {
        let patience = u64::try_from(patience.as_millis()).unwrap_or(NEVER);
        let now = self.now();
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.retain(|stream| stream.strong_count() > 0);
        let unread = streams
            .iter()
            .filter_map(Weak::upgrade)
            .filter(|stream| stream.lock().unwrap_or_else(PoisonError::into_inner).end_if_unread(now, patience));
        u32::try_from(unread.count()).unwrap_or(u32::MAX)
    }

    /// Whether nothing but a body that nobody wants keeps it. On HTTP/2 the streams beside it need not suffer for that.
    fn is_discarding(&self) -> bool {
        !self.is_http2() && self.bodies.discarding()
    }

    pub fn is_http2(&self) -> bool {
        self.is_http2.load(Ordering::Relaxed)
    }

    /// An answer on HTTP/2, which its client may leave unread while it reads others.
    pub fn watch(&self, stream: &Arc<Mutex<Stream>>) {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        if streams.len() == streams.capacity() {
            streams.retain(|stream| stream.strong_count() > 0);
        }
        streams.push(Arc::downgrade(stream));
    }

    pub fn order(&self) -> Order {
        match self.order.load(Ordering::Acquire) {
            0 => Order::Serve,
            1 => Order::Drain,
            2 => Order::Close,
            _ => Order::End,
        }
    }

    /// Tells the connection's task what to do from now on.
    pub fn set_order(&self, order: Order) {
        self.ordered.store(self.now(), Ordering::Relaxed);
        self.order.fetch_max(order as u8, Ordering::AcqRel);
        self.task.wake();
    }

    /// `waker` is woken by the next order.
    pub fn register(&self, waker: &Waker) {
        self.task.register(waker);
    }

    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Acquire)
    }

    pub fn requests(&self) -> u32 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Whether and for how long it keeps a place without using it; `None` if it is busy.
    pub fn idle(&self) -> Option<(Idle, Duration)> {
        let observed = self.observed();
        if observed.order >= Order::Close || observed.blocked_since.is_some() {
            return None;
        }
        if observed.in_flight == 0 {
            let kind = match (observed.discarding, observed.served) {
                (true, _) => Idle::Discarding,
                (false, true) => Idle::Unused,
                (false, false) => Idle::Silent,
            };
            return Some((kind, observed.now.saturating_sub(observed.idle_since)));
        }
        let (waiting, time) = self.bodies.waiting();
        (waiting >= observed.in_flight).then_some((Idle::Unfinished, time))
    }

    /// A request's head is complete. It is in flight until what is returned is dropped.
    pub fn begin(self: &Arc<Self>, is_http2: bool) -> InFlight {
        self.is_http2.store(is_http2, Ordering::Relaxed);
        self.set_said();
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        InFlight(self.clone())
    }

    /// Whether the socket takes what is sent.
    pub fn set_blocked(&self, blocked: bool) {
        let is_noted = self.blocked_since.load(Ordering::Relaxed) != NEVER;
        if blocked != is_noted {
            self.blocked_since.store(if blocked { self.now() } else { NEVER }, Ordering::Relaxed);
        }
    }
}

/// A request whose answer is not sent.
#[derive(Debug)]
pub struct InFlight(Arc<Activity>);

impl InFlight {
    pub fn activity(&self) -> &Arc<Activity> {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.idle_since.store(self.0.now(), Ordering::Relaxed);
        self.0.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whether_the_client_waits_for_its_answer() {
        let activity = Activity::new();
        let request = activity.begin(false);
        assert_eq!(activity.observed().sending, Sending::Open);
        activity.set_heard();
        activity.set_finished();
        assert!(activity.take_news() && !activity.take_news());
        assert!(matches!(activity.observed().sending, Sending::HalfClosed(_)));
        // One that was sent behind it.
        drop(request);
        assert_eq!(activity.observed().sending, Sending::Open);
        let _request = activity.begin(false);
        assert!(matches!(activity.observed().sending, Sending::HalfClosed(_)));
        let unasked = Activity::new();
        let _request = unasked.begin(false);
        let expecting = unasked.bodies.expect();
        assert_eq!(unasked.observed().sending, Sending::Expects);
        unasked.set_finished();
        drop(expecting);
        assert_eq!(unasked.observed().sending, Sending::Left, "its request was not whole");
    }

    #[test]
    fn what_is_noted() {
        let activity = Activity::new();
        assert_eq!(activity.idle().map(|(kind, _)| kind), Some(Idle::Silent));
        let request = activity.begin(false);
        assert_eq!((activity.in_flight(), activity.idle()), (1, None));
        let waiting = activity.bodies.begin();
        assert_eq!(activity.idle().map(|(kind, _)| kind), Some(Idle::Unfinished));
        drop(waiting);
        assert_eq!(activity.idle(), None);
        drop(request);
        assert_eq!(activity.idle().map(|(kind, _)| kind), Some(Idle::Unused));
        let discarding = activity.bodies.discard();
        assert_eq!(activity.idle().map(|(kind, _)| kind), Some(Idle::Discarding));
        drop(discarding);
        activity.set_blocked(true);
        assert!(activity.observed().blocked_since.is_some());
        activity.set_blocked(false);
        assert_eq!(activity.observed().blocked_since, None);
        activity.set_order(Order::Close);
        activity.set_order(Order::Drain);
        assert_eq!(activity.order(), Order::Close, "it stays so");
    }
}
