//! What is known of one invocation when it is over: one line of the log, and the metrics.
//!
//! Both sides, the API and the worker, tell a [`Record`] what they have found out, and nobody reads it. Whoever holds the last reference
//! writes it, so it is written once, however the invocation ends.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use http::StatusCode;

use crate::{
    invocation::{Failure, InvocationId, Outcome, microseconds},
    metrics::FunctionMetrics,
};

/// What the client was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Answered {
    status: StatusCode,
    /// The problem's code; empty for an answer of the function.
    code: &'static str,
}

/// The record of one invocation. Each part is set at most once.
#[derive(Debug)]
pub struct Record {
    id: InvocationId,
    arrived: Instant,
    function: Arc<FunctionMetrics>,
    compile: OnceLock<Duration>,
    queue: OnceLock<Duration>,
    answered: OnceLock<Answered>,
    outcome: OnceLock<Outcome>,
    aborted: OnceLock<Failure>,
}

impl Record {
    pub fn new(id: InvocationId, function: Arc<FunctionMetrics>, arrived: Instant) -> Arc<Self> {
        Arc::new(Record {
            id,
            arrived,
            function,
            compile: OnceLock::new(),
            queue: OnceLock::new(),
            answered: OnceLock::new(),
            outcome: OnceLock::new(),
            aborted: OnceLock::new(),
        })
    }

    /// How long it waited for its function to be ready.
    pub fn compiled(&self, time: Duration) {
        let _ = self.compile.set(time);
    }

    /// How long it waited for admission.
    pub fn admitted(&self, time: Duration) {
        let _ = self.queue.set(time);
    }

    /// The head of its answer is known.
    pub fn answered(&self, status: StatusCode, code: &'static str) {
        let _ = self.answered.set(Answered { status, code });
    }

    /// Its guest has ended.
    pub fn ended(&self, outcome: Outcome) {
        let _ = self.outcome.set(outcome);
    }

    /// Its answer was broken off by the client's side, although its guest may have ended well.
    pub fn aborted(&self, failure: Failure) {
        let _ = self.aborted.set(failure);
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
        let outcome = self.outcome.get();
        let usage = outcome.map(|outcome| outcome.usage).unwrap_or_default();
        // A response that had started when its function failed keeps its status; the failure is told here.
        let failure = self.aborted.get().or(outcome.and_then(|outcome| outcome.failure.as_ref()));
        let failure = failure.map(Failure::without_stderr).map(tracing::field::display);
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
            outbound_us = micros(Some(&usage.outbound)),
            memory_bytes = usage.memory_peak,
            failure,
        );
        self.function.observe(status, self.arrived.elapsed(), self.queue.get(), outcome.map(|outcome| &outcome.usage));
    }
}
