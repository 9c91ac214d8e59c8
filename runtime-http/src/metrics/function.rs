//! The metrics of one function.

use std::{sync::Arc, time::Duration};

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge};

use super::{OutboundMetrics, activity::Activity};
use crate::{
    failures::{Failed, Failures},
    function_log::{Entry, FunctionLog},
    invocation::Usage,
};

/// The metrics of one function, looked up once, when the function is loaded.
pub struct FunctionMetrics {
    pub(super) invocations: IntCounterVec,
    pub(super) label: Arc<str>,
    pub(super) ok: IntCounter,
    pub(super) duration: Histogram,
    pub(super) queue: Histogram,
    pub(super) execution: Histogram,
    pub(super) cpu: Histogram,
    pub(super) throttled: Histogram,
    pub(super) memory_peak: Histogram,
    pub(super) in_flight: IntGauge,
    pub(super) outbound: OutboundMetrics,
    pub(super) outbound_duration: Histogram,
    pub(super) activity: Arc<Activity>,
    pub(super) failures: Arc<Failures>,
    /// `None`: nobody may follow it.
    pub(super) log: Option<Arc<FunctionLog>>,
}

impl std::fmt::Debug for FunctionMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("FunctionMetrics").field(self.name()).finish()
    }
}

impl FunctionMetrics {
    pub fn name(&self) -> &Arc<str> {
        self.activity.name()
    }

    /// By which metrics know it: its name, or that of all functions beyond a number.
    pub fn label(&self) -> &Arc<str> {
        &self.label
    }

    /// An invocation begins to run.
    pub fn begin(&self) {
        self.in_flight.inc();
        self.activity.begin();
    }

    /// One that began has ended.
    pub fn end(&self) {
        self.in_flight.dec();
        self.activity.end();
    }

    /// How many run.
    pub fn running(&self) -> u64 {
        self.activity.running()
    }

    /// Where whoever follows it finds its lines.
    pub fn log(&self) -> Option<&Arc<FunctionLog>> {
        self.log.as_ref()
    }

    /// One has failed.
    pub fn failed(&self, failed: Failed) {
        if let Some(log) = &self.log {
            let Failed { id, status, code, .. } = failed;
            log.push(id, Entry::Failed { status, code, reason: failed.reason.as_str().into() });
        }
        self.failures.push(failed);
    }

    /// A request that its guests sent is over.
    pub fn outbound_request(&self, result: &str, duration: Duration) {
        self.outbound.requests.with_label_values(&[result]).inc();
        self.outbound_duration.observe(duration.as_secs_f64());
    }

    /// It has got a connection for one.
    pub fn outbound_connection(&self, how: &str) {
        self.outbound.connections.with_label_values(&[how]).inc();
    }

    /// `is_error`: for which the client cannot be blamed.
    pub fn observe(
        &self,
        status: u16,
        is_error: bool,
        duration: Duration,
        queue: Option<&Duration>,
        usage: Option<&Usage>,
    ) {
        if status == 200 {
            self.ok.inc();
        } else {
            self.invocations.with_label_values(&[&*self.label, itoa::Buffer::new().format(status)]).inc();
        }
        self.duration.observe(duration.as_secs_f64());
        self.activity.observe(is_error, duration, usage);
        if let Some(queue) = queue {
            self.queue.observe(queue.as_secs_f64());
        }
        if let Some(usage) = usage {
            self.execution.observe(usage.execution.as_secs_f64());
            self.cpu.observe(usage.cpu.as_secs_f64());
            if let Some(throttled) = usage.throttled {
                self.throttled.observe(throttled.as_secs_f64());
            }
            self.memory_peak.observe(usage.memory_peak as f64);
        }
    }
}
