//! One line of the results.

use std::time::Duration;

use serde::Serialize;

/// What one target did under one load: of one round, or the medians of several.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// The target's name.
    pub name: &'static str,
    /// Connections that were open.
    pub connections: u32,
    /// Pause of each connection between an answer and its next request, in milliseconds.
    pub gap_ms: u32,
    /// Answers per second.
    pub req_per_s: f64,
    /// Median latency in microseconds.
    pub p50_us: u64,
    /// 99th percentile of the latency in microseconds.
    pub p99_us: u64,
    /// CPU time of the server process per answer, in microseconds.
    pub cpu_us: f64,
    /// Resident memory of the server process right after the load, in KiB.
    pub rss_kib: u64,
    /// Answers that are no success, and socket errors.
    pub errors: u64,
    /// What else the server process has right after the load, where that is of interest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<Held>,
}

/// What the kernel bounds for a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Held {
    /// Open file descriptors.
    pub descriptors: u64,
    /// Mappings, of which a process may have `vm.max_map_count`.
    pub mappings: u64,
}

impl Row {
    /// The median of each figure over the rounds of one target under one load, and the sum of the errors. `None` without
    /// a round.
    pub fn of_rounds(rounds: &[Self]) -> Option<Self> {
        let first = rounds.first()?;
        Some(Self {
            name: first.name,
            connections: first.connections,
            gap_ms: first.gap_ms,
            req_per_s: tenths(median(rounds.iter().map(|row| row.req_per_s))?),
            p50_us: median(rounds.iter().map(|row| row.p50_us))?,
            p99_us: median(rounds.iter().map(|row| row.p99_us))?,
            cpu_us: tenths(median(rounds.iter().map(|row| row.cpu_us))?),
            rss_kib: median(rounds.iter().map(|row| row.rss_kib))?,
            errors: rounds.iter().map(|row| row.errors).sum(),
            held: first.held.clone(),
        })
    }
}

/// The middle value; of an even number of values the higher of the two in the middle. `None` without a value.
pub fn median<T: PartialOrd + Copy>(values: impl Iterator<Item = T>) -> Option<T> {
    let mut values: Vec<T> = values.collect();
    values.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    values.get(values.len() / 2).copied()
}

/// The median and the 99th percentile, in microseconds. `None` without a value.
pub fn percentiles(mut values: Vec<Duration>) -> Option<(u64, u64)> {
    values.sort_unstable();
    let micros = |time: &Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    Some((micros(values.get(values.len() / 2)?), micros(values.get(values.len() * 99 / 100)?)))
}

/// Rounds to one decimal: more digits would be noise.
fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(req_per_s: f64, p99_us: u64, errors: u64) -> Row {
        Row {
            name: "hyper",
            connections: 1,
            gap_ms: 0,
            req_per_s,
            p50_us: 10,
            p99_us,
            cpu_us: 1.23,
            rss_kib: 4,
            errors,
            held: None,
        }
    }

    #[test]
    fn figures_are_medians_and_errors_a_sum() {
        let rounds = [row(3.0, 9, 1), row(1.0, 7, 0), row(2.04, 8, 2)];
        let mut expected = row(2.0, 8, 3);
        expected.cpu_us = 1.2;
        assert_eq!(Row::of_rounds(&rounds), Some(expected));
        assert_eq!(Row::of_rounds(&[]), None);
    }

    #[test]
    fn percentiles_are_of_all_values() {
        let values = (1..=200).rev().map(Duration::from_micros).collect();
        assert_eq!(percentiles(values), Some((101, 199)));
        assert_eq!(percentiles(Vec::new()), None);
    }

    #[test]
    fn a_row_has_the_agreed_fields() {
        let json = serde_json::to_value(row(2.5, 8, 0)).unwrap();
        let expected = serde_json::json!({
            "name": "hyper", "connections": 1, "gap_ms": 0, "req_per_s": 2.5, "p50_us": 10, "p99_us": 8,
            "cpu_us": 1.23, "rss_kib": 4, "errors": 0,
        });
        assert_eq!(json, expected);
    }
}
