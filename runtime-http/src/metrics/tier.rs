//! The metrics of the two tiers of code.

use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec};

use super::{SECONDS, declare::Declare};
use crate::engine::tier::Tier;

/// Compilations, and whom their code served.
pub struct TierMetrics {
    compilations: IntCounterVec,
    duration: HistogramVec,
    invocations: IntCounterVec,
}

/// How a compilation may end.
const RESULTS: [&str; 6] = ["ok", "invalid", "failed", "stopped", "node", "node-failed"];

impl TierMetrics {
    pub(super) fn declare(declare: &Declare<'_>) -> TierMetrics {
        let metrics = TierMetrics {
            compilations: declare.counters(
                "wasmbox_compilations_total",
                "Compilations by tier (baseline, optimised) and result (ok, invalid, failed, stopped; node, node-failed: by the node's service).",
                &["tier", "result"],
            ),
            duration: declare.register(HistogramVec::new(
                HistogramOpts::new("wasmbox_compile_duration_seconds", "Time to compile a module, by tier.")
                    .buckets(SECONDS.to_vec()),
                &["tier"],
            )),
            invocations: declare.counters(
                "wasmbox_tier_invocations_total",
                "Invocations by the tier of the code that they were given.",
                &["tier"],
            ),
        };
        for tier in Tier::ALL {
            for result in RESULTS {
                metrics.compilation(tier, result);
            }
            metrics.duration(tier);
            metrics.invocations(tier);
        }
        metrics
    }

    pub fn compilation(&self, tier: Tier, result: &str) -> IntCounter {
        self.compilations.with_label_values(&[tier.as_str(), result])
    }

    pub fn duration(&self, tier: Tier) -> Histogram {
        self.duration.with_label_values(&[tier.as_str()])
    }

    pub fn invocations(&self, tier: Tier) -> IntCounter {
        self.invocations.with_label_values(&[tier.as_str()])
    }
}
