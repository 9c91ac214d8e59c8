//! Where invocations run: on their connection's thread, or on workers with cgroups.

use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec};

use super::{OPERATION_SECONDS, declare::Declare};

/// Times of operations on cgroups, seconds.
#[derive(Debug, Clone)]
pub struct CgroupMetrics {
    pub create: Histogram,
    pub join: Histogram,
    pub quota: Histogram,
    pub remove: Histogram,
}

impl CgroupMetrics {
    pub(super) fn declare(declare: &Declare<'_>) -> CgroupMetrics {
        let operations = declare.register(HistogramVec::new(
            HistogramOpts::new(
                "wasmbox_cgroup_operation_seconds",
                "Operations on workers' cgroups (create, join, quota, remove).",
            )
            .buckets(OPERATION_SECONDS.to_vec()),
            &["operation"],
        ));
        let operation = |name| operations.with_label_values(&[name]);
        CgroupMetrics {
            create: operation("create"),
            join: operation("join"),
            quota: operation("quota"),
            remove: operation("remove"),
        }
    }
}

/// Of invocations that began on their connection's thread.
#[derive(Debug, Clone)]
pub struct SliceMetrics {
    pub done: IntCounter,
    /// They moved.
    pub busy: IntCounter,
    pub waiting: IntCounter,
}

impl SliceMetrics {
    pub(super) fn of(counters: &IntCounterVec) -> SliceMetrics {
        let [done, busy, waiting] = ["done", "busy", "waiting"].map(|end| counters.with_label_values(&[end]));
        SliceMetrics { done, busy, waiting }
    }
}
