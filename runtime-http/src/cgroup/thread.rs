//! The cgroup of one worker thread: what is done before and after each of its invocations.
//!
//! Nothing is carried over from one invocation to the next on the same worker. An invocation that used up its budget leaves a throttled
//! thread and an empty budget behind, which would cost the next one up to a period. So after one that used a noticeable part of its
//! budget the quota is lifted: at once, before the box's own work after the guest, during which the thread holds locks and memory that
//! others wait for and must not be throttled. The next one writes its quota, which gives it a whole budget. Short invocations write nothing
//! at all.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use wasmbox_cgroup::{Bandwidth, Leaf, LeafError, LeafQuota, Step};

use super::{Mode, Nested};
use crate::{
    invocation::{CgroupTimes, QuotaLift},
    limits::CpuQuota,
};

/// The part of a budget that is noticeable. So at most twice this part of a period's budget is missing when an invocation starts, and
/// what the box itself has used on this thread since it was filled: a few times as much where functions are trivial.
const NOTICEABLE: u32 = 16;

impl QuotaLift for LeafQuota {
    fn lift(&self) {
        if let Err(errno) = LeafQuota::lift(self) {
            tracing::debug!("a quota cannot be lifted: {errno}");
        }
    }
}

/// Used by one thread, the one that is limited.
#[derive(Debug)]
pub struct ThreadCgroup {
    nested: Option<Arc<Nested>>,
    leaf: Option<Joined>,
}

#[derive(Debug)]
struct Joined {
    leaf: Leaf,
    /// CPU time used since `since`.
    spent: Duration,
    /// When the quota was last set, or the kernel was last known to have filled the budget.
    since: Instant,
    /// The leaf's throttled time when it was last read.
    throttled: Duration,
}

impl Joined {
    /// Whether a noticeable part of the budget is gone.
    fn has_spent(&self) -> bool {
        self.spent >= self.budget() / NOTICEABLE
    }

    /// The kernel fills the budget once in a period. So of what was used in longer than that, only the last use counts.
    fn discount(&mut self, last: Duration) {
        let period = self.leaf.bandwidth().map_or(Duration::MAX, |bandwidth| bandwidth.period());
        if self.has_spent() && self.since.elapsed() >= period {
            self.spent = last;
            self.since = Instant::now();
        }
    }

    fn budget(&self) -> Duration {
        self.leaf.bandwidth().map_or(Duration::MAX, |bandwidth| bandwidth.budget())
    }
}

impl ThreadCgroup {
    pub(super) fn new(nested: Option<Arc<Nested>>) -> ThreadCgroup {
        ThreadCgroup { nested, leaf: None }
    }

    /// Limits this thread to `quota`; `None` if there are no cgroups.
    ///
    /// # Errors
    /// [`LeafError`]; then nothing may run here, since it would run without its limit.
    pub fn begin(&mut self, quota: CpuQuota) -> Result<Option<CgroupTimes>, LeafError> {
        let Some(nested) = self.nested.clone() else { return Ok(None) };
        let bandwidth = Bandwidth::of(quota.millicores(), nested.period);
        // A leaf that does not obey, because somebody removed it, is replaced once.
        let times = self.limit(&nested, bandwidth).or_else(|error| {
            tracing::debug!("{error}; trying with a new cgroup");
            self.leave();
            self.limit(&nested, bandwidth)
        });
        times.map(Some)
    }

    fn limit(&mut self, nested: &Nested, bandwidth: Bandwidth) -> Result<CgroupTimes, LeafError> {
        let mut times = CgroupTimes::default();
        let is_set = |joined: &Joined| joined.leaf.bandwidth() == Some(bandwidth) && !joined.has_spent();
        if self.leaf.as_ref().is_some_and(is_set) {
            return Ok(times);
        }
        let started = Instant::now();
        let made = match &mut self.leaf {
            Some(_) => None,
            None => {
                let mut leaf = nested.root.create(|| nested.next_name())?;
                // Before the thread is in it: it never runs without its limit.
                nested.set(&mut leaf, bandwidth).inspect_err(|_| nested.reaper.remove(leaf.name().to_owned()))?;
                times.creation = started.elapsed();
                nested.metrics.create.observe(times.creation.as_secs_f64());
                Some(leaf)
            }
        };
        let started = Instant::now();
        match made {
            Some(leaf) => {
                leaf.join().map_err(|errno| nested.error(Step::Join, &leaf, errno)).inspect_err(|_| {
                    nested.reaper.remove(leaf.name().to_owned());
                })?;
                times.assign = started.elapsed();
                nested.metrics.join.observe(times.assign.as_secs_f64());
                let since = Instant::now();
                self.leaf = Some(Joined { leaf, spent: Duration::ZERO, since, throttled: Duration::ZERO });
            }
            None => {
                let joined = self.leaf.as_mut().expect("there is one where none was made");
                nested.set(&mut joined.leaf, bandwidth)?;
                joined.spent = Duration::ZERO;
                joined.since = Instant::now();
                times.assign = started.elapsed();
                nested.metrics.quota.observe(times.assign.as_secs_f64());
            }
        }
        Ok(times)
    }

    /// With what others may lift this thread's quota before [`ThreadCgroup::end`].
    pub fn lift(&self) -> Option<Arc<dyn QuotaLift>> {
        self.leaf.as_ref().map(|joined| joined.leaf.quota() as Arc<dyn QuotaLift>)
    }

    /// The invocation is over, having used `cpu`; `lifted`: others have lifted its quota. Returns for how long it was throttled; `None`
    /// if there are no cgroups.
    pub fn end(&mut self, cpu: Duration, lifted: bool) -> Option<Duration> {
        let nested = self.nested.clone()?;
        let Some(joined) = &mut self.leaf else { return Some(Duration::ZERO) };
        joined.spent = joined.spent.saturating_add(cpu);
        let mut throttled = Duration::ZERO;
        // Below that it cannot have been throttled: reading is saved.
        if joined.spent.saturating_mul(2) >= joined.budget() {
            let sum = joined.leaf.throttled().unwrap_or(joined.throttled);
            throttled = sum.saturating_sub(joined.throttled);
            joined.throttled = sum;
        }
        match nested.mode {
            Mode::Fresh => self.leave(),
            Mode::Pinned if lifted => joined.leaf.forget(),
            Mode::Pinned => {
                joined.discount(cpu);
                if let Some(bandwidth) = joined.leaf.bandwidth().filter(|_| joined.has_spent()) {
                    let started = Instant::now();
                    match nested.set(&mut joined.leaf, bandwidth.lifted()) {
                        Ok(()) => nested.metrics.quota.observe(started.elapsed().as_secs_f64()),
                        // The next invocation sets its own, or is refused.
                        Err(error) => tracing::debug!("{error}"),
                    }
                }
            }
        }
        Some(throttled)
    }

    /// Leaves the leaf, which is then removed.
    fn leave(&mut self) {
        let (Some(nested), Some(joined)) = (&self.nested, self.leaf.take()) else { return };
        if let Err(error) = nested.root.join() {
            tracing::warn!("{error}");
        }
        nested.reaper.remove(joined.leaf.name().to_owned());
    }
}

impl Drop for ThreadCgroup {
    fn drop(&mut self) {
        self.leave();
    }
}
