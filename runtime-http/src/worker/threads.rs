//! The threads on which guests run: workers, what starts them, and slices on threads that are none.

use std::{
    io,
    panic::AssertUnwindSafe,
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use thread_local::ThreadLocal;

use super::{
    Job, PoolSettings, Serves,
    dispatch::{Dispatch, Wake},
    slot::{Inbox, Running, WorkerSlot, lock},
};
use crate::{cgroup::thread::ThreadCgroup, metrics::gauge, sandbox::executor::Unfinished};

/// Guests run on fibers with stacks of their own; this is for what is around them.
const STACK_BYTES: usize = 1 << 20;
/// How often the supervisor looks at a queue that is in use.
const LOOK: Duration = Duration::from_millis(1);
/// CPU time for which a slice may hold a connection's thread once in a while: one that ends a little late is no reason to bar a function.
const LONG_HELD: Duration = Duration::from_millis(1);
/// After a thread could not be started, the next try is made so much later, unless there is no worker at all.
const RETRY: Duration = Duration::from_millis(100);
/// How often the log says so.
const TELL: Duration = Duration::from_secs(10);
/// The supervisor sleeps after having found the queue empty this many times.
const QUIET_LOOKS: u32 = 100;

pub(super) struct Shared {
    pub state: Mutex<State>,
    /// Wakes the supervisor.
    pub waiting: Condvar,
    /// What runs on threads that are not workers.
    pub slices: ThreadLocal<Running>,
    pub settings: PoolSettings,
}

pub(super) struct State {
    pub dispatch: Dispatch<Arc<WorkerSlot>, Job>,
    pub all: Vec<Arc<WorkerSlot>>,
    pub threads: Vec<JoinHandle<()>>,
    pub started: usize,
    /// When a thread could not be started last, and when the log said so last.
    pub refused: Option<Instant>,
    pub told: Option<Instant>,
    pub supervised: bool,
    pub closed: bool,
}

pub(super) fn join(thread: JoinHandle<()>) {
    // A panic in a worker was reported by the panic hook.
    let _ = thread.join();
}

fn is_recent(instant: Option<Instant>, within: Duration, now: Instant) -> bool {
    instant.is_some_and(|instant| now.saturating_duration_since(instant) < within)
}

impl Shared {
    /// Gives the first job to an idle or new worker, unless it will have one sooner without.
    pub fn dispatch(self: &Arc<Self>, state: &mut State) -> io::Result<()> {
        let now = Instant::now();
        let slot = match state.dispatch.wake(now) {
            None => return Ok(()),
            Some(Wake::Idle(slot)) => slot,
            Some(Wake::New) if !state.all.is_empty() && is_recent(state.refused, RETRY, now) => return Ok(()),
            Some(Wake::New) => self.start_worker(state, now)?,
        };
        let job = state.dispatch.begin(&slot, now).expect("somebody was woken for it, under this lock");
        slot.running.set(job.invocation.memory());
        slot.put(Inbox::Job(Box::new(job)));
        Ok(())
    }

    fn start_worker(self: &Arc<Self>, state: &mut State, now: Instant) -> io::Result<Arc<WorkerSlot>> {
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
                .spawn(move || shared.work(&slot))
                .inspect_err(|error| self.refused(state, error, now))?
        };
        state.started += 1;
        state.all.push(slot.clone());
        state.threads.push(thread);
        self.settings.workers.set(gauge(state.all.len()));
        Ok(slot)
    }

    fn refused(&self, state: &mut State, error: &io::Error, now: Instant) {
        self.settings.start_failures.inc();
        state.refused = Some(now);
        if !is_recent(state.told, TELL, now) {
            state.told = Some(now);
            tracing::warn!(
                workers = state.all.len(),
                "no thread for a worker: {error}; invocations wait for the workers that there are. Raise the limit on processes \
                 (pids.max of the container's cgroup, ulimit -u), or lower --max-invocations"
            );
        }
    }

    /// Sees to it that queued jobs do not wait for workers that turned out to be busy for long.
    pub fn supervise(self: &Arc<Self>) {
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
        let _context = self.settings.runtime.enter();
        let mut cgroup = self.settings.cgroups.thread();
        loop {
            match slot.wait(self.settings.keep_idle) {
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
        self.settings.workers.set(gauge(state.all.len()));
    }

    /// The next job, or `None`, having joined the idle.
    fn next(&self, slot: &Arc<WorkerSlot>) -> Option<Job> {
        let mut state = lock(&self.state);
        let next = state.dispatch.next(slot, Instant::now());
        if let Some(job) = &next {
            slot.running.set(job.invocation.memory());
        }
        if next.is_none() && state.closed && state.dispatch.retire(slot) {
            slot.put(Inbox::Closed);
        }
        next
    }

    fn run(&self, slot: &WorkerSlot, job: Job, cgroup: &mut ThreadCgroup) {
        let ended = contained(job, |mut job| {
            job.begin();
            let finished = job.invocation.run(cgroup, &self.settings.epochs);
            job.end(finished);
        });
        slot.running.clear();
        if ended.is_none() {
            // What it has spent is not known.
            *cgroup = self.settings.cgroups.thread();
        }
    }

    /// Runs the first slice of `job` on this thread; gives it back if it has to go on elsewhere.
    pub fn slice(&self, job: Job) -> Option<Job> {
        let PoolSettings { runtime, epochs, cgroups, slices, .. } = &self.settings;
        let _context = runtime.enter();
        contained(job, |mut job| {
            job.begin();
            let (held, result) = job.invocation.slice(epochs, cgroups.are_there());
            if let Serves::One(request) = &job.of {
                if result.is_err() || held >= LONG_HELD {
                    request.estimate.bar(held);
                } else {
                    request.estimate.ended_in_a_slice();
                }
            }
            match result {
                Ok(finished) => {
                    slices.done.inc();
                    job.end(finished);
                    None
                }
                Err(unfinished) => {
                    match unfinished {
                        Unfinished::Busy => slices.busy.inc(),
                        Unfinished::Waiting => slices.waiting.inc(),
                    }
                    Some(job)
                }
            }
        })
        .flatten()
    }
}

/// Runs `job`, which is dropped if that panics: the reply's channel closes, and the client is answered 500, or its answer is broken off.
fn contained<T>(job: Job, run: impl FnOnce(Job) -> T) -> Option<T> {
    let (id, function) = (job.invocation.setup().id, job.invocation.setup().function.clone());
    let result = std::panic::catch_unwind(AssertUnwindSafe(|| run(job)));
    if result.is_err() {
        tracing::error!(%id, %function, "internal error: an invocation panicked; the box goes on");
    }
    result.ok()
}
