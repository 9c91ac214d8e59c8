//! What came out, as a table.

use crate::{
    discipline::Kind,
    replay::{End, Outcome},
    trace::{Class, Request, Time},
};

/// What became of the requests of one class.
pub struct Summary {
    pub requests: usize,
    pub refused: usize,
    pub timed_out: usize,
    /// Of those that ran, sorted.
    waits: Vec<Time>,
}

impl Summary {
    pub fn of(class: Class, requests: &[Request], outcome: &Outcome) -> Summary {
        let mut summary = Summary { requests: 0, refused: 0, timed_out: 0, waits: Vec::new() };
        for (_, end) in requests.iter().zip(&outcome.ends).filter(|(request, _)| request.class == class) {
            summary.requests += 1;
            match end {
                End::Waited(wait) => summary.waits.push(*wait),
                End::Refused => summary.refused += 1,
                End::TimedOut => summary.timed_out += 1,
            }
        }
        summary.waits.sort_unstable();
        summary
    }

    /// The wait that `percent` of those that ran did not exceed.
    pub fn percentile(&self, percent: usize) -> Time {
        let rank = (self.waits.len() * percent).div_ceil(100).max(1);
        self.waits.get(rank - 1).copied().unwrap_or(0)
    }
}

pub const HEAD: &str =
    "| discipline | class | requests | wait p50, ms | p95 | p99 | max | queue-full | timed out | capacity in use |";
pub const RULE: &str = "|---|---|---|---|---|---|---|---|---|---|";

/// A row of a Markdown table.
pub fn row(kind: Kind, class: Class, summary: &Summary, utilisation: f64) -> String {
    let percent = |part: f64| format!("{:.1} %", 100.0 * part);
    let part = |number: usize| percent(number as f64 / summary.requests.max(1) as f64);
    let waits = [50, 95, 99, 100].map(|percent| (summary.percentile(percent) / 1000).to_string());
    let cells = [kind.name().to_owned(), class.name().to_owned(), summary.requests.to_string()];
    let ends = [part(summary.refused), part(summary.timed_out), percent(utilisation)];
    let cells: Vec<String> = cells.into_iter().chain(waits).chain(ends).collect();
    format!("| {} |", cells.join(" | "))
}
