//! CPU quotas across the invocations of a function: without a thread or the kernel.
//!
//! The kernel limits each invocation on its worker, and begins each with a whole budget. What runs for microseconds would never use one up,
//! and what runs on a connection's thread is in no cgroup. So each function has *lanes*: token buckets of its quota, which hold one period's budget.
//! An invocation takes a lane that is free, and is charged to it when it ends, with all CPU time that it used, wherever that was. Whose
//! lane is spent begins when half of the budget is there again. There are as many lanes as invocations ran at once lately: a quota is an invocation's,
//! so `n` of them at once may have `n` times as much; one after the other they have it once.
//!
//! A lane is kept as the instant from which on it is whole. CPU time moves that by itself divided by the quota, so that budget and
//! debt are the same number.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use wasmbox_cgroup::Bandwidth;

use crate::limits::CpuQuota;

/// More lanes are not kept for one quota: who gets none is limited by the kernel alone, on a worker.
const MOST_LANES: usize = 256;
/// Lanes of more quotas than these are tidied away when they are whole: requests name the quota.
const FEW_QUOTAS: usize = 8;

#[derive(Debug)]
struct Lane {
    whole: Instant,
    taken: bool,
}

/// The lanes of one function and quota.
#[derive(Debug)]
pub struct Lanes {
    period: Duration,
    lanes: Vec<Lane>,
    running: usize,
    /// The most that ran at once in the window of one period that began then, and in the one before.
    window: Instant,
    most: [usize; 2],
}

/// Whether an invocation may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// In this lane, which must be left.
    Begins(usize),
    /// Not before then.
    Waits(Instant),
    /// There are too many at once.
    NoLane,
}

impl Lanes {
    /// With budgets of `period`.
    pub fn new(period: Duration, now: Instant) -> Lanes {
        Lanes { period, lanes: Vec::new(), running: 0, window: now, most: [0; 2] }
    }

    pub fn enter(&mut self, now: Instant) -> Entry {
        let passed = now.saturating_duration_since(self.window);
        if passed >= self.period {
            let before = if passed < self.period * 2 { self.most[0] } else { 0 };
            (self.most, self.window) = ([self.running, before], now);
        }
        self.most[0] = self.most[0].max(self.running + 1);
        let allowed = self.most[0].max(self.most[1]).min(MOST_LANES);
        while self.lanes.len() < allowed {
            self.lanes.push(Lane { whole: now, taken: false });
        }
        let free = self.lanes.iter_mut().take(allowed).enumerate().filter(|(_, lane)| !lane.taken);
        let Some((number, lane)) = free.min_by_key(|(_, lane)| lane.whole) else { return Entry::NoLane };
        if lane.whole.saturating_duration_since(now) >= self.period {
            return Entry::Waits(lane.whole - self.period / 2);
        }
        lane.taken = true;
        self.running += 1;
        Entry::Begins(number)
    }

    /// What had lane `number` since `begun` has ended, having used `cpu` of `quota`. What is beyond one and a half budgets is forgiven: an
    /// instruction cannot be interrupted, and must not keep those who come later from running for long.
    pub fn leave(&mut self, number: usize, begun: Instant, cpu: Duration, quota: CpuQuota, now: Instant) {
        self.running -= 1;
        let lane = &mut self.lanes[number];
        lane.taken = false;
        let nanoseconds = cpu.as_nanos() * 1000 / u128::from(quota.millicores());
        let cost = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        let most = now + self.period * 3 / 2;
        lane.whole = lane.whole.max(begun).checked_add(cost).map_or(most, |whole| whole.min(most));
        while self.lanes.last().is_some_and(|lane| !lane.taken && lane.whole <= now) {
            self.lanes.pop();
        }
    }

    fn is_whole(&self, now: Instant) -> bool {
        self.running == 0 && self.lanes.iter().all(|lane| lane.whole <= now)
    }
}

/// One function's lanes, by quota.
#[derive(Debug, Default)]
pub struct CpuBudget(Mutex<BTreeMap<CpuQuota, Lanes>>);

/// The right of one invocation to begin, given back when it is dropped.
#[derive(Debug)]
pub enum Spending {
    /// There is no limit: a whole core or more, or no cgroups.
    Unlimited,
    /// By the kernel alone.
    Unaccounted,
    Lane {
        budget: Arc<CpuBudget>,
        quota: CpuQuota,
        number: usize,
        begun: Instant,
        cpu: Duration,
    },
}

impl CpuBudget {
    fn lanes(&self) -> MutexGuard<'_, BTreeMap<CpuQuota, Lanes>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// # Errors
    /// Until when its lane is spent.
    pub fn enter(self: &Arc<Self>, quota: CpuQuota, bandwidth: Bandwidth) -> Result<Spending, Instant> {
        if bandwidth.quota_us.is_none() {
            return Ok(Spending::Unlimited);
        }
        let begun = Instant::now();
        let mut quotas = self.lanes();
        if quotas.len() > FEW_QUOTAS {
            quotas.retain(|other, lanes| *other == quota || !lanes.is_whole(begun));
        }
        let lanes = quotas.entry(quota).or_insert_with(|| Lanes::new(bandwidth.period(), begun));
        match lanes.enter(begun) {
            Entry::Begins(number) => {
                Ok(Spending::Lane { budget: self.clone(), quota, number, begun, cpu: Duration::ZERO })
            }
            Entry::Waits(until) => Err(until),
            Entry::NoLane => Ok(Spending::Unaccounted),
        }
    }
}

impl Spending {
    /// Whether what it uses counts, or need not.
    pub fn is_accounted(&self) -> bool {
        !matches!(self, Spending::Unaccounted)
    }

    /// It has ended, and used so much in all.
    pub fn end(mut self, used: Duration) {
        if let Spending::Lane { cpu, .. } = &mut self {
            *cpu = used;
        }
    }
}

impl Drop for Spending {
    fn drop(&mut self) {
        if let Spending::Lane { budget, quota, number, begun, cpu } = self
            && let Some(lanes) = budget.lanes().get_mut(quota)
        {
            lanes.leave(*number, *begun, *cpu, *quota, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PERIOD: Duration = Duration::from_millis(100);

    fn quota(millicores: u32) -> CpuQuota {
        CpuQuota::from_millicores(millicores).unwrap()
    }

    /// One caller, who comes `pause` after each answer, with invocations of `cpu` that run without being stopped. Gives the CPU time used in
    /// `time`.
    fn one_after_the_other(millicores: u32, calls: &[(Duration, Duration)], time: Duration) -> Duration {
        let start = Instant::now();
        let (mut now, mut used) = (start, Duration::ZERO);
        let mut lanes = Lanes::new(PERIOD, now);
        for (cpu, pause) in calls.iter().cycle() {
            let number = loop {
                match lanes.enter(now) {
                    Entry::Begins(number) => break number,
                    Entry::Waits(until) => {
                        assert!(until > now && until <= now + PERIOD, "it waits for a period at most");
                        now = until;
                    }
                    Entry::NoLane => panic!("it is the only one"),
                }
            };
            assert_eq!(number, 0, "it has one lane");
            if now - start >= time {
                return used;
            }
            let begun = now;
            now += *cpu;
            used += *cpu;
            lanes.leave(number, begun, *cpu, quota(millicores), now);
            now += *pause;
        }
        unreachable!("a cycle does not end")
    }

    #[test]
    fn many_short_ones_have_what_one_long_one_has() {
        // 50 us, 5,000 times a second, would be 250 ms.
        let call = [(Duration::from_micros(50), Duration::from_micros(150))];
        let used = one_after_the_other(100, &call, Duration::from_secs(10));
        assert!((Duration::from_millis(990)..Duration::from_millis(1020)).contains(&used), "{used:?} of 1 s");
    }

    #[test]
    fn what_ran_at_once_has_as_many_lanes_until_two_periods_later() {
        let now = Instant::now();
        let mut lanes = Lanes::new(PERIOD, now);
        assert_eq!([lanes.enter(now), lanes.enter(now)], [Entry::Begins(0), Entry::Begins(1)]);
        let cpu = Duration::from_millis(10);
        let ended = now + cpu;
        lanes.leave(0, now, cpu, quota(100), ended);
        assert_eq!(lanes.enter(ended), Entry::Begins(0), "a tenth of its budget is there again");
        lanes.leave(0, ended, cpu, quota(100), ended + cpu);
        lanes.leave(1, now, Duration::ZERO, quota(100), ended + cpu);
        let later = ended + cpu;
        assert_eq!(lanes.enter(later), Entry::Begins(1), "the other one is whole");
        lanes.leave(1, later, Duration::ZERO, quota(100), later);
        // The first window ends, and the next one.
        for after in [PERIOD, PERIOD * 2 + PERIOD / 2] {
            let now = now + after;
            let Entry::Begins(number) = lanes.enter(now) else { panic!("something is left") };
            lanes.leave(number, now, Duration::from_millis(50), quota(100), now);
        }
        assert!(matches!(lanes.enter(now + PERIOD * 3), Entry::Waits(_)), "one at a time has one lane");
    }

    #[test]
    fn lanes_are_bounded_and_quotas_do_not_pile_up() {
        let now = Instant::now();
        let mut lanes = Lanes::new(PERIOD, now);
        let entered: Vec<_> = (0..=MOST_LANES).map(|_| lanes.enter(now)).collect();
        assert_eq!(entered[MOST_LANES], Entry::NoLane);
        assert_eq!(entered[MOST_LANES - 1], Entry::Begins(MOST_LANES - 1));
        let budget = Arc::new(CpuBudget::default());
        for millicores in 1..900 {
            let quota = quota(millicores);
            assert!(budget.enter(quota, Bandwidth::of(quota.millicores(), PERIOD)).unwrap().is_accounted());
        }
        assert!(budget.lanes().len() <= FEW_QUOTAS + 2, "{}", budget.lanes().len());
        let core = quota(1000);
        assert!(matches!(budget.enter(core, Bandwidth::of(core.millicores(), PERIOD)), Ok(Spending::Unlimited)));
    }

    proptest! {
        /// Whatever they cost and whenever they come, those that come one after the other have the quota, a budget, and what the last one took
        /// beyond it; and if they come at once they have the quota.
        #[test]
        fn nobody_has_more_than_the_quota_or_less(
            millicores in 10_u32..1000,
            calls in prop::collection::vec((1_u64..5_000, 0_u64..3_000), 1..50),
        ) {
            let time = Duration::from_secs(5);
            let of = |microseconds| Duration::from_micros(microseconds);
            let share = |time: Duration| time * millicores / 1000;
            let calls: Vec<_> = calls.into_iter().map(|(cpu, pause)| (of(cpu), of(pause))).collect();
            let longest = calls.iter().map(|(cpu, _)| *cpu).max().unwrap();
            // What one call owes beyond one and a half budgets is forgiven.
            if longest <= share(PERIOD / 2) {
                let used = one_after_the_other(millicores, &calls, time);
                prop_assert!(used <= share(time + PERIOD) + longest, "{used:?}");
            }
            let wanted = (calls.iter().map(|(cpu, _)| *cpu).sum::<Duration>()).as_secs_f64()
                / calls.iter().map(|(cpu, pause)| *cpu + *pause).sum::<Duration>().as_secs_f64();
            let used = one_after_the_other(millicores, &calls, time);
            let least = share(time).as_secs_f64().min(wanted * time.as_secs_f64());
            prop_assert!(used.as_secs_f64() >= 0.9 * least, "{used:?} of {least}");
        }

        /// Invocations that overlap: there are never more lanes taken than run, and each is left once; when all have ended everybody may
        /// begin after a period.
        #[test]
        fn lanes_are_given_back(steps in prop::collection::vec((any::<bool>(), 0_u64..40_000), 1..200)) {
            let mut now = Instant::now();
            let mut lanes = Lanes::new(PERIOD, now);
            let mut taken: Vec<(usize, Instant)> = Vec::new();
            for (begins, passed) in steps {
                now += Duration::from_micros(passed);
                if begins {
                    if let Entry::Begins(number) = lanes.enter(now) {
                        prop_assert!(taken.iter().all(|(other, _)| *other != number), "it was taken");
                        taken.push((number, now));
                    }
                } else if let Some((number, begun)) = taken.pop() {
                    lanes.leave(number, begun, now - begun, quota(200), now);
                }
                prop_assert_eq!(lanes.running, taken.len());
            }
            for (number, begun) in taken {
                lanes.leave(number, begun, now - begun, quota(200), now);
            }
            now += PERIOD * 2;
            prop_assert!(matches!(lanes.enter(now), Entry::Begins(_)));
        }
    }
}
