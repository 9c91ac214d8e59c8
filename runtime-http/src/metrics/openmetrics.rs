//! The OpenMetrics text format (version 1.0.0), which Prometheus' text format becomes with little: names of counters, exemplars, and an end.
//!
//! Exemplars are traces that a collector has taken, one for each bucket of the duration of invocations: from a slow bucket one gets to a slow trace. Where
//! there are no traces there is no OpenMetrics either.

use std::{
    collections::HashMap,
    fmt::Write,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{MOST_FUNCTIONS, SECONDS};
use crate::invocation::trace_id::TraceId;

pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The histogram that has them.
const HISTOGRAM: &str = "wasmbox_invocation_duration_seconds_bucket{function=\"";

#[derive(Debug, Clone, Copy)]
struct Exemplar {
    trace: TraceId,
    took: Duration,
    at: SystemTime,
}

/// The last trace of each bucket.
#[derive(Debug, Default)]
struct Buckets {
    exemplars: [Option<Exemplar>; SECONDS.len() + 1],
    /// When the last of them was noted, counted in notes.
    noted: u64,
}

/// By the label that a function has in metrics.
#[derive(Debug, Default)]
pub struct Exemplars {
    on: AtomicBool,
    by_label: Mutex<HashMap<Arc<str>, Buckets>>,
    notes: AtomicU64,
}

/// The first bucket that has it; behind the last bound is all the rest.
fn bucket(seconds: f64) -> usize {
    SECONDS.partition_point(|bound| *bound < seconds)
}

impl Exemplars {
    /// There are traces.
    pub fn turn_on(&self) {
        self.on.store(true, Ordering::Relaxed);
    }

    pub fn are_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    fn by_label(&self) -> MutexGuard<'_, HashMap<Arc<str>, Buckets>> {
        self.by_label.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A collector has this trace, of an invocation that took so long, whose function has this label.
    pub fn note(&self, label: &Arc<str>, trace: TraceId, took: Duration) {
        let mut by_label = self.by_label();
        // As many as there are labels. Those of functions that are gone are the first to go.
        if by_label.len() > MOST_FUNCTIONS && !by_label.contains_key(label) {
            let oldest = by_label.iter().min_by_key(|(_, buckets)| buckets.noted).map(|(label, _)| label.clone());
            oldest.and_then(|oldest| by_label.remove(&oldest));
        }
        let buckets = by_label.entry(label.clone()).or_default();
        buckets.exemplars[bucket(took.as_secs_f64())] = Some(Exemplar { trace, took, at: SystemTime::now() });
        buckets.noted = self.notes.fetch_add(1, Ordering::Relaxed);
    }

    /// `text`, which is in Prometheus' format and of this box, in that of OpenMetrics.
    pub fn render(&self, text: &str) -> String {
        let by_label = self.by_label();
        let mut out = String::with_capacity(text.len() + 4096);
        for line in text.lines() {
            let is_about = ["# HELP ", "# TYPE "].iter().any(|start| line.starts_with(start));
            let name = line.split(' ').nth(2).unwrap_or_default();
            match name.strip_suffix("_total").filter(|_| is_about) {
                // A counter's samples end so, it does not.
                Some(family) => out.push_str(&line.replacen(name, family, 1)),
                None => out.push_str(line),
            }
            let labels = line.strip_prefix(HISTOGRAM).and_then(|rest| rest.split_once("\",le=\""));
            if let Some((label, bound)) = labels
                && let Some(buckets) = by_label.get(label)
                // `+Inf` is greater than all bounds.
                && let Some(bound) = bound.split('"').next().and_then(|bound| bound.parse().ok())
                && let Some(Exemplar { trace, took, at }) = buckets.exemplars[bucket(bound)]
            {
                let at = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
                let _ = write!(out, " # {{trace_id=\"{trace}\"}} {} {at:.3}", took.as_secs_f64());
            }
            out.push('\n');
        }
        out.push_str("# EOF\n");
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Metrics, OTHER_FUNCTIONS};

    #[test]
    fn counters_lose_their_ending_and_buckets_get_a_trace() {
        let metrics = Metrics::new();
        for millis in [3, 70_000] {
            metrics.function("f").observe(200, false, Duration::from_millis(millis), None, None);
        }
        let (slow, fast) = (TraceId::new(), TraceId::new());
        let exemplars = Exemplars::default();
        let f: Arc<str> = "f".into();
        exemplars.note(&f, slow, Duration::from_secs(70));
        exemplars.note(&f, TraceId::new(), Duration::from_millis(3));
        exemplars.note(&f, fast, Duration::from_millis(4));
        exemplars.note(&"gone".into(), fast, Duration::from_millis(4));
        let text = exemplars.render(&String::from_utf8(metrics.render()).unwrap());
        assert!(text.contains("# TYPE wasmbox_invocations counter\n"), "{text}");
        assert!(text.contains("\nwasmbox_invocations_total{function=\"f\",status=\"200\"} 2\n"), "{text}");
        assert!(text.ends_with("\n# EOF\n") && text.matches("# {trace_id").count() == 2, "{text}");
        let line = |bound: &str| {
            let start = format!("{HISTOGRAM}f\",le=\"{bound}\"}} ");
            text.lines().find_map(|line| line.strip_prefix(&start)).unwrap().to_owned()
        };
        assert!(line("0.005").starts_with(&format!("1 # {{trace_id=\"{fast}\"}} 0.004 ")), "{}", line("0.005"));
        assert!(line("+Inf").starts_with(&format!("2 # {{trace_id=\"{slow}\"}} 70 ")), "{}", line("+Inf"));
        assert_eq!(line("0.01"), "1");
    }

    #[test]
    fn labels_are_bounded_and_the_oldest_goes() {
        let exemplars = Exemplars::default();
        let lasting: Arc<str> = "lasting".into();
        for number in 0..3 * MOST_FUNCTIONS {
            exemplars.note(&lasting, TraceId::new(), Duration::ZERO);
            exemplars.note(&number.to_string().into(), TraceId::new(), Duration::ZERO);
            let by_label = exemplars.by_label();
            assert_eq!(by_label.len(), (number + 2).min(MOST_FUNCTIONS + 1));
            assert!(by_label.contains_key(&lasting) && by_label.contains_key(&*number.to_string()));
        }
    }

    #[test]
    fn functions_without_a_label_of_their_own_share_that_of_the_others() {
        let metrics = Metrics::new();
        let functions: Vec<_> = (0..=MOST_FUNCTIONS).map(|number| metrics.function(&format!("f{number}"))).collect();
        let last = &functions[MOST_FUNCTIONS];
        last.observe(200, false, Duration::from_millis(3), None, None);
        let (exemplars, trace) = (Exemplars::default(), TraceId::new());
        exemplars.note(last.label(), trace, Duration::from_millis(3));
        let text = exemplars.render(&String::from_utf8(metrics.render()).unwrap());
        let line = text.lines().find(|line| line.contains(&trace.to_string())).unwrap();
        assert!(line.starts_with(&format!("{HISTOGRAM}{OTHER_FUNCTIONS}\",le=\"0.005\"}} 1 # ")), "{line}");
    }
}
