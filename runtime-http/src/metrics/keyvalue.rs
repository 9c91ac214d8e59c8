//! What functions do with the values that they keep.

use prometheus::IntCounterVec;

use super::declare::Declare;

/// Of all functions together, by backend.
#[derive(Debug, Clone)]
pub struct KeyvalueMetrics {
    pub operations: IntCounterVec,
    pub errors: IntCounterVec,
}

/// Where values are kept.
const BACKENDS: [&str; 2] = ["embedded", "redis"];

impl KeyvalueMetrics {
    pub(super) fn declare(declare: &Declare<'_>) -> KeyvalueMetrics {
        let metrics = KeyvalueMetrics {
            operations: declare.counters(
                "wasmbox_keyvalue_operations_total",
                "Calls of functions that read or change what they keep, by backend (embedded, redis).",
                &["backend"],
            ),
            errors: declare.counters(
                "wasmbox_keyvalue_errors_total",
                "Those of them that failed: by the function's own doing, its quota, or the store's failure.",
                &["backend"],
            ),
        };
        for backend in BACKENDS {
            drop(metrics.operations.with_label_values(&[backend]));
            drop(metrics.errors.with_label_values(&[backend]));
        }
        metrics
    }
}
