//! What is expected of the box, next to its peers.

use crate::cold::{COLD, WARM};
use crate::isolation::{CHANGING, CHANGING_TIME, FRESH_TIME, IDLE_MS, NONE, PINNED, PINNED_TIME};
use crate::row::{Row, median};

/// An expectation on two rows of one run.
#[derive(Debug)]
pub struct Goal {
    /// What it is about.
    pub title: &'static str,
    /// The figure that is compared.
    figure: fn(&Row) -> f64,
    /// How the two figures are compared.
    comparison: Comparison,
    /// The target whose figure it is.
    of: &'static str,
    /// The target that it is compared with.
    with: &'static str,
    /// Connections of both, and the gap.
    connections: u32,
    gap_ms: u32,
    /// What is wanted of the result.
    pub bound: Bound,
}

#[derive(Clone, Copy, Debug)]
enum Comparison {
    Ratio,
    Difference,
}

/// What is wanted of a result.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// This or more.
    AtLeast(f64),
    /// This or less.
    AtMost(f64),
}

/// All goals.
pub const GOALS: &[Goal] = &[
    Goal::ratio(
        "throughput, wasmbox-http / wasmtime-serve-tuned, 16 connections",
        |row| row.req_per_s,
        ["wasmbox-http", "wasmtime-serve-tuned"],
        (16, 0),
        Bound::AtLeast(2.2),
    ),
    Goal::ratio(
        "p99, wasmbox-http / wasmtime-serve-tuned, 16 connections",
        |row| row.p99_us as f64,
        ["wasmbox-http", "wasmtime-serve-tuned"],
        (16, 0),
        Bound::AtMost(1.0),
    ),
    Goal::ratio(
        "throughput, wasmbox-core / hyper, 16 connections",
        |row| row.req_per_s,
        ["wasmbox-core", "hyper"],
        (16, 0),
        Bound::AtLeast(0.65),
    ),
    Goal::ratio(
        "throughput, wasmbox-http-reuse / wasmtime-serve-reuse, 16 connections",
        |row| row.req_per_s,
        ["wasmbox-http-reuse", "wasmtime-serve-reuse"],
        (16, 0),
        Bound::AtLeast(1.5),
    ),
    Goal::ratio(
        "throughput, wasmbox-http / wasmtime-serve-tuned, 64 connections",
        |row| row.req_per_s,
        ["wasmbox-http", "wasmtime-serve-tuned"],
        (64, 0),
        Bound::AtLeast(2.2),
    ),
    Goal::ratio(
        "p99, wasmbox-http / wasmtime-serve-tuned, 64 connections",
        |row| row.p99_us as f64,
        ["wasmbox-http", "wasmtime-serve-tuned"],
        (64, 0),
        Bound::AtMost(1.0),
    ),
    Goal::ratio(
        "throughput, wasmbox-core / hyper, 64 connections",
        |row| row.req_per_s,
        ["wasmbox-core", "hyper"],
        (64, 0),
        Bound::AtLeast(0.65),
    ),
    Goal::ratio(
        "throughput, wasmbox-http-reuse / wasmtime-serve-reuse, 64 connections",
        |row| row.req_per_s,
        ["wasmbox-http-reuse", "wasmtime-serve-reuse"],
        (64, 0),
        Bound::AtLeast(1.5),
    ),
    Goal::ratio(
        "p50, wasmbox-http / wasmtime-serve-tuned, 1 connection",
        |row| row.p50_us as f64,
        ["wasmbox-http", "wasmtime-serve-tuned"],
        (1, 0),
        Bound::AtMost(0.9),
    ),
    Goal::ratio(
        "p50 after 50 ms idle, wasmbox-http / wasmtime-serve-tuned, 1 connection",
        |row| row.p50_us as f64,
        ["wasmbox-http", "wasmtime-serve-tuned"],
        (1, 50),
        Bound::AtMost(0.9),
    ),
    Goal::ratio(
        "p50 after 50 ms idle, wasmbox-http / wasmtime-serve-tuned, 16 connections",
        |row| row.p50_us as f64,
        ["wasmbox-http", "wasmtime-serve-tuned"],
        (16, 50),
        Bound::AtMost(0.9),
    ),
    Goal::ratio(
        "throughput, wasmbox-core / wasmbox-core-baseline, 16 connections",
        |row| row.req_per_s,
        ["wasmbox-core", "wasmbox-core-baseline"],
        (16, 0),
        Bound::AtLeast(1.0),
    ),
    Goal::ratio(
        "p50 after 50 ms idle, wasmbox-core / wasmbox-core-baseline, 16 connections",
        |row| row.p50_us as f64,
        ["wasmbox-core", "wasmbox-core-baseline"],
        (16, 50),
        Bound::AtMost(1.0),
    ),
    Goal::ratio(
        "throughput, wasmbox-http / wasmbox-http-baseline, 16 connections",
        |row| row.req_per_s,
        ["wasmbox-http", "wasmbox-http-baseline"],
        (16, 0),
        Bound::AtLeast(1.0),
    ),
    Goal::ratio(
        "p50 after 50 ms idle, wasmbox-http / wasmbox-http-baseline, 16 connections",
        |row| row.p50_us as f64,
        ["wasmbox-http", "wasmbox-http-baseline"],
        (16, 50),
        Bound::AtMost(1.0),
    ),
    Goal {
        title: "first answer of a cached 1 MB module - a warm one, ms",
        figure: |row| row.p50_us as f64 / 1_000.0,
        comparison: Comparison::Difference,
        of: COLD,
        with: WARM,
        connections: 1,
        gap_ms: 0,
        bound: Bound::AtMost(1.0),
    },
    Goal {
        title: "throughput, a cgroup for each worker / none, 16 connections",
        figure: |row| row.req_per_s,
        comparison: Comparison::Ratio,
        of: PINNED,
        with: NONE,
        connections: 16,
        gap_ms: 0,
        bound: Bound::AtLeast(0.95),
    },
    Goal {
        title: "p50 after idle time, a cgroup for each worker, other quotas - none, us",
        figure: |row| row.p50_us as f64,
        comparison: Comparison::Difference,
        of: CHANGING,
        with: NONE,
        connections: 1,
        gap_ms: IDLE_MS,
        bound: Bound::AtMost(30.0),
    },
    Goal {
        title: "p99 of the cgroup's time after idle time, fresh / each worker's, same quota",
        // The time is counted in whole microseconds.
        figure: |row| row.p99_us.max(1) as f64,
        comparison: Comparison::Ratio,
        of: FRESH_TIME,
        with: PINNED_TIME,
        connections: 1,
        gap_ms: IDLE_MS,
        bound: Bound::AtLeast(10.0),
    },
    Goal {
        title: "p99 of the cgroup's time after idle time, fresh / each worker's, other quotas",
        figure: |row| row.p99_us.max(1) as f64,
        comparison: Comparison::Ratio,
        of: FRESH_TIME,
        with: CHANGING_TIME,
        connections: 1,
        gap_ms: IDLE_MS,
        bound: Bound::AtLeast(10.0),
    },
];

/// What a run says about a goal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// The median over the rounds of the result within a round.
    pub result: f64,
    /// The least and the greatest; `None` where there are no rounds in turns.
    pub spread: Option<(f64, f64)>,
}

impl Goal {
    const fn ratio(
        title: &'static str,
        figure: fn(&Row) -> f64,
        [of, with]: [&'static str; 2],
        (connections, gap_ms): (u32, u32),
        bound: Bound,
    ) -> Goal {
        Goal { title, figure, comparison: Comparison::Ratio, of, with, connections, gap_ms, bound }
    }

    /// The outcome of a run with `rows`, its medians, and with `rounds`; `None` when it did not measure both rows.
    pub fn outcome(&self, rows: &[Row], rounds: &[Vec<Row>]) -> Option<Outcome> {
        let results = || rounds.iter().filter_map(|rows| self.result(rows));
        match median(results()) {
            Some(result) => {
                let spread = (results().fold(result, f64::min), results().fold(result, f64::max));
                Some(Outcome { result, spread: Some(spread) })
            }
            None => self.result(rows).map(|result| Outcome { result, spread: None }),
        }
    }

    /// The result in this run; `None` when it did not measure both rows.
    fn result(&self, rows: &[Row]) -> Option<f64> {
        let figure = |name| {
            rows.iter()
                .find(|row| row.name == name && row.connections == self.connections && row.gap_ms == self.gap_ms)
                .map(self.figure)
        };
        let (of, with) = (figure(self.of)?, figure(self.with)?);
        Some(match self.comparison {
            Comparison::Ratio => of / with,
            Comparison::Difference => of - with,
        })
    }
}

impl Bound {
    /// Whether `result` is as wanted.
    pub fn is_reached(self, result: f64) -> bool {
        match self {
            Self::AtLeast(bound) => result >= bound,
            Self::AtMost(bound) => result <= bound,
        }
    }
}

impl std::fmt::Display for Bound {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtLeast(bound) => write!(formatter, ">= {bound:.2}"),
            Self::AtMost(bound) => write!(formatter, "<= {bound:.2}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::TARGETS;

    const OTHERS: [&str; 8] = [COLD, WARM, NONE, PINNED, CHANGING, PINNED_TIME, CHANGING_TIME, FRESH_TIME];

    fn row(name: &'static str, connections: u32, gap_ms: u32, req_per_s: f64) -> Row {
        Row {
            name,
            connections,
            gap_ms,
            req_per_s,
            p50_us: 10,
            p99_us: 20,
            cpu_us: 1.0,
            rss_kib: 1,
            errors: 0,
            held: None,
        }
    }

    #[test]
    fn goals_name_rows_that_exist() {
        for goal in GOALS {
            for name in [goal.of, goal.with] {
                let known = TARGETS.iter().any(|target| target.name == name) || OTHERS.contains(&name);
                assert!(known, "{name}");
            }
        }
    }

    #[test]
    fn a_ratio_takes_the_rows_of_its_load() {
        let rows = [
            row("wasmbox-http", 16, 50, 7.0),
            row("wasmbox-http", 16, 0, 50.0),
            row("wasmtime-serve-tuned", 1, 0, 9.0),
            row("wasmtime-serve-tuned", 16, 0, 20.0),
        ];
        assert_eq!(GOALS[0].result(&rows), Some(2.5));
        assert_eq!(GOALS[0].result(&rows[..3]), None);
    }

    #[test]
    fn an_outcome_is_the_median_of_the_rounds_with_its_spread() {
        let round = |of: f64, with: f64| vec![row("wasmbox-http", 16, 0, of), row("wasmtime-serve-tuned", 16, 0, with)];
        let rounds = [round(20.0, 10.0), round(90.0, 10.0), round(3.0, 1.0)];
        let expected = Outcome { result: 3.0, spread: Some((2.0, 9.0)) };
        assert_eq!(GOALS[0].outcome(&[], &rounds), Some(expected));
        let alone = Outcome { result: 2.0, spread: None };
        assert_eq!(GOALS[0].outcome(&rounds[0], &[]), Some(alone));
        assert_eq!(GOALS[0].outcome(&rounds[0][..1], &[]), None);
    }

    #[test]
    fn a_bound_includes_itself() {
        assert!(Bound::AtLeast(2.0).is_reached(2.0));
        assert!(!Bound::AtLeast(2.0).is_reached(1.99));
        assert!(Bound::AtMost(1.0).is_reached(1.0));
        assert!(!Bound::AtMost(1.0).is_reached(1.01));
    }
}
