//! Which functions get optimised code in place of their baseline code, and when: bookkeeping without clock, lock or task.
//!
//! One that is called again is due at once. One that was called once is due when the box has nothing else to do: so whoever uploads modules
//! that are called once has them compiled in the cheap way only. A step that was stopped or failed is due again later, a few times.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

/// The most functions that are remembered. Others are due when they are called once more.
const MOST: usize = 256;
/// One that nobody calls again is left alone at first.
const SETTLED: Duration = Duration::from_secs(5);
/// How often is looked whether the box has something else to do.
const LOOK: Duration = Duration::from_secs(1);
/// How often a step may fail, and how often it may be stopped for others: then it runs to its end.
const MOST_FAILURES: u32 = 4;
const MOST_STOPS: u32 = 2;

/// What was made of a function's baseline code so far.
#[derive(Debug, Default)]
pub struct Baseline {
    /// After the first answer.
    calls: AtomicU32,
    failures: AtomicU32,
    stops: AtomicU32,
}

impl Baseline {
    /// It is called again; whether it is to be asked for optimised code: not each time, since that takes a lock.
    pub fn called(&self) -> bool {
        let calls = self.calls.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        calls.is_power_of_two() && self.failures.load(Ordering::Relaxed) < MOST_FAILURES
    }

    pub fn may_be_stopped(&self) -> bool {
        self.stops.load(Ordering::Relaxed) < MOST_STOPS
    }

    /// It was stopped; gives when it is tried again.
    pub fn stopped(&self, now: Instant) -> Instant {
        self.stops.fetch_add(1, Ordering::Relaxed);
        now + LOOK
    }

    /// It failed, in a way that may pass; gives when it is tried again, if it is.
    pub fn failed(&self, now: Instant) -> Option<Instant> {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        (failures < MOST_FAILURES).then(|| now + LOOK * 4_u32.pow(failures - 1))
    }

    /// It would fail again.
    pub fn give_up(&self) {
        self.failures.store(MOST_FAILURES, Ordering::Relaxed);
    }
}

/// Functions (`F`) with baseline code.
#[derive(Debug)]
pub struct Promotions<F> {
    waiting: Vec<Waiting<F>>,
    /// Somebody asks for the next one, again and again.
    asked: bool,
}

#[derive(Debug)]
struct Waiting<F> {
    function: Weak<F>,
    since: Instant,
    /// `None`: when there is nothing else to do.
    due: Option<Instant>,
}

/// Who is next.
#[derive(Debug)]
pub enum Next<F> {
    Promote(Arc<F>),
    /// It may be known then.
    Look(Instant),
    /// Nobody is left, and nobody asks any more.
    Nothing,
}

impl<F> Default for Promotions<F> {
    fn default() -> Self {
        Promotions { waiting: Vec::new(), asked: false }
    }
}

impl<F> Promotions<F> {
    /// `function` is due then, if not before; whether somebody has to begin asking.
    pub fn add(&mut self, function: &Arc<F>, due: Option<Instant>, now: Instant) -> bool {
        let same = |waiting: &&mut Waiting<F>| waiting.function.as_ptr() == Arc::as_ptr(function);
        if let Some(known) = self.waiting.iter_mut().find(same) {
            known.due = [known.due, due].into_iter().flatten().min();
        } else {
            if self.waiting.len() >= MOST
                && let Some(least) = self.waiting.iter().position(|waiting| waiting.due.is_none())
            {
                self.waiting.remove(least);
            }
            if self.waiting.len() < MOST {
                self.waiting.push(Waiting { function: Arc::downgrade(function), since: now, due });
            }
        }
        !std::mem::replace(&mut self.asked, true)
    }

    /// How many are remembered.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub fn next(&mut self, now: Instant, is_idle: impl FnOnce() -> bool) -> Next<F> {
        // What is not in memory any more is loaded anew.
        self.waiting.retain(|waiting| waiting.function.strong_count() > 0);
        let is_due = |waiting: &Waiting<F>| waiting.due.is_some_and(|due| due <= now);
        let is_settled = |waiting: &Waiting<F>| waiting.due.is_none() && waiting.since + SETTLED <= now;
        let next = self.waiting.iter().position(is_due);
        let next = next.or_else(|| self.waiting.iter().position(is_settled).filter(|_| is_idle()));
        if let Some(function) = next.and_then(|next| self.waiting.remove(next).function.upgrade()) {
            return Next::Promote(function);
        }
        if self.waiting.is_empty() {
            self.asked = false;
            return Next::Nothing;
        }
        let soonest = self.waiting.iter().filter_map(|waiting| waiting.due).min();
        Next::Look(soonest.map_or(now + LOOK, |due| due.min(now + LOOK)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn promoted<F: Clone>(next: &Next<F>) -> Option<F> {
        match next {
            Next::Promote(function) => Some((**function).clone()),
            Next::Look(_) | Next::Nothing => None,
        }
    }

    #[test]
    fn who_is_called_again_goes_first_and_the_others_when_the_box_is_idle() {
        let now = Instant::now();
        let mut promotions = Promotions::default();
        let [once, again, gone] = ["once", "again", "gone"].map(Arc::new);
        assert!(promotions.add(&once, None, now), "nobody asks yet");
        assert!(!promotions.add(&again, None, now));
        assert!(!promotions.add(&gone, Some(now), now));
        drop(gone);
        assert!(matches!(promotions.next(now, || true), Next::Look(_)), "they are new");
        promotions.add(&again, Some(now), now);
        assert_eq!(promoted(&promotions.next(now, || false)), Some("again"));
        let later = now + SETTLED;
        assert!(matches!(promotions.next(later, || false), Next::Look(_)), "the box is busy");
        assert_eq!(promoted(&promotions.next(later, || true)), Some("once"));
        assert!(matches!(promotions.next(later, || true), Next::Nothing));
        assert!(promotions.add(&once, None, later), "nobody asks any more");
    }

    #[test]
    fn only_so_many_are_remembered_those_that_are_due_first() {
        let now = Instant::now();
        let mut promotions = Promotions::default();
        let functions: Vec<Arc<usize>> = (0..=MOST).map(Arc::new).collect();
        for function in &functions {
            promotions.add(function, None, now);
        }
        assert_eq!(promotions.waiting.len(), MOST);
        for function in &functions {
            promotions.add(function, Some(now), now);
        }
        let mut order = Vec::new();
        while let Next::Promote(function) = promotions.next(now, || false) {
            order.push(*function);
        }
        assert_eq!(order.len(), MOST);
    }

    #[test]
    fn a_step_is_tried_again_a_few_times_and_then_not_asked_for() {
        let now = Instant::now();
        let baseline = Baseline::default();
        assert!(baseline.called() && baseline.called() && !baseline.called() && baseline.called());
        for _ in 0..MOST_STOPS {
            assert!(baseline.may_be_stopped());
            assert!(baseline.stopped(now) > now);
        }
        assert!(!baseline.may_be_stopped());
        let retries = std::iter::from_fn(|| baseline.failed(now)).count();
        assert_eq!(retries as u32, MOST_FAILURES - 1);
        assert!((0..100).all(|_| !baseline.called()));
    }
}
