//! Instances that serve more than one request.

use prometheus::{IntCounter, IntGauge};

use super::declare::Declare;

/// Of all functions whose instances are reused.
#[derive(Debug, Clone)]
pub struct InstanceMetrics {
    pub fresh: IntCounter,
    pub reused: IntCounter,
    pub joined: IntCounter,
    pub kept: IntGauge,
    pub kept_bytes: IntGauge,
    /// Without a request for long.
    pub ended_idle: IntCounter,
    /// Somebody needed its memory or its slot, or there are too many.
    pub ended_for_memory: IntCounter,
    /// It has served as many as it may.
    pub ended_used_up: IntCounter,
    /// It held on to something of a request.
    pub ended_unclean: IntCounter,
}

impl InstanceMetrics {
    pub(super) fn declare(declare: &Declare<'_>) -> InstanceMetrics {
        let uses = declare.counters(
            "wasmbox_instance_uses_total",
            "Invocations of functions with [instance] reuse, by the instance that they got (fresh, reused, joined).",
            &["instance"],
        );
        let ended = declare.counters(
            "wasmbox_instances_ended_total",
            "Instances of such functions that ended well, by why they were not kept (idle, memory, used-up, unclean).",
            &["reason"],
        );
        InstanceMetrics {
            fresh: uses.with_label_values(&["fresh"]),
            reused: uses.with_label_values(&["reused"]),
            joined: uses.with_label_values(&["joined"]),
            kept: declare.gauge("wasmbox_kept_instances", "Instances that wait for their function's next request."),
            kept_bytes: declare.gauge("wasmbox_kept_instance_bytes", "The memory that they hold."),
            ended_idle: ended.with_label_values(&["idle"]),
            ended_for_memory: ended.with_label_values(&["memory"]),
            ended_used_up: ended.with_label_values(&["used-up"]),
            ended_unclean: ended.with_label_values(&["unclean"]),
        }
    }
}
