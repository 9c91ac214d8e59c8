//! How long a function usually runs, by its latest invocations, and whether it may begin on a connection's thread.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{epoch::slice::SLICE, invocation::microseconds};

/// A function that usually takes longer begins on workers.
const SHORT: Duration = SLICE;
/// A function that did not end within a slice begins on workers for so many times as long as it held the connection's thread, and for twice as
/// long each time that it has not ended in one in between. So it holds one for a hundredth of the time at most, whatever it does.
const BARRED_TIMES: u32 = 100;
const MOST_DOUBLINGS: u32 = 10;
/// What it is taken to have held it for at least.
const LEAST_HELD: Duration = Duration::from_micros(50);

/// A moving average, shared by all invocations of one function.
#[derive(Debug, Default)]
pub struct ExecutionEstimate {
    /// Microseconds; 0 before the first invocation has ended.
    usual: AtomicU64,
    /// Until then it begins on workers, microseconds of [`now`].
    barred: AtomicU64,
    /// Slices that did not end, since the last one that did.
    unfinished: AtomicU32,
}

/// Microseconds since the first call.
fn now() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    microseconds(START.get_or_init(Instant::now).elapsed())
}

impl ExecutionEstimate {
    /// `None` before the first invocation has ended.
    pub fn get(&self) -> Option<Duration> {
        Some(self.usual.load(Ordering::Relaxed)).filter(|usual| *usual > 0).map(Duration::from_micros)
    }

    pub fn add(&self, execution: Duration) {
        let latest = microseconds(execution).max(1);
        let usual = self.usual.load(Ordering::Relaxed);
        // Concurrent updates may lose one another: it is an estimate.
        let average = if usual == 0 { latest } else { (usual.saturating_mul(7).saturating_add(latest) / 8).max(1) };
        self.usual.store(average, Ordering::Relaxed);
    }

    /// Whether it may begin on a connection's thread: it is usually short, or nobody knows yet.
    pub fn fits_in_a_slice(&self) -> bool {
        self.get().is_none_or(|usual| usual < SHORT) && self.barred.load(Ordering::Relaxed) <= now()
    }

    /// It did not end in its slice, or used much more than one: it held a connection's thread for `held`. Of one that nobody knows yet it is
    /// known now that it is long.
    pub fn bar(&self, held: Duration) {
        let doublings = self.unfinished.fetch_add(1, Ordering::Relaxed).min(MOST_DOUBLINGS);
        let until = now().saturating_add(microseconds(held.max(LEAST_HELD) * (BARRED_TIMES << doublings)));
        self.barred.fetch_max(until, Ordering::Relaxed);
        let _ = self.usual.compare_exchange(0, microseconds(SHORT), Ordering::Relaxed, Ordering::Relaxed);
    }

    /// It ended in its slice.
    pub fn ended_in_a_slice(&self) {
        if self.unfinished.load(Ordering::Relaxed) > 0 {
            self.unfinished.store(0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_what_happens() {
        let estimate = ExecutionEstimate::default();
        assert_eq!(estimate.get(), None);
        estimate.add(Duration::from_micros(80));
        assert_eq!(estimate.get(), Some(Duration::from_micros(80)));
        for _ in 0..100 {
            estimate.add(Duration::from_millis(1));
        }
        assert!(estimate.get().unwrap() > Duration::from_micros(900));
        assert!(!estimate.fits_in_a_slice());
        estimate.add(Duration::ZERO);
        assert!(estimate.get().unwrap() < Duration::from_micros(900));
    }

    #[test]
    fn who_is_unknown_or_short_may_begin_until_it_is_barred() {
        let estimate = ExecutionEstimate::default();
        assert!(estimate.fits_in_a_slice(), "nobody knows it");
        estimate.add(Duration::from_micros(20));
        assert!(estimate.fits_in_a_slice());
        estimate.bar(Duration::from_secs(1));
        assert!(!estimate.fits_in_a_slice());
        estimate.bar(Duration::ZERO);
        estimate.add(Duration::from_micros(20));
        assert!(!estimate.fits_in_a_slice(), "the longest counts");
        let unknown = ExecutionEstimate::default();
        unknown.bar(Duration::ZERO);
        assert!(!unknown.fits_in_a_slice(), "it waited at once");
        assert_eq!(unknown.get(), Some(SHORT), "it is long, as far as is known");
    }

    #[test]
    fn who_never_ends_in_a_slice_is_barred_for_longer_each_time() {
        let estimate = ExecutionEstimate::default();
        let barred = || {
            estimate.bar(Duration::from_millis(1));
            Duration::from_micros(estimate.barred.load(Ordering::Relaxed) - now())
        };
        let within =
            |time: Duration, most| (Duration::from_millis(most - 50)..=Duration::from_millis(most)).contains(&time);
        assert!(within(barred(), 100));
        assert!(within(barred(), 200));
        assert!(within(barred(), 400));
        for _ in 0..40 {
            barred();
        }
        assert!(barred() <= Duration::from_millis(100) * (1 << MOST_DOUBLINGS));
        estimate.ended_in_a_slice();
        estimate.barred.store(0, Ordering::Relaxed);
        assert!(within(barred(), 100));
    }
}
