//! The state of a box for people: aligned lines, human units.

use std::{collections::BTreeMap, fmt};

use super::plain;
use crate::status::Status;

/// Functions and codes shown at most; the document has all.
const MOST_SHOWN: usize = 20;

/// Displays as the screen.
pub struct Screen<'a> {
    pub address: &'a str,
    pub status: &'a Status,
}

impl fmt::Display for Screen<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Screen { address, status } = self;
        let readiness = &status.readiness;
        let state = match (readiness.draining, readiness.ready) {
            (true, _) => "draining",
            (false, true) => "ready",
            (false, false) => "unready",
        };
        let (version, pod) = (plain(&status.version), plain(&status.pod));
        writeln!(f, "WasmBox {version} on {pod}, pid {}, asked at {address}", status.pid)?;
        writeln!(f)?;
        let mut line = |name: &str, text: String| writeln!(f, "  {name:<13}{text}");
        line("state", format!("{state}, up {}", time(status.uptime_seconds)))?;
        line(
            "readiness",
            match readiness.utilization {
                Some(utilization) => format!(
                    "memory {} on average of {} of {} probes, threshold {}",
                    percent(utilization),
                    readiness.samples,
                    readiness.window,
                    percent(readiness.threshold)
                ),
                None => "no probe yet".into(),
            },
        )?;
        let memory = &status.memory;
        line(
            "memory",
            match memory.working_set_bytes {
                Some(used) => format!("{} of {} ({})", bytes(used), bytes(memory.limit_bytes), plain(&memory.source)),
                None => format!("unknown of {}", bytes(memory.limit_bytes)),
            },
        )?;
        line("cpu", format!("{:.2} cores in use", status.cpu_cores))?;
        let (running, waiting, most) = (status.in_flight, status.queued, status.capacity);
        line(
            "running",
            format!(
                "{} of {} invocations, {} of {}",
                running.invocations,
                most.invocations,
                mebibytes(running.units),
                mebibytes(most.units)
            ),
        )?;
        line(
            "waiting",
            format!(
                "{} invocations, {} of {}{}",
                waiting.invocations,
                mebibytes(waiting.units),
                mebibytes(status.queue_units),
                match status.queue_invocations {
                    0 => String::new(),
                    most => format!(", or {most} invocations"),
                }
            ),
        )?;
        if !status.closed_gates.is_empty() {
            line(
                "held back",
                format!("nothing new starts, for want of {}", plain(&status.closed_gates.join(" and "))),
            )?;
        }
        line("workers", status.workers.to_string())?;
        line("connections", status.connections.to_string())?;
        line("queue-proxy", if status.reporter_connected { "connected" } else { "not connected" }.into())?;
        table(f, "running function", "invocations", &status.functions)?;
        table(f, "answered with status", "invocations", &status.invocations)?;
        table(f, "refused with code", "requests", &status.rejected)
    }
}

/// Names with counts, the largest first; nothing, if there are none.
fn table(f: &mut fmt::Formatter<'_>, name: &str, count: &str, counts: &BTreeMap<String, u64>) -> fmt::Result {
    if counts.is_empty() {
        return Ok(());
    }
    let mut rows: Vec<(String, u64)> = counts.iter().map(|(name, count)| (plain(name), *count)).collect();
    rows.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let width = rows.iter().map(|(name, _)| name.len()).chain([name.len()]).max().unwrap_or_default();
    writeln!(f, "\n  {name:<width$}  {count:>11}")?;
    for (name, count) in rows.iter().take(MOST_SHOWN) {
        writeln!(f, "  {name:<width$}  {count:>11}")?;
    }
    let more = rows.len().saturating_sub(MOST_SHOWN);
    if more > 0 { writeln!(f, "  and {more} more") } else { Ok(()) }
}

fn percent(fraction: f64) -> String {
    format!("{:.1} %", fraction * 100.0)
}

fn mebibytes(units: u64) -> String {
    bytes(units.saturating_mul(1 << 20))
}

/// Three or four digits and a binary unit.
pub fn bytes(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let power = bytes.checked_ilog2().map_or(0, |bits| bits as usize / 10);
    if power == 0 {
        return format!("{bytes} B");
    }
    format!("{:.1} {}", bytes as f64 / (1_u64 << (10 * power)) as f64, units[power])
}

/// The two largest units.
fn time(seconds: f64) -> String {
    let seconds = seconds as u64;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min {} s", seconds % 60),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn human_units() {
        for (value, text) in
            [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (200 << 20, "200.0 MiB"), (3 << 29, "1.5 GiB")]
        {
            assert_eq!(bytes(value), text);
        }
        assert_eq!(bytes(u64::MAX), "16.0 EiB");
        for (seconds, text) in [(0.4, "0 s"), (59.9, "59 s"), (61.0, "1 min 1 s"), (7260.0, "2 h 1 min")] {
            assert_eq!(time(seconds), text);
        }
        assert_eq!(time(90_000.0), "1 d 1 h");
    }
}
