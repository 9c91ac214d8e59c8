//! How much may be admitted after evictions.
//!
//! An eviction says that more is admitted than there is. If all who wait started as soon as there is room again, most would be evicted again,
//! having run for nothing. So each eviction halves what is in flight beyond what fits if all use as much as they request, and that rises again
//! slowly while nothing is short: as networks do about congestion (additive increase, multiplicative decrease).

use std::time::{Duration, Instant};

/// From nothing to the whole capacity.
const RISE: Duration = Duration::from_secs(20);

/// The most units in flight.
#[derive(Debug)]
pub struct Throttle {
    capacity: f64,
    /// What fits without overbooking.
    floor: f64,
    ceiling: f64,
    /// Until when the ceiling has risen.
    risen: Instant,
}

impl Throttle {
    /// At first all of `capacity`; never less than `floor`.
    pub fn new(capacity: u64, floor: u64, now: Instant) -> Throttle {
        let capacity = capacity as f64;
        Throttle { capacity, floor: capacity.min(floor as f64), ceiling: capacity, risen: now }
    }

    /// The capacity and what fits have changed; what was learnt of the former ones is no more.
    pub fn resize(&mut self, capacity: u64, floor: u64) {
        *self = Throttle::new(capacity, floor, self.risen);
    }

    /// Somebody is evicted while `units` are in flight. Gives the new ceiling.
    pub fn lower(&mut self, units: u64) -> u64 {
        let reached = self.ceiling.min(units as f64).max(self.floor);
        self.ceiling = self.floor.midpoint(reached);
        self.ceiling as u64
    }

    /// Whether memory is `short` now. Gives the new ceiling, if there is one.
    pub fn rise(&mut self, now: Instant, short: bool) -> Option<u64> {
        let elapsed = now.duration_since(self.risen);
        self.risen = now;
        if short || self.ceiling >= self.capacity {
            return None;
        }
        let more = self.capacity * elapsed.as_secs_f64() / RISE.as_secs_f64();
        self.ceiling = (self.ceiling + more).min(self.capacity);
        Some(self.ceiling as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_falls_by_halves_to_what_fits_and_rises_slowly_while_nothing_is_short() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut throttle = Throttle::new(1000, 200, start);
        assert_eq!(throttle.rise(at(1), false), None, "nothing was evicted");
        assert_eq!(throttle.lower(800), 500, "half of what is in flight and does not surely fit");
        assert_eq!(throttle.lower(800), 350);
        assert_eq!(throttle.lower(100), 200, "what fits");
        assert_eq!(throttle.rise(at(2), false), Some(250));
        assert_eq!(throttle.rise(at(10), true), None);
        assert_eq!(throttle.rise(at(11), false), Some(300), "while it was short it did not rise");
        assert_eq!(throttle.rise(at(60), false), Some(1000));
        assert_eq!(throttle.rise(at(61), false), None);
    }

    #[test]
    fn what_is_not_overbooked_is_not_lowered() {
        let mut throttle = Throttle::new(100, 200, Instant::now());
        assert_eq!(throttle.lower(80), 100);
    }
}
