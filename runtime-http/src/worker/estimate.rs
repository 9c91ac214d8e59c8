//! How long a function usually runs, by its latest invocations.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::invocation::microseconds;

/// A moving average, shared by all invocations of one function.
#[derive(Debug, Default)]
pub struct ExecutionEstimate {
    /// Microseconds; 0 before the first invocation has ended.
    usual: AtomicU64,
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
        estimate.add(Duration::ZERO);
        assert!(estimate.get().unwrap() < Duration::from_micros(900));
    }
}
