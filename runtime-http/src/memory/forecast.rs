//! How far guests may grow, from readings of the container.
//!
//! The working set is the box's own memory and what guests have touched of theirs. The latter is not known, only that it is at most what
//! they have grown to. So a reading less that is the least that the box itself can have had; and the highest such value of the last
//! [`WINDOW`] is taken for what it has, since it hardly changes, and there is nearly always a moment when guests have touched what
//! they have.
//!
//! Where there is none, because guests do not touch what they have grown to, that value becomes too small, and more is given out than
//! there is below the high mark. It must still fit below the eviction mark if all of it is touched at once, in one instruction each: that is
//! reckoned with what the box had for itself when guests last held next to nothing, which untouched memory cannot falsify.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::signed;

/// For how long a reading counts.
const WINDOW: Duration = Duration::from_secs(2);
/// Guests that hold less than one in so many of the limit's bytes hold next to nothing.
const NEXT_TO_NOTHING: u64 = 32;

/// Working sets, in bytes, at which something happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermarks {
    /// The kernel ends the box here.
    pub limit: u64,
    /// Above it invocations are evicted.
    pub eviction: u64,
    /// Growth waits rather than exceed it, and above it nothing starts.
    pub high: u64,
    /// Below it things start again.
    pub low: u64,
}

impl Watermarks {
    /// `high` and `eviction` are shares of `limit`.
    pub fn new(limit: u64, high: f64, eviction: f64) -> Watermarks {
        let share = |share: f64| (limit as f64 * share) as u64;
        Watermarks { limit, eviction: share(eviction), high: share(high), low: share(high - 0.05) }
    }
}

/// Remembers readings.
#[derive(Debug)]
pub struct Forecast {
    watermarks: Watermarks,
    /// What the box had for itself at least.
    lately: Highest,
    /// The same, when guests last held next to nothing.
    at_rest: i64,
    last: Option<(Instant, u64)>,
    /// Bytes per second.
    rise: f64,
    committed: u64,
}

/// The highest of recent values. The first is the highest, and each is higher than the next.
#[derive(Debug, Default)]
struct Highest(VecDeque<(Instant, i64)>);

impl Highest {
    fn add(&mut self, now: Instant, value: i64, window: Duration) {
        while self.0.back().is_some_and(|(_, lower)| *lower <= value) {
            self.0.pop_back();
        }
        self.0.push_back((now, value));
        while self.0.front().is_some_and(|(then, _)| now.duration_since(*then) > window) {
            self.0.pop_front();
        }
    }

    fn get(&self) -> i64 {
        self.0.front().map_or(0, |(_, value)| *value)
    }
}

impl Forecast {
    pub fn new(watermarks: Watermarks) -> Forecast {
        Forecast { watermarks, lately: Highest::default(), at_rest: 0, last: None, rise: 0.0, committed: 0 }
    }

    /// From now on there is more, or less.
    pub fn set_watermarks(&mut self, watermarks: Watermarks) {
        self.watermarks = watermarks;
    }

    /// Adds a reading. `committed` is the most that guests had grown to while it was taken.
    pub fn read(&mut self, now: Instant, working_set: u64, committed: u64) {
        let own = signed(working_set) - signed(committed);
        self.lately.add(now, own, WINDOW);
        if committed <= self.watermarks.limit / NEXT_TO_NOTHING {
            self.at_rest = own;
        }
        self.rise = self.last.map_or(0.0, |(then, last)| {
            let elapsed = now.duration_since(then).as_secs_f64().max(0.001);
            working_set.saturating_sub(last) as f64 / elapsed
        });
        self.last = Some((now, working_set));
        self.committed = committed;
    }

    /// What guests may grow to. `reserved` is what requests and answers may still take for themselves: with that and all that guests have grown
    /// to, the working set must be below the eviction mark.
    pub fn ceiling(&self, reserved: u64) -> i64 {
        let high = signed(self.watermarks.high) - self.lately.get();
        high.min(signed(self.watermarks.eviction) - self.at_rest.max(self.lately.get()) - signed(reserved))
    }

    /// The working set after `ahead`, if it goes on rising as it did between the last two readings. It cannot rise above what guests have
    /// grown to and what the box has for itself.
    pub fn expected(&self, ahead: Duration) -> u64 {
        let last = self.last.map_or(0, |(_, last)| last);
        let own = self.lately.get().max(self.at_rest);
        let most = u64::try_from(own.saturating_add(signed(self.committed))).unwrap_or(0);
        (last + (self.rise * ahead.as_secs_f64()) as u64).min(most).max(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_guests_touch_does_not_count_twice_and_what_they_never_touch_does_not_count() {
        let watermarks = Watermarks::new(1000, 0.8, 0.9);
        let mut forecast = Forecast::new(watermarks);
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        forecast.read(at(0), 100, 0);
        assert_eq!(forecast.ceiling(0), 700);
        assert_eq!(forecast.ceiling(100), 700, "it fits between the marks");
        assert_eq!(forecast.ceiling(150), 650);
        // 400 grown, 50 of it touched so far: all of it is expected.
        forecast.read(at(100), 150, 400);
        assert_eq!(forecast.ceiling(0), 700);
        // Touched.
        forecast.read(at(200), 500, 400);
        assert_eq!(forecast.ceiling(0), 700);
        // The box itself takes 200 more.
        forecast.read(at(300), 700, 400);
        assert_eq!(forecast.ceiling(0), 500);
        // For long, 600 are grown and only 100 touched.
        for tenths in 4..40 {
            forecast.read(at(100 * tenths), 400, 600);
        }
        assert_eq!(
            forecast.ceiling(0),
            800,
            "not 1000: with its own 100 it fits below the eviction mark, if they touch it after all"
        );
    }

    #[test]
    fn a_rise_is_expected_to_go_on_as_far_as_it_can() {
        let mut forecast = Forecast::new(Watermarks::new(1000, 0.8, 0.9));
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let ahead = Duration::from_millis(10);
        forecast.read(at(0), 100, 0);
        forecast.read(at(5), 130, 500);
        assert_eq!(forecast.expected(ahead), 190);
        forecast.read(at(10), 160, 80);
        assert_eq!(forecast.expected(ahead), 180, "100 of its own, and 80");
        forecast.read(at(15), 120, 80);
        assert_eq!(forecast.expected(ahead), 120);
    }
}
