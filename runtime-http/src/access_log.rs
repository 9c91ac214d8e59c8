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
    failures::Failed,
    invocation::{Failure, InvocationId, Outcome, microseconds},
    metrics::FunctionMetrics,
    traces::{
        InvocationTrace, Propagated,
        invocation::{Called, Ended},
    },
};

/// What the client was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Answered {
    status: StatusCode,
    /// The problem's code; empty for an answer of the function.
    code: &'static str,
}

/// The record of one invocation. Each part is set at most once.
pub struct Record {
    id: InvocationId,
    arrived: Instant,
    function: Arc<FunctionMetrics>,
    /// `None` where there are no traces.
    trace: Option<Box<InvocationTrace>>,
    compile: OnceLock<Duration>,
    /// Since when, and for how long.
    queue: OnceLock<(Instant, Duration)>,
    /// Whose its instance was, of functions whose instances are reused.
    instance: OnceLock<&'static str>,
    answered: OnceLock<Answered>,
    outcome: OnceLock<Outcome>,
    aborted: OnceLock<Failure>,
}

impl Record {
    pub fn new(
        id: InvocationId,
        function: Arc<FunctionMetrics>,
        arrived: Instant,
        trace: Option<Box<InvocationTrace>>,
    ) -> Arc<Self> {
        Arc::new(Record {
            id,
            arrived,
            function,
            trace,
            compile: OnceLock::new(),
            queue: OnceLock::new(),
            instance: OnceLock::new(),
            answered: OnceLock::new(),
            outcome: OnceLock::new(),
            aborted: OnceLock::new(),
        })
    }

    /// How long it waited for its function to be ready.
    pub fn compiled(&self, time: Duration) {
        let _ = self.compile.set(time);
    }

    /// How long it waited for admission, and since when.
    pub fn admitted(&self, since: Instant, time: Duration) {
        let _ = self.queue.set((since, time));
    }

    /// Whose its instance is.
    pub fn instance(&self, instance: &'static str) {
        let _ = self.instance.set(instance);
    }

    /// What requests of its own say of the trace that it belongs to.
    pub fn propagated(&self) -> Option<Propagated> {
        self.trace.as_ref().map(|trace| trace.propagated())
    }

    /// Its answer begins before it has ended.
    pub fn streams(&self) {
        if let Some(trace) = &self.trace {
            trace.streams(self.arrived);
        }
    }

    /// The head of its answer is known.
    pub fn answered(&self, status: StatusCode, code: &'static str) {
        let _ = self.answered.set(Answered { status, code });
    }

    /// Its guest has ended.
    pub fn ended(&self, outcome: Outcome) {
        let _ = self.outcome.set(outcome);
    }

    /// Why it failed, on whichever side. A response that had started when its function failed keeps its status; the failure is told here.
    fn failure(&self) -> Option<&Failure> {
        self.aborted.get().or(self.outcome.get().and_then(|outcome| outcome.failure.as_ref()))
    }

    /// For its spans, if they are recorded.
    fn traced(&mut self, code: &'static str, is_error: bool, total: Duration) -> Option<Ended> {
        let trace = self.trace.take().filter(|trace| trace.is_sampled())?;
        let since = |instant: Instant| instant.saturating_duration_since(self.arrived);
        let (failure, outcome) = (self.failure(), self.outcome.get());
        Some(Ended {
            trace: *trace,
            called: Some(Called {
                id: self.id,
                function: self.function.name().clone(),
                label: self.function.label().clone(),
            }),
            status: self.answered.get().map(|answered| answered.status.as_u16()),
            code,
            is_error,
            failure: failure.map(|failure| failure.code().as_str()),
            evicted: matches!(failure, Some(Failure::Evicted)),
            compile: self.compile.get().copied(),
            queue: self.queue.get().map(|(from, time)| (since(*from), since(*from) + *time)),
            began: outcome.and_then(|outcome| outcome.began).map(since),
            usage: outcome.map(|outcome| outcome.usage),
            cgroup: outcome.and_then(|outcome| outcome.cgroup),
            total,
        })
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
        let failure = self.failure();
        let failed = failure.and_then(|failure| Failed::new(self.id, self.function.name(), (status, code), failure));
        // Also what failed when its answer had begun with another status.
        let is_error = status >= 500 || failed.is_some() && status < 400;
        if let Some(failed) = failed {
            self.function.failed(failed);
        }
        let trace_id = self.trace.as_ref().map(|trace| tracing::field::display(trace.id()));
        let reason = failure.map(Failure::without_stderr).map(tracing::field::display);
        tracing::info!(
            target: "invocation",
            id = self.id.digits().as_str(),
            function = &**self.function.name(),
            trace_id,
            instance = self.instance.get(),
            status,
            code,
            queue_us = micros(self.queue.get().map(|(_, time)| time)),
            compile_us = micros(self.compile.get()),
            exec_us = micros(Some(&usage.execution)),
            cpu_us = micros(Some(&usage.cpu)),
            throttled_us = micros(usage.throttled.as_ref()),
            outbound_us = micros(Some(&usage.outbound)),
            memory_bytes = usage.memory_peak,
            failure = reason,
        );
        let total = self.arrived.elapsed();
        let queue = self.queue.get().map(|(_, time)| time);
        self.function.observe(status, is_error, total, queue, outcome.map(|outcome| &outcome.usage));
        if let Some(ended) = self.traced(code, is_error, total) {
            ended.export();
        }
    }
}
