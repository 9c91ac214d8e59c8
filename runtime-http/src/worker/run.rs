//! One invocation on the calling thread, under its CPU limit, measured.

use std::time::{Duration, Instant};

use crate::{
    cgroup::thread::ThreadCgroup,
    epoch,
    exchange::budget::Hold,
    invocation::{Failure, Outcome, Usage},
    sandbox::{self, Call, Ended, ReplySender, Setup},
};

/// Runs to the end. `observe` sees the outcome before whoever waits for `reply`. `hold` is asked to account for so many bytes that may still
/// have to be delivered. The thread must be in a tokio context.
pub fn run(
    call: Call,
    setup: &Setup,
    cgroup: &mut ThreadCgroup,
    epochs: &epoch::Awake,
    reply: &ReplySender,
    observe: impl FnOnce(&Outcome),
    hold: impl FnOnce(u64) -> Option<Hold>,
) {
    let times = match cgroup.begin(setup.limits.cpu_quota) {
        Ok(times) => times,
        Err(error) => {
            let failure = Failure::Internal { reason: format!("its CPU limit could not be set: {error}") };
            let outcome = Outcome { failure: Some(failure), ..Outcome::default() };
            observe(&outcome);
            return reply.end(outcome, None, None);
        }
    };
    reply.set_cgroup(times);
    let cancel = &setup.memory.cancel;
    cancel.begin(cgroup.lift());
    let (started, cpu_before) = (Instant::now(), thread_cpu_time());
    let Ended { result, memory_peak, remains } = sandbox::run(call, setup, epochs, reply);
    // From here on this thread works for the box, with a fresh budget.
    let execution = started.elapsed();
    let cpu = thread_cpu_time().saturating_sub(cpu_before);
    let throttled = cgroup.end(cpu, cancel.end());
    let usage = Usage { execution, cpu, throttled, memory_peak };
    let (answer, failure) = match result {
        Ok(answer) => (answer, None),
        Err(failure) => (None, Some(failure)),
    };
    let outcome = Outcome { usage, cgroup: times, failure };
    observe(&outcome);
    // Before the guest's streams are closed: whoever sees them closed can see why.
    let undelivered = match &answer {
        Some(answer) => answer.bytes(),
        None if reply.is_streaming() => setup.most_undelivered(),
        None => 0,
    };
    reply.end(outcome, answer, hold(undelivered));
    drop(remains);
    setup.memory.guest_ended();
}

fn thread_cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}
