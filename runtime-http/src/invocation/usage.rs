//! What an invocation used.

use std::time::Duration;

#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// Wall-clock time from the start of instantiation to the end of the call.
    pub execution: Duration,
    /// CPU time of the worker thread in that span.
    pub cpu: Duration,
    /// Wall-clock time for which its quota kept it from running; `None` without cgroups.
    pub throttled: Option<Duration>,
    /// Wall-clock time in which it waited for responses to requests of its own.
    pub outbound: Duration,
    /// The most guest memory at once, bytes.
    pub memory_peak: u64,
}

/// What an invocation's cgroup cost before it started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CgroupTimes {
    /// Making the cgroup; zero where the worker has one.
    pub creation: Duration,
    /// Setting the quota and joining; zero where nothing changed.
    pub assign: Duration,
}

/// As logs, headers and estimates have it.
pub fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
