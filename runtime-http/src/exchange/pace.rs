//! How slowly a client may send a body.
//!
//! Only time in which the box waits for the client counts: a function that does not read keeps its client from sending.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

/// Bytes that earn a second: less than any client that wants to send. Apache's `RequestReadTimeout` has the same.
const RATE: u64 = 500;

/// The time that is left to a client.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// For the next bytes.
    pause: Duration,
    waited: Duration,
    received: u64,
}

impl Pace {
    /// `pause`: how long it may send nothing; also how long it may be slower than the rate.
    pub fn new(pause: Duration) -> Pace {
        Pace { pause, waited: Duration::ZERO, received: 0 }
    }

    /// How long to wait for the next bytes.
    pub fn patience(&self) -> Duration {
        let earned = self.pause + Duration::from_secs(self.received / RATE);
        self.pause.min(earned.saturating_sub(self.waited))
    }

    /// So many bytes came after such a wait.
    pub fn received(&mut self, bytes: usize, waited: Duration) {
        self.received += bytes as u64;
        self.waited += waited;
    }
}

/// The bodies of one connection whose client is waited for, or that are read only to be thrown away.
#[derive(Debug, Clone, Default)]
pub struct BodyWaits(Arc<State>);

#[derive(Debug, Default)]
struct State {
    waiting: AtomicU32,
    since: Mutex<Option<Instant>>,
    discarded: AtomicU32,
    expected: AtomicU32,
}

/// One of them, until it is dropped.
pub struct Waiting<'a>(&'a BodyWaits);

/// A body that nobody wants, until this is dropped.
pub struct Discarding(BodyWaits);

impl BodyWaits {
    pub fn begin(&self) -> Waiting<'_> {
        *self.0.since.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        self.0.waiting.fetch_add(1, Ordering::AcqRel);
        Waiting(self)
    }

    /// How many there are, and how long ago the last one began to wait.
    pub fn waiting(&self) -> (u32, Duration) {
        let since = *self.0.since.lock().unwrap_or_else(PoisonError::into_inner);
        (self.0.waiting.load(Ordering::Acquire), since.map_or(Duration::ZERO, |since| since.elapsed()))
    }

    /// A body of this connection is read from now on only so that its client gets its answer.
    pub fn discard(&self) -> Discarding {
        self.0.discarded.fetch_add(1, Ordering::AcqRel);
        Discarding(self.clone())
    }

    /// Whether a body is read only to be thrown away.
    pub fn discarding(&self) -> bool {
        self.0.discarded.load(Ordering::Acquire) > 0
    }
}

impl BodyWaits {
    /// A client waits to be asked for a body (`Expect: 100-continue`), until what is returned is dropped.
    pub fn expect(&self) -> Expecting {
        self.0.expected.fetch_add(1, Ordering::AcqRel);
        Expecting(self.clone())
    }

    /// Whether one does.
    pub fn expecting(&self) -> bool {
        self.0.expected.load(Ordering::Acquire) > 0
    }
}

/// A body that its client was not asked for.
#[derive(Debug)]
pub struct Expecting(BodyWaits);

impl Drop for Expecting {
    fn drop(&mut self) {
        self.0.0.expected.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for Discarding {
    fn drop(&mut self) {
        self.0.0.discarded.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_byte_now_and_then_is_not_enough() {
        let mut pace = Pace::new(SECOND * 30);
        let mut seconds = 0;
        while pace.patience() > SECOND {
            pace.received(1, SECOND);
            seconds += 1;
        }
        assert_eq!(seconds, 29);
    }

    #[test]
    fn a_slow_line_is_and_so_is_a_pause() {
        let mut pace = Pace::new(SECOND * 30);
        for _ in 0..10_000 {
            pace.received(600, SECOND);
        }
        assert_eq!(pace.patience(), SECOND * 30, "what was earned is no longer pause");
        pace.received(1, SECOND * 29);
        assert_eq!(pace.patience(), SECOND * 30);
    }
}
