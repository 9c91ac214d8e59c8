//! CPU in use: cores, averaged over the last readings of a counter of CPU time.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// The last readings. With `window` intervals, it averages over the time from the oldest of `window + 1` readings to the latest.
#[derive(Debug)]
pub struct CpuWindow {
    window: usize,
    readings: VecDeque<(Instant, Duration)>,
}

impl CpuWindow {
    /// `window` intervals, at least 1.
    pub fn new(window: usize) -> CpuWindow {
        CpuWindow { window: window.max(1), readings: VecDeque::new() }
    }

    /// Takes a reading. A counter that went back was begun anew (another cgroup, a restored container): so is the window.
    pub fn read(&mut self, now: Instant, used: Duration) {
        if self.readings.back().is_some_and(|(time, before)| used < *before || now < *time) {
            self.readings.clear();
        }
        if self.readings.len() > self.window {
            self.readings.pop_front();
        }
        self.readings.push_back((now, used));
    }

    /// Cores in use on average; 0 before the second reading.
    pub fn cores(&self) -> f64 {
        let (Some((start, before)), Some((end, after))) = (self.readings.front(), self.readings.back()) else {
            return 0.0;
        };
        let time = end.duration_since(*start).as_secs_f64();
        if time > 0.0 { (*after - *before).as_secs_f64() / time } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_average_forgets_what_is_before_the_window() {
        let mut window = CpuWindow::new(2);
        let start = Instant::now();
        let mut used = Duration::from_secs(1000);
        assert_eq!(window.cores(), 0.0);
        for (second, cores) in [(0, 0), (1, 4), (2, 2), (3, 1)] {
            used += Duration::from_secs(cores);
            window.read(start + Duration::from_secs(second), used);
        }
        assert_eq!(window.cores(), 1.5);
    }

    #[test]
    fn a_counter_that_begins_anew_is_no_burst() {
        let mut window = CpuWindow::new(5);
        let start = Instant::now();
        window.read(start, Duration::from_secs(50));
        window.read(start + Duration::from_secs(1), Duration::from_secs(51));
        window.read(start + Duration::from_secs(2), Duration::from_millis(10));
        assert_eq!(window.cores(), 0.0);
        window.read(start + Duration::from_secs(3), Duration::from_millis(510));
        assert_eq!(window.cores(), 0.5);
    }

    proptest! {
        /// Whatever the readings are, what is reported is a number that a peer can use.
        #[test]
        fn it_is_finite_and_not_negative(readings in prop::collection::vec((0_u64..5, 0_u64..1000), 0..50), window in 0_usize..9) {
            let mut cpu = CpuWindow::new(window);
            let mut now = Instant::now();
            for (wait, used) in readings {
                now += Duration::from_millis(wait);
                cpu.read(now, Duration::from_millis(used));
                prop_assert!(cpu.cores().is_finite() && cpu.cores() >= 0.0, "{}", cpu.cores());
                prop_assert!(cpu.readings.len() <= window.max(1) + 1);
            }
        }
    }
}
