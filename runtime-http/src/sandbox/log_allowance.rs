//! What the invocations of one function may write to the log together, so that one that writes all the time does not push out the lines of others.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

/// A bucket of bytes, which is filled all the time: with two seconds' worth of them it is full. There is no lock in it: a thread that its CPU
/// quota stops must hold nothing that others wait for.
#[derive(Debug)]
pub struct LogAllowance {
    /// Bytes a second.
    rate: u64,
    begun: Instant,
    /// When it is full again, microseconds after it was made.
    full_at: AtomicU64,
}

const SECOND: u64 = 1_000_000;
/// How long an empty one takes until it is full, microseconds.
const FULL: u64 = 2 * SECOND;

impl LogAllowance {
    /// Of `rate` bytes a second, at least one.
    pub fn new(rate: u64) -> LogAllowance {
        LogAllowance { rate: rate.max(1), begun: Instant::now(), full_at: AtomicU64::new(0) }
    }

    /// Whether there are so many bytes, which are taken then.
    pub fn take(&self, bytes: usize) -> bool {
        self.take_at(bytes, u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    fn take_at(&self, bytes: usize, now: u64) -> bool {
        let time = (bytes as u64).saturating_mul(SECOND).div_ceil(self.rate);
        let taken = |full_at: u64| {
            let next = full_at.max(now).saturating_add(time);
            (next <= now.saturating_add(FULL)).then_some(next)
        };
        self.full_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn two_seconds_at_once_and_then_as_it_comes() {
        let allowance = LogAllowance::new(1000);
        assert!(!allowance.take_at(2001, 0) && allowance.take_at(2000, 0) && !allowance.take_at(1, 0));
        assert!(allowance.take_at(500, SECOND / 2) && !allowance.take_at(1, SECOND / 2));
        assert!(allowance.take_at(2000, 100 * SECOND) && !allowance.take_at(1, 100 * SECOND));
    }

    proptest! {
        /// Whatever is asked for: never more than what was there at first and has come since, and never less than that but for what one refused
        /// would have needed.
        #[test]
        fn it_is_a_bucket(rate in 1_u64..1_000_000, steps in prop::collection::vec((0_u64..SECOND, 0_usize..100_000), 1..100)) {
            let allowance = LogAllowance::new(rate);
            let (mut now, mut level) = (0, (2 * rate) as f64);
            for (pause, bytes) in steps {
                now += pause;
                level = (level + rate as f64 * pause as f64 / SECOND as f64).min((2 * rate) as f64);
                let rounding = rate as f64 / SECOND as f64 * 100.0 + 1.0;
                if allowance.take_at(bytes, now) {
                    prop_assert!(bytes as f64 <= level + rounding);
                    level -= bytes as f64;
                } else {
                    prop_assert!(bytes as f64 > level - rounding);
                }
            }
        }
    }
}
