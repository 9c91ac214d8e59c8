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
        executor::{SLICE_MEMORY, Unfinished},
    },
    threads,
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
    pub outcome: Outcome,
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

    /// Whether what it does before it waits cannot keep a thread: no file is opened, no memory is made resident, and its instance
    /// has no more memory than it may touch there in one instruction.
    pub fn fits_in_a_slice(&self) -> bool {
        let setup = &self.setup;
        setup.preallocated == 0 && setup.grants.preopens.is_empty() && setup.memory.grown() <= SLICE_MEMORY as u64
    }

    /// Runs for a slice on this thread, which is in no worker's cgroup. `is_limited`: there are cgroups. Gives the CPU time used here, and
    /// how it ended, if it has. The thread must be in a tokio context.
    pub fn slice(&mut self, epochs: &epoch::Awake, is_limited: bool) -> (Duration, Result<Finished, Unfinished>) {
        let times = is_limited.then(CgroupTimes::default);
        self.reply.set_cgroup(times);
        self.started = Some(Instant::now());
        let cpu_before = threads::cpu_time();
        let ended = self.guest.slice(cpu_before, epochs);
        self.cpu = threads::cpu_time().saturating_sub(cpu_before);
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
        let cpu_before = threads::cpu_time();
        let ended = self.guest.run(epochs);
        // From here on this thread works for the box, with a fresh budget.
        let cpu = threads::cpu_time().saturating_sub(cpu_before);
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
        Finished { outcome: Outcome { usage, began: self.started, cgroup, failure }, answer, remains: Some(remains) }
    }

    /// Bytes of its answer that may still have to be delivered.
    pub fn undelivered(&self, finished: &Finished) -> u64 {
        match &finished.answer {
            Some(answer) => answer.bytes(),
            None if self.reply.is_streaming() => self.setup.most_undelivered(),
            None => 0,
        }
    }

    /// Keeps its instance, if that may serve another invocation. Nothing but what is undelivered belongs to this one then.
    pub fn keep_instance(&self, finished: &mut Finished) {
        let undelivered = self.undelivered(finished);
        if let Some(remains) = &mut finished.remains {
            remains.keep(&self.setup, undelivered);
        }
    }

    /// Tells whoever waits. `hold` accounts for what is undelivered.
    pub fn end(self, finished: Finished, hold: Option<Hold>) {
        let Finished { outcome, answer, remains } = finished;
        // Before the guest's streams are closed: whoever sees them closed can see why.
        self.reply.end(outcome, answer, hold);
        drop(remains);
        self.setup.memory.guest_ended();
    }
}
