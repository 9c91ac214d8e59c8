//! The metrics of functions that are put here.

use http::StatusCode;
use prometheus::{IntCounter, IntCounterVec};

use super::declare::Declare;

/// How requests may end.
const OUTCOMES: [&str; 5] = ["changed", "read", "unauthorized", "refused", "failed"];

/// Requests below `/functions/` of a box that takes functions.
#[derive(Debug, Clone)]
pub struct UploadMetrics {
    requests: IntCounterVec,
    /// Of modules, as far as they were stored.
    pub bytes: IntCounter,
}

impl UploadMetrics {
    pub(super) fn declare(declare: &Declare<'_>) -> UploadMetrics {
        let metrics = UploadMetrics {
            requests: declare.counters(
                "wasmbox_upload_requests_total",
                "Requests to put, change or read functions, by outcome (changed, read, unauthorized, refused, failed).",
                &["outcome"],
            ),
            bytes: declare.counter("wasmbox_upload_bytes_total", "Bytes of modules that arrived to be put here."),
        };
        // Shown as zero from the start, so that rates have a beginning.
        OUTCOMES.iter().for_each(|outcome| drop(metrics.requests.with_label_values(&[outcome])));
        metrics
    }

    /// A request is answered; `reads` if it could not change anything.
    pub fn answered(&self, status: StatusCode, reads: bool) {
        let outcome = match status {
            StatusCode::UNAUTHORIZED => "unauthorized",
            status if status.is_server_error() => "failed",
            status if !status.is_success() => "refused",
            _ if reads => "read",
            _ => "changed",
        };
        self.requests.with_label_values(&[outcome]).inc();
    }
}
