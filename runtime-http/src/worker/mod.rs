//! Where guests run: for a first slice on the thread of their connection, else on worker threads.
//!
//! Handing an invocation to another thread costs more than most functions take. So one that is usually short begins where its request
//! was read; if it has not ended after a slice, or waits, it moves to a worker, as it is. Workers are started on demand, kept while they have
//! work, ended when idle for long. How many invocations are in flight is for admission to say.
//!
//! - [`mod@run`]: one invocation, limited and measured; [`job`]: with what is given back when it has ended
//! - [`estimate`]: how long a function usually runs; [`quota`]: what is left of its CPU quota
//! - [`dispatch`]: which worker is woken; [`slot`]: where it gets its jobs; [`threads`]: what it does with them

pub mod dispatch;
pub mod estimate;
mod job;
pub mod quota;
pub mod run;
mod slot;
mod threads;

use std::{
    io,
    sync::{Arc, Condvar, Mutex},
    thread,
    time::{Duration, Instant},
};

use prometheus::{IntCounter, IntGauge};
use thread_local::ThreadLocal;

pub use self::job::{InFlight, Job, OneRequest, Serves, SharingRequest};
use self::{
    dispatch::Dispatch,
    quota::{CpuBudget, Spending},
    slot::{Inbox, Running, lock},
    threads::{Shared, State, join},
};
use crate::{
    cgroup::Cgroups,
    epoch::{self, slice},
    invocation::CancelReason,
    limits::CpuQuota,
    memory::MemoryReservation,
    metrics::SliceMetrics,
};

/// Where guests begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Inline {
    /// On the thread of their connection, if they are usually short.
    Auto,
    /// On workers.
    Off,
}

/// What a pool is made of.
pub struct PoolSettings {
    /// In its context guests' host calls are polled.
    pub runtime: tokio::runtime::Handle,
    pub epochs: epoch::Awake,
    pub cgroups: Cgroups,
    pub inline: Inline,
    /// How long a worker waits for work before it ends.
    pub keep_idle: Duration,
    /// How many workers there are.
    pub workers: IntGauge,
    /// How often a thread for one could not be started.
    pub start_failures: IntCounter,
    pub slices: SliceMetrics,
}

/// The threads; dropping the pool waits for running jobs and joins all.
pub struct WorkerPool {
    shared: Arc<Shared>,
}

impl WorkerPool {
    /// # Errors
    /// If the supervisor's thread cannot be started.
    pub fn new(settings: PoolSettings) -> io::Result<Self> {
        let state = State {
            dispatch: Dispatch::new(thread::available_parallelism().map_or(1, usize::from)),
            all: Vec::new(),
            threads: Vec::new(),
            started: 0,
            refused: None,
            told: None,
            supervised: false,
            closed: false,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            waiting: Condvar::new(),
            slices: ThreadLocal::new(),
            settings,
        });
        let supervisor = {
            let shared = shared.clone();
            thread::Builder::new().name("supervisor".into()).spawn(move || shared.supervise())?
        };
        lock(&shared.state).threads.push(supervisor);
        Ok(WorkerPool { shared })
    }

    /// What an invocation with `quota` may use of its function's `budget`: waits while that is spent, at most until `deadline`, and gives how
    /// long that was. Without cgroups there is no limit.
    pub async fn spend(&self, budget: &Arc<CpuBudget>, quota: CpuQuota, deadline: Instant) -> (Spending, Duration) {
        let Some(bandwidth) = self.shared.settings.cgroups.bandwidth(quota) else {
            return (Spending::Unlimited, Duration::ZERO);
        };
        let mut since = None;
        loop {
            let spending = match budget.enter(quota, bandwidth) {
                Ok(spending) => spending,
                // Its guest sees its deadline before it begins.
                Err(_) if Instant::now() >= deadline => Spending::Unaccounted,
                Err(until) => {
                    since.get_or_insert_with(Instant::now);
                    tokio::time::sleep_until(until.min(deadline).into()).await;
                    continue;
                }
            };
            return (spending, since.map_or(Duration::ZERO, |since| since.elapsed()));
        }
    }

    /// Has `job` run: a first slice of it at once, if it is likely to end within; else on a worker that is awake, idle or new.
    ///
    /// # Errors
    /// If there is no worker and no thread can be started; the job, with its permit, is dropped.
    pub fn run(&self, job: Job) -> io::Result<()> {
        if self.shared.settings.inline == Inline::Off || !job.fits_in_a_slice() || !slice::can_be_ended() {
            let usually = job.usually();
            return self.hand_over(job, usually);
        }
        let running = self.shared.slices.get_or_default();
        running.set(job.invocation.memory());
        let result = match self.shared.slice(job) {
            None => Ok(()),
            Some(unfinished) => self.hand_over(unfinished, None),
        };
        // Now whoever evicts or cancels finds it with its worker, if it is not over.
        running.clear();
        result
    }

    fn hand_over(&self, job: Job, usually: Option<Duration>) -> io::Result<()> {
        let mut state = lock(&self.shared.state);
        state.dispatch.push(job, usually);
        let woken = self.shared.dispatch(&mut state);
        if !state.dispatch.is_empty() && !state.supervised {
            state.supervised = true;
            self.shared.waiting.notify_one();
        }
        match woken {
            Err(error) if state.all.is_empty() => {
                let dropped = state.dispatch.clear();
                drop(state);
                drop(dropped);
                Err(error)
            }
            // Those that are there will come to it.
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// The memory of invocations that run, or wait for a worker.
    pub fn running(&self) -> Vec<Arc<MemoryReservation>> {
        let mut running: Vec<_> = {
            // What moves is seen at both places for a moment, never at none.
            let slices = self.shared.slices.iter().filter_map(Running::get).collect::<Vec<_>>();
            let state = lock(&self.shared.state);
            let waiting = state.dispatch.waiting().map(|job| job.invocation.memory().clone());
            slices.into_iter().chain(waiting).chain(state.all.iter().filter_map(|slot| slot.running.get())).collect()
        };
        running.sort_by_key(|memory| memory.seniority);
        running.dedup_by_key(|memory| memory.seniority);
        running
    }

    /// Cancels all running invocations.
    pub fn cancel_all(&self, reason: CancelReason) {
        for memory in self.running() {
            memory.cancel.cancel(reason);
        }
    }
}

impl Drop for WorkerPool {
    fn drop(&mut self) {
        let threads = {
            let mut state = lock(&self.shared.state);
            state.closed = true;
            for slot in state.dispatch.take_idle() {
                slot.put(Inbox::Closed);
            }
            self.shared.waiting.notify_one();
            std::mem::take(&mut state.threads)
        };
        threads.into_iter().for_each(join);
    }
}

#[cfg(test)]
mod tests;
