//! How long an invocation has waited for others.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// The time in which at least one request of an invocation was waited for: for its response to begin, or to go on.
#[derive(Debug, Default)]
pub struct Meter(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    waiting: usize,
    since: Option<Instant>,
    total: Duration,
}

/// While it exists, time is counted.
#[derive(Debug)]
pub struct Waiting(Arc<Meter>);

impl Meter {
    pub fn start(self: &Arc<Self>) -> Waiting {
        let mut state = self.state();
        state.waiting += 1;
        state.since.get_or_insert_with(Instant::now);
        Waiting(self.clone())
    }

    /// So far.
    pub fn total(&self) -> Duration {
        let state = self.state();
        state.total + state.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Whether anybody is waited for.
    pub fn is_running(&self) -> bool {
        self.state().waiting > 0
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.waiting -= 1;
        if state.waiting == 0
            && let Some(since) = state.since.take()
        {
            state.total += since.elapsed();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlapping_waits_count_once() {
        let meter = Arc::new(Meter::default());
        assert_eq!(meter.total(), Duration::ZERO);
        let before = Instant::now();
        let [first, second] = [meter.start(), meter.start()];
        std::thread::sleep(Duration::from_millis(2));
        assert!(meter.total() >= Duration::from_millis(2), "also what is not over");
        drop(first);
        drop(second);
        let total = meter.total();
        assert!(total <= before.elapsed() && total >= Duration::from_millis(2), "{total:?}");
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(meter.total(), total, "nothing is waited for");
    }
}
