//! Requests that functions send.

use prometheus::{IntCounterVec, IntGauge};

use super::declare::Declare;

/// What becomes of requests, and how connections for them are got.
const RESULTS: [&str; 5] = ["answered", "refused", "failed", "timeout", "abandoned"];
const WAYS: [&str; 4] = ["opened", "reused", "socket", "refused"];

/// Of all functions together.
#[derive(Debug, Clone)]
pub struct OutboundMetrics {
    pub requests: IntCounterVec,
    pub connections: IntCounterVec,
    pub idle: IntGauge,
}

impl OutboundMetrics {
    pub(super) fn declare(declare: &Declare<'_>) -> OutboundMetrics {
        let metrics = OutboundMetrics {
            requests: declare.counters(
                "wasmbox_outbound_requests_total",
                "Requests that functions sent, by result (answered, refused, failed, timeout, abandoned).",
                &["result"],
            ),
            connections: declare.counters(
                "wasmbox_outbound_connections_total",
                "Connections that functions got for their requests (opened, reused), and that they opened by themselves (socket, refused).",
                &["how"],
            ),
            idle: declare.gauge(
                "wasmbox_outbound_idle_connections",
                "Connections that functions have left for their next request.",
            ),
        };
        // Shown as zero from the start, so that rates have a beginning.
        RESULTS.iter().for_each(|result| drop(metrics.requests.with_label_values(&[result])));
        WAYS.iter().for_each(|how| drop(metrics.connections.with_label_values(&[how])));
        metrics
    }
}
