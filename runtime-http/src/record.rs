//! What is known of one invocation: filled by both sides, the API and the worker; when both are done it becomes one log line and the
//! metrics. Whoever holds the last reference writes it, so it is written once, however the invocation ends.

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use http::StatusCode;

use crate::{cgroup::seat::CgroupTimes, metrics::FunctionMetrics, sandbox::Failure};

/// Unique among all boxes: 64 random bits of the process, and a counter. Shown as 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvocationId {
    process: u64,
    number: u64,
}

impl InvocationId {
    pub fn next() -> Self {
        static PROCESS: OnceLock<u64> = OnceLock::new();
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        // A `RandomState` is keyed by the operating system's randomness; the id need not be secret, only unique.
        let process = *PROCESS.get_or_init(|| {
            use std::hash::BuildHasher;
            std::hash::RandomState::new().hash_one(std::process::id())
        });
        InvocationId { process, number: NUMBER.fetch_add(1, Ordering::Relaxed) }
    }
}

/// The digits of an [`InvocationId`].
pub struct Digits([u8; 32]);

impl InvocationId {
    /// Written twice for each invocation: digit by digit, since `{:016x}` takes several times as long.
    pub fn digits(self) -> Digits {
        let mut digits = [0; 32];
        let number = u128::from(self.process) << 64 | u128::from(self.number);
        for (pair, byte) in digits.chunks_exact_mut(2).zip(number.to_be_bytes()) {
            pair[0] = b"0123456789abcdef"[usize::from(byte >> 4)];
            pair[1] = b"0123456789abcdef"[usize::from(byte & 0xf)];
        }
        Digits(digits)
    }
}

impl Digits {
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("hexadecimal digits are ASCII")
    }
}

impl fmt::Display for InvocationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.digits().as_str())
    }
}

/// As logs, headers and estimates have it.
pub fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// What the guest used.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// Wall-clock time from the start of instantiation to the end of the call.
    pub execution: Duration,
    /// CPU time of the worker thread in that span.
    pub cpu: Duration,
    /// Wall-clock time for which its quota kept it from running; `None` without cgroups.
    pub throttled: Option<Duration>,
    /// The most guest memory at once, bytes.
    pub memory_peak: u64,
}

/// How the worker's side ended.
#[derive(Debug, Clone)]
pub struct End {
    pub usage: Usage,
    pub failure: Option<Failure>,
}

/// What the client was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answered {
    pub status: StatusCode,
    /// The problem's code; empty for an answer of the function.
    pub code: &'static str,
}

/// The record of one invocation. Each part is set at most once.
#[derive(Debug)]
pub struct Record {
    pub id: InvocationId,
    pub arrived: Instant,
    pub function: Arc<FunctionMetrics>,
    pub compile: OnceLock<Duration>,
    pub queue: OnceLock<Duration>,
    /// Unset without cgroups.
    pub cgroup: OnceLock<CgroupTimes>,
    pub answered: OnceLock<Answered>,
    pub end: OnceLock<End>,
    /// Why the client's side broke the answer off, although the guest had ended well.
    pub cut: OnceLock<Failure>,
}

impl Record {
    pub fn new(function: Arc<FunctionMetrics>, arrived: Instant) -> Arc<Self> {
        Arc::new(Record {
            id: InvocationId::next(),
            arrived,
            function,
            compile: OnceLock::new(),
            queue: OnceLock::new(),
            cgroup: OnceLock::new(),
            answered: OnceLock::new(),
            end: OnceLock::new(),
            cut: OnceLock::new(),
        })
    }

    pub fn failure(&self) -> Option<&Failure> {
        self.cut.get().or_else(|| self.end.get()?.failure.as_ref())
    }
}

/// nginx's status for a client that left before its answer; it appears in the log and the metrics only.
const CLIENT_CLOSED_REQUEST: u16 = 499;

impl Drop for Record {
    fn drop(&mut self) {
        let micros = |duration: Option<&Duration>| duration.map_or(0, |duration| microseconds(*duration));
        let (status, code) = match self.answered.get() {
            Some(answered) => (answered.status.as_u16(), answered.code),
            None => (CLIENT_CLOSED_REQUEST, "client-gone"),
        };
        let usage = self.end.get().map(|end| end.usage).unwrap_or_default();
        // A response that had started when its function failed keeps its status; the failure is told here.
        let failure = self.failure().map(tracing::field::display);
        tracing::info!(
            target: "invocation",
            id = self.id.digits().as_str(),
            function = &**self.function.name(),
            status,
            code,
            queue_us = micros(self.queue.get()),
            compile_us = micros(self.compile.get()),
            exec_us = micros(Some(&usage.execution)),
            cpu_us = micros(Some(&usage.cpu)),
            throttled_us = micros(usage.throttled.as_ref()),
            memory_bytes = usage.memory_peak,
            failure,
        );
        self.function.observe(status, self.arrived.elapsed(), self.queue.get(), self.end.get().map(|end| &end.usage));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_32_digits() {
        let id = InvocationId { process: 0x0123_4567_89ab_cdef, number: 42 };
        assert_eq!(id.to_string(), "0123456789abcdef000000000000002a");
    }
}
