//! How long compiling a module of some size may take, as far as the last ones tell.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// What a small module takes says nothing of large ones: most of it is starting the compiler.
const TELLING: u64 = 64 << 10;
/// What the last one counts for.
const LAST: f64 = 0.3;
const MEBIBYTE: f64 = (1 << 20) as f64;

/// Microseconds for each MiB.
#[derive(Debug)]
pub struct Pace(AtomicU64);

impl Pace {
    /// Until there was one.
    pub fn guessed(for_a_mebibyte: Duration) -> Pace {
        Pace(AtomicU64::new(for_a_mebibyte.as_micros() as u64))
    }

    /// A module of `size` bytes took `time`.
    pub fn took(&self, size: u64, time: Duration) {
        if size >= TELLING {
            let last = time.as_micros() as f64 * MEBIBYTE / size as f64;
            let now = self.0.load(Ordering::Relaxed) as f64 * (1.0 - LAST) + last * LAST;
            // Of two at once either may be forgotten.
            self.0.store(now as u64, Ordering::Relaxed);
        }
    }

    pub fn of(&self, size: u64) -> Duration {
        Duration::from_micros((self.0.load(Ordering::Relaxed) as f64 * size as f64 / MEBIBYTE) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_what_large_modules_took() {
        let pace = Pace::guessed(Duration::from_secs(1));
        assert_eq!(pace.of(3 << 20), Duration::from_secs(3));
        for _ in 0..50 {
            pace.took(2 << 20, Duration::from_secs(8));
        }
        pace.took(1, Duration::from_secs(60));
        let estimate = pace.of(1 << 20).as_secs_f64();
        assert!((3.9..4.1).contains(&estimate), "{estimate}");
    }
}
