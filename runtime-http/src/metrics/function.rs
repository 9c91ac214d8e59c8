//! The metrics of one function.

use std::{sync::Arc, time::Duration};

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge};

use super::OutboundMetrics;
use crate::invocation::Usage;

/// The metrics of one function, looked up once, when the function is loaded.
pub struct FunctionMetrics {
    pub(super) name: Arc<str>,
    pub(super) invocations: IntCounterVec,
    pub(super) label: String,
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
}

impl std::fmt::Debug for FunctionMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("FunctionMetrics").field(&self.name).finish()
    }
}

impl FunctionMetrics {
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub fn in_flight(&self) -> &IntGauge {
        &self.in_flight
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

    pub fn observe(&self, status: u16, duration: Duration, queue: Option<&Duration>, usage: Option<&Usage>) {
        if status == 200 {
            self.ok.inc();
        } else {
            self.invocations.with_label_values(&[self.label.as_str(), itoa::Buffer::new().format(status)]).inc();
        }
        self.duration.observe(duration.as_secs_f64());
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
