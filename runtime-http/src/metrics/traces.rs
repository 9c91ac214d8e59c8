//! The metrics of traces that are sent to a collector.

use std::sync::Arc;

use prometheus::{IntCounter, IntCounterVec};

use super::{declare::Declare, openmetrics::Exemplars};

/// Counts are of invocations, each of which has some spans.
#[derive(Debug, Clone)]
pub struct TraceMetrics {
    pub exported: IntCounter,
    dropped: IntCounterVec,
    /// Of those that were taken.
    pub exemplars: Arc<Exemplars>,
}

impl TraceMetrics {
    pub(super) fn declare(declare: &Declare<'_>) -> TraceMetrics {
        let metrics = TraceMetrics {
            exported: declare.counter("wasmbox_traces_exported_total", "Invocations whose spans a collector has taken."),
            dropped: declare.counters(
                "wasmbox_traces_dropped_total",
                "Invocations whose spans are lost, by reason (queue: there was no room; unreachable: the collector was not there; refused: it did not want them, or as many spans of a batch).",
                &["reason"],
            ),
            exemplars: Arc::default(),
        };
        // Shown as zero from the start, so that rates have a beginning.
        Lost::ALL.into_iter().for_each(|reason| metrics.dropped(reason, 0));
        metrics
    }

    pub fn dropped(&self, reason: Lost, invocations: u64) {
        self.dropped.with_label_values(&[reason.as_str()]).inc_by(invocations);
    }

    /// For whatever reason.
    pub fn all_dropped(&self) -> u64 {
        Lost::ALL.into_iter().map(|reason| self.dropped.with_label_values(&[reason.as_str()]).get()).sum()
    }
}

/// Why spans were not taken by the collector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    Queue,
    Unreachable,
    Refused,
}

impl Lost {
    pub const ALL: [Lost; 3] = [Lost::Queue, Lost::Unreachable, Lost::Refused];

    pub fn as_str(self) -> &'static str {
        match self {
            Lost::Queue => "queue",
            Lost::Unreachable => "unreachable",
            Lost::Refused => "refused",
        }
    }
}
