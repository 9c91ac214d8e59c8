//! Worker threads: where guests run. Started on demand, kept while they have work, ended when idle for long.
//!
//! How many invocations are in flight is for admission to say. Which worker takes which job is decided in [`dispatch`]; here are the threads.
//!
//! - [`dispatch`]: who is woken; [`estimate`]: how long a function usually runs
//! - [`mod@run`]: one invocation on one thread, limited and measured; [`slot`]: where a worker gets its jobs

pub mod dispatch;
pub mod estimate;
pub mod run;
mod slot;

use std::{
    io,
    panic::AssertUnwindSafe,
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use prometheus::IntGauge;

use self::{
    dispatch::{Dispatch, Wake},
    estimate::ExecutionEstimate,
    slot::{Inbox, WorkerSlot, lock},
};
use crate::{
    access_log::Record,
    admission::Permit,
    cgroup::{Cgroups, thread::ThreadCgroup},
    epoch,
    exchange::{
        budget::{ByteBudget, Hold},
        request_body::FRAME,
    },
    invocation::{CancelReason, Outcome},
    memory::MemoryReservation,
    metrics::gauge,
    sandbox::{Call, ReplySender, Setup},
};

/// Guests run on fibers with stacks of their own; this is for what is around them.
const STACK_BYTES: usize = 1 << 20;
/// How often the supervisor looks at a queue that is in use.
const LOOK: Duration = Duration::from_millis(1);
/// The supervisor sleeps after having found the queue empty this many times.
const QUIET_LOOKS: u32 = 100;

/// One admitted invocation.
pub struct Job {
    pub call: Call,
    pub setup: Setup,
    pub reply: ReplySender,
    pub permit: Permit,
    pub record: Arc<Record>,
    pub estimate: Arc<ExecutionEstimate>,
    /// For an answer that is not delivered when it has ended.
    pub answers: ByteBudget,
    /// Counts it while it runs.
    pub in_flight: IntGauge,
}

/// The threads; dropping the pool waits for running jobs and joins all.
pub struct WorkerPool {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// Wakes the supervisor.
    waiting: Condvar,
    epochs: epoch::Awake,
    cgroups: Cgroups,
    runtime: tokio::runtime::Handle,
    /// How many workers there are, for the metrics.
    workers: IntGauge,
    /// How long a worker waits for work before it ends.
    keep_idle: Duration,
}

struct State {
    dispatch: Dispatch<Arc<WorkerSlot>, Job>,
    all: Vec<Arc<WorkerSlot>>,
    threads: Vec<JoinHandle<()>>,
    started: usize,
    supervised: bool,
    closed: bool,
}

impl WorkerPool {
    /// Workers poll their guests' host calls in the context of `runtime`. `workers` shows how many there are.
    ///
    /// # Errors
    /// If the supervisor's thread cannot be started.
    pub fn new(
        runtime: tokio::runtime::Handle,
        epochs: epoch::Awake,
        cgroups: Cgroups,
        keep_idle: Duration,
        workers: IntGauge,
    ) -> io::Result<Self> {
        let state = State {
            dispatch: Dispatch::new(thread::available_parallelism().map_or(1, usize::from)),
            all: Vec::new(),
            threads: Vec::new(),
            started: 0,
            supervised: false,
            closed: false,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            waiting: Condvar::new(),
            epochs,
            cgroups,
            runtime,
            workers,
            keep_idle,
        });
        let supervisor = {
            let shared = shared.clone();
            thread::Builder::new().name("supervisor".into()).spawn(move || shared.supervise())?
        };
        lock(&shared.state).threads.push(supervisor);
        Ok(WorkerPool { shared })
    }

    /// Has `job` run, on a worker that is awake, idle or new.
    ///
    /// # Errors
    /// If there is no worker and no thread can be started; the job, with its permit, is dropped.
    pub fn run(&self, job: Job) -> io::Result<()> {
        let mut state = lock(&self.shared.state);
        let usually = job.estimate.get();
        state.dispatch.push(job, usually);
        let woken = self.shared.dispatch(&mut state);
        if !state.dispatch.is_empty() && !state.supervised {
            state.supervised = true;
            self.shared.waiting.notify_one();
        }
        match woken {
            Err(error) if state.all.is_empty() => {
                state.dispatch.clear();
                Err(error)
            }
            // Those that are there will come to it.
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// The memory of running invocations.
    pub fn running(&self) -> Vec<Arc<MemoryReservation>> {
        lock(&self.shared.state).all.iter().filter_map(|slot| slot.running()).collect()
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

fn join(thread: JoinHandle<()>) {
    // A panic in a worker was reported by the panic hook.
    let _ = thread.join();
}

impl Shared {
    /// Gives the first job to an idle or new worker, unless it will have one sooner without.
    fn dispatch(self: &Arc<Self>, state: &mut State) -> io::Result<()> {
        let now = Instant::now();
        let slot = match state.dispatch.wake(now) {
            None => return Ok(()),
            Some(Wake::Idle(slot)) => slot,
            Some(Wake::New) => self.start_worker(state)?,
        };
        let job = state.dispatch.begin(&slot, now).expect("somebody was woken for it, under this lock");
        slot.put(Inbox::Job(Box::new(job)));
        Ok(())
    }

    fn start_worker(self: &Arc<Self>, state: &mut State) -> io::Result<Arc<WorkerSlot>> {
        // Ended threads are joined when another starts, so that their handles do not pile up.
        let (ended, living): (Vec<_>, Vec<_>) = state.threads.drain(..).partition(JoinHandle::is_finished);
        state.threads = living;
        ended.into_iter().for_each(join);
        let slot = Arc::new(WorkerSlot::default());
        let thread = {
            let (shared, slot) = (self.clone(), slot.clone());
            thread::Builder::new()
                .name(format!("worker-{}", state.started))
                .stack_size(STACK_BYTES)
                .spawn(move || shared.work(&slot))?
        };
        state.started += 1;
        state.all.push(slot.clone());
        state.threads.push(thread);
        self.workers.set(gauge(state.all.len()));
        Ok(slot)
    }

    /// Sees to it that queued jobs do not wait for workers that turned out to be busy for long.
    fn supervise(self: &Arc<Self>) {
        let mut quiet_looks = 0;
        let mut state = lock(&self.state);
        while !state.closed {
            if quiet_looks > QUIET_LOOKS {
                state.supervised = false;
                state = self.waiting.wait(state).unwrap_or_else(PoisonError::into_inner);
                quiet_looks = 0;
            } else {
                state = self.waiting.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner).0;
                quiet_looks = if state.dispatch.is_empty() { quiet_looks + 1 } else { 0 };
                // Who cannot be started now is tried again at the next look.
                let _ = self.dispatch(&mut state);
            }
        }
    }

    fn work(&self, slot: &Arc<WorkerSlot>) {
        let _context = self.runtime.enter();
        let mut cgroup = self.cgroups.thread();
        loop {
            match slot.wait(self.keep_idle) {
                Inbox::Job(job) => {
                    self.run(slot, *job, &mut cgroup);
                    while let Some(job) = self.next(slot) {
                        self.run(slot, job, &mut cgroup);
                    }
                }
                Inbox::Closed => break,
                Inbox::Empty => {
                    if lock(&self.state).dispatch.retire(slot) {
                        break;
                    }
                }
            }
        }
        let mut state = lock(&self.state);
        state.all.retain(|other| other != slot);
        self.workers.set(gauge(state.all.len()));
    }

    /// The next job, or `None`, having joined the idle.
    fn next(&self, slot: &Arc<WorkerSlot>) -> Option<Job> {
        let mut state = lock(&self.state);
        let next = state.dispatch.next(slot, Instant::now());
        if next.is_none() && state.closed && state.dispatch.retire(slot) {
            slot.put(Inbox::Closed);
        }
        next
    }

    fn run(&self, slot: &WorkerSlot, job: Job, cgroup: &mut ThreadCgroup) {
        let Job { call, setup, reply, permit, record, estimate, answers, in_flight } = job;
        let mut permit = Some(permit);
        let (id, function) = (setup.id, setup.function.clone());
        in_flight.inc();
        slot.set_running(setup.memory.clone());
        // The reply's channel closes in a panic: the client is answered 500, or its answer is broken off.
        let result = std::panic::catch_unwind(AssertUnwindSafe(|| {
            // All is dropped here, in a panic, too.
            let (setup, reply) = (setup, reply);
            let observe = |outcome: &Outcome| {
                estimate.add(outcome.usage.execution);
                record.ended(outcome.clone());
            };
            let memory = setup.memory.clone();
            // A small answer is included in what a connection may hold. One for which there is no room keeps the permit until it is
            // delivered, and stays in the account of its invocation.
            let hold = |bytes| match answers.reserve(bytes) {
                _ if bytes <= FRAME => None,
                Some(reserved) => Some(Box::new(reserved) as Hold),
                None => permit.take().map(|permit| Box::new((permit, memory)) as Hold),
            };
            run::run(call, &setup, cgroup, &self.epochs, &reply, observe, hold);
        }));
        drop(slot.take_running());
        in_flight.dec();
        if result.is_err() {
            tracing::error!(%id, %function, "internal error: a worker panicked; the box goes on");
            // What it has spent is not known.
            *cgroup = self.cgroups.thread();
        }
        drop(permit);
    }
}
