//! The results: tables for people, and a file for programs.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::carry::{CARRIED, REFILLED};
use crate::cold::{COLD, WARM};
use crate::density::{FUNCTION, FUNCTION_COUNT, SLEEPER_COUNT, SLEEPING, WORKER, WORKER_COUNT};
use crate::fixture;
use crate::goal::{GOALS, Goal, Outcome};
use crate::isolation::{CHANGING_TIME, FRESH_TIME, IDLE_MS, PINNED_TIME};
use crate::row::{Held, Row};
use crate::scale::{CALL_COUNT, CONNECTIONS, FUNCTION_COUNT as MANY_FUNCTIONS, FUNCTIONS};

/// A table for each load, with its targets side by side, then the goals.
pub fn tables(rows: &[Row], rounds: &[Vec<Row>]) -> String {
    let mut text = String::new();
    let mut rest = rows;
    while let Some(first) = rest.first() {
        let load = load_of(first);
        let end = rest.iter().position(|row| load_of(row) != load).unwrap_or(rest.len());
        let (table, next) = rest.split_at(end);
        rest = next;
        heading(&mut text, &load);
        for row in table {
            line(&mut text, row);
        }
    }
    goals(&mut text, rows, rounds);
    text
}

/// The one line that tells of a round while the run goes on.
pub fn progress(row: &Row) -> String {
    format!(
        "{:<29}{:<28}{:>9} req/s   p50 {:>6} us   p99 {:>6} us",
        row.name,
        load_of(row),
        grouped(row.req_per_s.round() as u64),
        grouped(row.p50_us),
        grouped(row.p99_us)
    )
}

/// Writes all rows as a JSON list: complete, or not at all.
///
/// # Errors
///
/// When it cannot be written.
pub fn save(rows: &[Row], path: &Path) -> Result<()> {
    let json = serde_json::to_vec_pretty(rows).context("cannot write JSON")?;
    let new = path.with_extension("json.new");
    fixture::write(&new, &json)?;
    fs::rename(&new, path).with_context(|| format!("cannot write {}", path.display()))
}

fn load_of(row: &Row) -> String {
    if [COLD, WARM].contains(&row.name) {
        return "first answers after a start".to_owned();
    }
    if [PINNED_TIME, CHANGING_TIME, FRESH_TIME].contains(&row.name) {
        return format!("time spent on the cgroup, 1 connection, gap {IDLE_MS} ms");
    }
    match row.name {
        FUNCTION => return format!("{FUNCTION_COUNT} functions loaded: first answers, RSS for each"),
        WORKER => return format!("{WORKER_COUNT} workers idle after a nap: how late its answer was, RSS for each"),
        SLEEPING => {
            return format!("{SLEEPER_COUNT} invocations sleep at once: how late their answers are, RSS of the box");
        }
        FUNCTIONS => {
            return format!("{CALL_COUNT} calls of {MANY_FUNCTIONS} functions, the n-th as often as 1/n");
        }
        CONNECTIONS => {
            return format!("calls on one connection beside {} that do nothing", grouped(u64::from(row.connections)));
        }
        CARRIED | REFILLED => return "throttled after an invocation that spent the budget".to_owned(),
        _ => {}
    }
    let plural = if row.connections == 1 { "" } else { "s" };
    match row.gap_ms {
        0 => format!("{} connection{plural}, hot", row.connections),
        gap => format!("{} connection{plural}, gap {gap} ms", row.connections),
    }
}

fn heading(text: &mut String, load: &str) {
    write!(
        text,
        "\n{load}\n  {:<28}{:>10}{:>10}{:>10}{:>10}{:>10}{:>8}\n",
        "", "req/s", "p50 us", "p99 us", "CPU us", "RSS MiB", "errors"
    )
    .expect("a String takes all");
}

fn line(text: &mut String, row: &Row) {
    writeln!(
        text,
        "  {:<28}{:>10}{:>10}{:>10}{:>10.1}{:>10}{:>8}",
        row.name,
        grouped(row.req_per_s.round() as u64),
        grouped(row.p50_us),
        grouped(row.p99_us),
        row.cpu_us,
        mebibytes(row.rss_kib),
        grouped(row.errors)
    )
    .expect("a String takes all");
    if let Some(Held { descriptors, mappings }) = row.held {
        writeln!(text, "    with {} descriptors and {} mappings", grouped(descriptors), grouped(mappings))
            .expect("a String takes all");
    }
}

/// With as many decimals as the smaller figures need.
fn mebibytes(kibibytes: u64) -> String {
    let value = kibibytes as f64 / 1024.0;
    if value < 1.0 { format!("{value:.3}") } else { format!("{value:.1}") }
}

/// The goals that this run says something about.
fn goals(text: &mut String, rows: &[Row], rounds: &[Vec<Row>]) {
    let results: Vec<(&Goal, Outcome)> =
        GOALS.iter().filter_map(|goal| Some((goal, goal.outcome(rows, rounds)?))).collect();
    if results.is_empty() {
        return;
    }
    text.push_str("\nGoals\n");
    for (goal, Outcome { result, spread }) in results {
        let bound = goal.bound;
        let reached = if bound.is_reached(result) { "reached" } else { "NOT reached" };
        let spread = spread.map_or(String::new(), |(least, most)| format!("({least:.2} to {most:.2})"));
        writeln!(text, "  {:<72}{result:>8.2} {spread:<16}   goal {bound}   {reached}", goal.title)
            .expect("a String takes all");
    }
}

/// Digits in groups of three.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &'static str, connections: u32, gap_ms: u32) -> Row {
        Row {
            name,
            connections,
            gap_ms,
            req_per_s: 12_345.6,
            p50_us: 80,
            p99_us: 1_500,
            cpu_us: 35.25,
            rss_kib: 2_048,
            errors: 0,
            held: None,
        }
    }

    #[test]
    fn digits_are_grouped() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_000), "1,000");
        assert_eq!(grouped(1_234_567), "1,234,567");
    }

    #[test]
    fn rows_of_a_load_are_side_by_side() {
        let rows = [row("hyper", 1, 0), row("wasmbox-core", 1, 0), row("hyper", 16, 50)];
        let text = tables(&rows, &[]);
        assert_eq!(text.matches("1 connection, hot").count(), 1);
        assert_eq!(text.matches("16 connections, gap 50 ms").count(), 1);
        assert!(text.contains("wasmbox-core                    12,346        80     1,500"), "{text}");
        assert!(!text.contains("Goals"), "{text}");
    }

    #[test]
    fn a_measured_goal_is_shown() {
        let text = tables(&[row("hyper", 16, 0), row("wasmbox-core", 16, 0)], &[]);
        let goal = text.lines().find(|line| line.contains("goal >= 0.65   reached"));
        assert!(
            goal.is_some_and(|goal| goal.contains("wasmbox-core / hyper, 16") && goal.contains(" 1.00 ")),
            "{text}"
        );
    }
}
