//! What functions do, for who looks at a box: counts of each function that is in memory or was lately, and of all together since the start.
//!
//! Prometheus' metrics name 200 functions; these are of all, and one of them takes as much memory as a few lines of text. Counting takes no lock.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    by_name::ByName,
    invocation::{Usage, microseconds},
};

/// Bounds of the classes of latencies, seconds; what is above the last is in a class of its own.
pub const LATENCIES: [f64; 17] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];
/// The longest timeout that there is, seconds.
const A_DAY: f64 = 86_400.0;
const CLASSES: usize = LATENCIES.len() + 1;

/// Rates are averages over about this time.
const AVERAGED: Duration = Duration::from_secs(5);
/// Rates are brought up to date at most this often.
const UPDATE: Duration = Duration::from_millis(900);

/// Counts that go on.
#[derive(Debug, Default)]
struct Counts {
    errors: AtomicU64,
    cpu_us: AtomicU64,
    executing_us: AtomicU64,
    latencies: [AtomicU64; CLASSES],
}

/// Counts at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Answers with a status of 500 and above.
    pub errors: u64,
    /// Microseconds.
    pub cpu_us: u64,
    /// Microseconds that invocations ran or waited for others, each for itself.
    pub executing_us: u64,
    /// Ended invocations by the time that they took.
    pub latencies: [u64; CLASSES],
}

/// What happens in a second.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Rates {
    pub calls: f64,
    pub errors: f64,
    /// Seconds of CPU time in a second.
    pub cpu_cores: f64,
    /// Seconds of invocations in a second: how many ran at once.
    pub executing: f64,
}

/// One function's.
#[derive(Debug)]
pub struct Activity {
    name: Arc<str>,
    counts: Counts,
    running: AtomicU64,
    /// Bytes.
    memory_peak: AtomicU64,
    rates: Mutex<Averages>,
    /// Whether it is among [`Activities::kept`]; changed with the lock on those.
    is_kept: AtomicBool,
    /// Where its counts go in the end.
    gone: Arc<Counts>,
}

/// All functions'.
#[derive(Debug, Default)]
pub struct Activities {
    by_name: ByName<Activity>,
    /// Of functions that were loaded last: they stay when the functions go. A part of what the box holds for itself, less than 512 bytes each.
    kept: Mutex<VecDeque<Arc<Activity>>>,
    most_kept: AtomicUsize,
    /// Those of functions of which nothing is known any more.
    gone: Arc<Counts>,
}

impl Counts {
    fn totals(&self) -> Totals {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (errors, cpu_us) = (read(&self.errors), read(&self.cpu_us));
        let mut totals = Totals { errors, cpu_us, executing_us: read(&self.executing_us), ..Totals::default() };
        for (total, count) in totals.latencies.iter_mut().zip(&self.latencies) {
            *total = read(count);
        }
        totals
    }

    fn add(&self, totals: &Totals) {
        self.errors.fetch_add(totals.errors, Ordering::Relaxed);
        self.cpu_us.fetch_add(totals.cpu_us, Ordering::Relaxed);
        self.executing_us.fetch_add(totals.executing_us, Ordering::Relaxed);
        for (count, total) in self.latencies.iter().zip(&totals.latencies) {
            count.fetch_add(*total, Ordering::Relaxed);
        }
    }
}

impl Totals {
    /// Ended invocations.
    pub fn calls(&self) -> u64 {
        self.latencies.iter().sum()
    }

    pub fn add(&mut self, other: &Totals) {
        self.errors += other.errors;
        self.cpu_us += other.cpu_us;
        self.executing_us += other.executing_us;
        for (total, other) in self.latencies.iter_mut().zip(&other.latencies) {
            *total += other;
        }
    }

    /// The time, in seconds, within which that share of the invocations ended: the bound of its class, or a day, which no invocation takes longer than.
    /// `None` if there are none.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let calls = self.calls();
        let wanted = ((calls as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        let class = self.latencies.iter().position(|number| {
            seen += number;
            seen >= wanted
        });
        class.map(|class| LATENCIES.get(class).copied().unwrap_or(A_DAY))
    }
}

impl Activity {
    fn new(name: Arc<str>, gone: Arc<Counts>) -> Activity {
        Activity {
            name,
            counts: Counts::default(),
            running: AtomicU64::new(0),
            memory_peak: AtomicU64::new(0),
            rates: Mutex::new(Averages::new(Instant::now())),
            is_kept: AtomicBool::new(false),
            gone,
        }
    }

    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// An invocation begins to run.
    pub fn begin(&self) {
        self.running.fetch_add(1, Ordering::Relaxed);
    }

    /// One that began has ended.
    pub fn end(&self) {
        self.running.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many run.
    pub fn running(&self) -> u64 {
        self.running.load(Ordering::Relaxed)
    }

    /// The most memory of an invocation so far, bytes.
    pub fn memory_peak(&self) -> u64 {
        self.memory_peak.load(Ordering::Relaxed)
    }

    pub fn totals(&self) -> Totals {
        self.counts.totals()
    }

    /// Nobody has looked for long: rates begin anew.
    pub fn restart(&self, now: Instant) {
        let totals = self.totals();
        self.rates.lock().unwrap_or_else(PoisonError::into_inner).restart(&totals, now);
    }

    /// What happens in a second, brought up to date if that was not done a moment ago.
    pub fn rates(&self, totals: &Totals, now: Instant) -> Rates {
        self.rates.lock().unwrap_or_else(PoisonError::into_inner).update(totals, now)
    }

    /// An invocation is answered. `usage`: `None` if it never ran.
    pub(super) fn observe(&self, is_error: bool, duration: Duration, usage: Option<&Usage>) {
        let seconds = duration.as_secs_f64();
        let class = LATENCIES.partition_point(|bound| *bound < seconds);
        self.counts.latencies[class].fetch_add(1, Ordering::Relaxed);
        if is_error {
            self.counts.errors.fetch_add(1, Ordering::Relaxed);
        }
        let Some(usage) = usage else { return };
        self.counts.cpu_us.fetch_add(microseconds(usage.cpu), Ordering::Relaxed);
        self.counts.executing_us.fetch_add(microseconds(usage.execution), Ordering::Relaxed);
        // Read first: it seldom rises.
        if usage.memory_peak > self.memory_peak() {
            self.memory_peak.fetch_max(usage.memory_peak, Ordering::Relaxed);
        }
    }
}

impl Drop for Activity {
    fn drop(&mut self) {
        self.gone.add(&self.counts.totals());
    }
}

impl Activities {
    /// That of function `name`, as long as somebody holds it.
    pub fn of(&self, name: &Arc<str>) -> Arc<Activity> {
        let activity = self.by_name.of(name, || Activity::new(name.clone(), self.gone.clone()));
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if !activity.is_kept.swap(true, Ordering::Relaxed) {
            kept.push_back(activity.clone());
        }
        let more = kept.len().saturating_sub(self.most_kept.load(Ordering::Relaxed));
        for out in kept.drain(..more) {
            out.is_kept.store(false, Ordering::Relaxed);
        }
        activity
    }

    /// Of so many functions that are not in memory any more the counts stay.
    pub fn keep(&self, most: usize) {
        self.most_kept.store(most, Ordering::Relaxed);
    }

    /// Those of all functions that are in memory, or were lately.
    pub fn all(&self) -> Vec<Arc<Activity>> {
        self.by_name.all()
    }

    /// Those of functions of which nothing else is known any more.
    pub fn gone(&self) -> Totals {
        self.gone.totals()
    }
}

/// Rates as averages that forget: what happened [`AVERAGED`] ago counts for a third of what happens now.
#[derive(Debug)]
pub struct Averages {
    at: Instant,
    calls: u64,
    errors: u64,
    cpu_us: u64,
    executing_us: u64,
    /// `None` until there is a first one.
    rates: Option<Rates>,
}

impl Averages {
    /// Of counts that begin at zero then.
    pub fn new(at: Instant) -> Averages {
        Averages::after(&Totals::default(), at, None)
    }

    fn after(totals: &Totals, at: Instant, rates: Option<Rates>) -> Averages {
        let Totals { errors, cpu_us, executing_us, .. } = *totals;
        Averages { at, calls: totals.calls(), errors, cpu_us, executing_us, rates }
    }

    /// What happened before `now` does not count.
    pub fn restart(&mut self, totals: &Totals, now: Instant) {
        *self = Averages::after(totals, now, None);
    }

    pub fn update(&mut self, totals: &Totals, now: Instant) -> Rates {
        let elapsed = now.saturating_duration_since(self.at);
        if elapsed >= UPDATE {
            let (mut rates, weight) = match self.rates {
                Some(rates) => (rates, 1.0 - (-elapsed.as_secs_f64() / AVERAGED.as_secs_f64()).exp()),
                None => (Rates::default(), 1.0),
            };
            let average = |rate: &mut f64, before: u64, after: u64, unit: f64| {
                let now = after.saturating_sub(before) as f64 * unit / elapsed.as_secs_f64();
                *rate += (now - *rate) * weight;
                // Else it would sink for ever.
                if *rate < 1e-4 {
                    *rate = 0.0;
                }
            };
            average(&mut rates.calls, self.calls, totals.calls(), 1.0);
            average(&mut rates.errors, self.errors, totals.errors, 1.0);
            average(&mut rates.cpu_cores, self.cpu_us, totals.cpu_us, 1e-6);
            average(&mut rates.executing, self.executing_us, totals.executing_us, 1e-6);
            *self = Averages::after(totals, now, Some(rates));
        }
        self.rates.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
