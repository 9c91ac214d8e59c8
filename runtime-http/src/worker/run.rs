//! One invocation: its guest, limited and measured, and what becomes of it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    cgroup::thread::ThreadCgroup,
    epoch,
    exchange::budget::Hold,
    invocation::{CgroupTimes, Failure, Outcome, Usage},
    memory::MemoryReservation,
    sandbox::{
        Answer, Call, Ended, Guest, Remains, ReplySender, Setup,
        executor::{Unfinished, thread_cpu_time},
    },
};

/// A guest with what it has used so far, and the way to whoever waits for it.
pub struct Invocation {
    guest: Guest,
    setup: Arc<Setup>,
    reply: ReplySender,
    /// When its guest began.
    started: Option<Instant>,
    cpu: Duration,
    /// For how long its function's budget kept it from beginning.
    waited: Duration,
}

/// A guest that has ended, and is not yet told of.
#[must_use = "somebody waits for it"]
pub struct Finished {
    outcome: Outcome,
    answer: Option<Answer>,
    remains: Option<Remains>,
}

impl Invocation {
    pub fn new(call: Call, setup: Setup, reply: ReplySender) -> Invocation {
        let setup = Arc::new(setup);
        Invocation::of(Guest::new(call, setup.clone(), reply.clone()), setup, reply)
    }

    pub(super) fn of(guest: Guest, setup: Arc<Setup>, reply: ReplySender) -> Invocation {
        Invocation { guest, setup, reply, started: None, cpu: Duration::ZERO, waited: Duration::ZERO }
    }

    /// Its function's budget was spent for so long.
    #[must_use]
    pub fn after(self, waited: Duration) -> Invocation {
        Invocation { waited, ..self }
    }

    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    pub fn memory(&self) -> &Arc<MemoryReservation> {
        &self.setup.memory
    }

    /// Whether what it does before it waits cannot keep a thread: no file is opened, and no memory is made resident.
    pub fn fits_in_a_slice(&self) -> bool {
        self.setup.preallocated == 0 && self.setup.grants.preopens.is_empty()
    }

    /// Runs for a slice on this thread, which is in no worker's cgroup. `is_limited`: there are cgroups. Gives the CPU time used here, and
    /// how it ended, if it has. The thread must be in a tokio context.
    pub fn slice(&mut self, epochs: &epoch::Awake, is_limited: bool) -> (Duration, Result<Finished, Unfinished>) {
        let times = is_limited.then(CgroupTimes::default);
        self.reply.set_cgroup(times);
        self.started = Some(Instant::now());
        let cpu_before = thread_cpu_time();
        let ended = self.guest.slice(cpu_before, epochs);
        self.cpu = thread_cpu_time().saturating_sub(cpu_before);
        (self.cpu, ended.map(|ended| self.finished(ended, times, is_limited.then_some(Duration::ZERO))))
    }

    /// Runs to the end on this thread, under its CPU limit. The thread must be in a tokio context.
    pub fn run(&mut self, cgroup: &mut ThreadCgroup, epochs: &epoch::Awake) -> Finished {
        let times = match cgroup.begin(self.setup.limits.cpu_quota) {
            Ok(times) => times,
            Err(error) => {
                let failure = Failure::Internal { reason: format!("its CPU limit could not be set: {error}") };
                let outcome = Outcome { failure: Some(failure), ..Outcome::default() };
                return Finished { outcome, answer: None, remains: None };
            }
        };
        self.reply.set_cgroup(times);
        let cancel = &self.setup.memory.cancel;
        cancel.begin(cgroup.lift());
        self.started.get_or_insert_with(Instant::now);
        let cpu_before = thread_cpu_time();
        let ended = self.guest.run(epochs);
        // From here on this thread works for the box, with a fresh budget.
        let cpu = thread_cpu_time().saturating_sub(cpu_before);
        self.cpu += cpu;
        let throttled = cgroup.end(cpu, cancel.end());
        self.finished(ended, times, throttled)
    }

    fn finished(&self, ended: Ended, cgroup: Option<CgroupTimes>, throttled: Option<Duration>) -> Finished {
        let Ended { result, memory_peak, remains } = ended;
        let usage = Usage {
            execution: self.started.map_or(Duration::ZERO, |started| started.elapsed()),
            cpu: self.cpu,
            throttled: throttled.map(|throttled| throttled + self.waited),
            outbound: self.setup.outbound.waited(),
            memory_peak,
        };
        let (answer, failure) = match result {
            Ok(answer) => (answer, None),
            Err(failure) => (None, Some(failure)),
        };
        Finished { outcome: Outcome { usage, cgroup, failure }, answer, remains: Some(remains) }
    }

    /// Tells whoever waits. `observe` sees the outcome before. `hold` is asked to account for so many bytes that may still have to be
    /// delivered.
    pub fn end(self, finished: Finished, observe: impl FnOnce(&Outcome), hold: impl FnOnce(u64) -> Option<Hold>) {
        let Finished { outcome, answer, remains } = finished;
        observe(&outcome);
        // Before the guest's streams are closed: whoever sees them closed can see why.
        let undelivered = match &answer {
            Some(answer) => answer.bytes(),
            None if self.reply.is_streaming() => self.setup.most_undelivered(),
            None => 0,
        };
        self.reply.end(outcome, answer, hold(undelivered));
        drop(remains);
        self.setup.memory.guest_ended();
    }
}
