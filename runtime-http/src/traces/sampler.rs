//! Of which invocations spans are recorded.

use super::context::TraceContext;
use crate::invocation::trace_id::TraceId;
use crate::limits::Fraction;

/// The names are those of `OTEL_TRACES_SAMPLER` (OpenTelemetry, SDK environment variables).
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum SamplerKind {
    AlwaysOn,
    AlwaysOff,
    #[value(name = "traceidratio")]
    TraceIdRatio,
    #[value(name = "parentbased_always_on")]
    ParentBasedAlwaysOn,
    #[value(name = "parentbased_always_off")]
    ParentBasedAlwaysOff,
    #[value(name = "parentbased_traceidratio")]
    ParentBasedTraceIdRatio,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampler {
    pub kind: SamplerKind,
    /// The share of traces, where it is drawn.
    pub ratio: Fraction,
}

impl Sampler {
    /// Whether the spans of an invocation in `trace` are recorded, whose caller is `parent`.
    pub fn samples(&self, trace: &TraceId, parent: Option<&TraceContext>) -> bool {
        match (self.kind, parent) {
            (SamplerKind::AlwaysOn, _) => true,
            (SamplerKind::AlwaysOff, _) => false,
            (SamplerKind::TraceIdRatio, _) => self.draws(trace),
            (_, Some(parent)) => parent.sampled,
            (SamplerKind::ParentBasedAlwaysOn, None) => true,
            (SamplerKind::ParentBasedAlwaysOff, None) => false,
            (SamplerKind::ParentBasedTraceIdRatio, None) => self.draws(trace),
        }
    }

    /// All boxes and services that draw the same share draw the same traces.
    fn draws(&self, trace: &TraceId) -> bool {
        let bound = (self.ratio.get() * (1_u64 << 63) as f64) as u64;
        trace.low() >> 1 < bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parent(sampled: bool) -> TraceContext {
        let text = format!("00-{:032x}-{:016x}-0{}", 1, 1, u8::from(sampled));
        TraceContext::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_share_is_drawn() {
        let sampler = |ratio: &str| Sampler { kind: SamplerKind::TraceIdRatio, ratio: ratio.parse().unwrap() };
        let drawn = |ratio: &str| (0..10_000).filter(|_| sampler(ratio).samples(&TraceId::new(), None)).count();
        assert_eq!((drawn("0"), drawn("1")), (0, 10_000));
        let quarter = drawn("0.25");
        assert!((2_000..3_000).contains(&quarter), "{quarter}");
    }

    #[test]
    fn who_calls_decides_if_it_is_asked() {
        let half = "0".parse().unwrap();
        for (kind, alone, sampled, not_sampled) in [
            (SamplerKind::AlwaysOn, true, true, true),
            (SamplerKind::AlwaysOff, false, false, false),
            (SamplerKind::TraceIdRatio, false, false, false),
            (SamplerKind::ParentBasedAlwaysOn, true, true, false),
            (SamplerKind::ParentBasedAlwaysOff, false, true, false),
            (SamplerKind::ParentBasedTraceIdRatio, false, true, false),
        ] {
            let sampler = Sampler { kind, ratio: half };
            let trace = TraceId::new();
            assert_eq!(
                [None, Some(parent(true)), Some(parent(false))].map(|parent| sampler.samples(&trace, parent.as_ref())),
                [alone, sampled, not_sampled],
                "{kind:?}"
            );
        }
    }
}
