//! Threads of the box: how they begin, and what an operator can do where they cannot be started.

use std::{sync::Arc, time::Duration};

use rustix::time::{ClockId, clock_gettime};

/// What a thread does first.
pub type ThreadStart = Arc<dyn Fn() + Send + Sync>;

pub const REMEDY: &str = "raise the limit on threads: the container's (pids), or the user's (ulimit -u)";

/// CPU time of the calling thread. A signal handler may ask for it.
pub fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}
