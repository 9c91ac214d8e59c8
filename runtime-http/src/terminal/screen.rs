//! What is drawn of an overview.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Modifier, Style},
    text::{Line, Span},
    widgets::{Cell, LineGauge, Paragraph, Row, Table},
};

use super::status_screen::bytes;
use super::{bound, plain, plain_lines, rate, share};
use crate::overview::{Overview, query::Query};

/// What is shown beside the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shows {
    /// Functions alone.
    Functions,
    /// What is compiled and has failed, too.
    All,
}

const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const REVERSED: Style = Style::new().add_modifier(Modifier::REVERSED);
/// Lines of what failed.
const FAILURES: u16 = 9;
/// Lines of a failure's standard error.
const LAST_WORDS: usize = 2;

/// Draws it; what does not fit is left out.
pub fn draw(frame: &mut Frame<'_>, address: &str, shows: Shows, query: &Query, overview: &Overview) {
    let below = if shows == Shows::All { FAILURES } else { 0 };
    let [head, gauges, functions, failures, keys] = Layout::vertical([
        Constraint::Length(4),
        Constraint::Length(2),
        Constraint::Min(3),
        Constraint::Length(below),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(Paragraph::new(lines(address, overview)), head);
    draw_gauges(frame, gauges, overview);
    draw_functions(frame, functions, query, overview);
    if shows == Shows::All {
        frame.render_widget(Paragraph::new(failed(overview)), failures);
    }
    let help = "q ends, s sorts by the next, arrows and page keys scroll";
    frame.render_widget(Paragraph::new(Line::styled(help, Style::new().add_modifier(Modifier::DIM))), keys);
}

fn lines(address: &str, overview: &Overview) -> Vec<Line<'static>> {
    let Overview { status, totals, compiling, .. } = overview;
    let state = match (status.readiness.draining, status.readiness.ready) {
        (true, _) => "draining",
        (false, true) => "ready",
        (false, false) => "unready",
    };
    let title = format!(" on {}, asked at {}, up {:.0} s", plain(&status.pod), plain(address), status.uptime_seconds);
    let calls = format!(
        "calls {} /s, errors {} /s, running {} of {}, waiting {}",
        rate(totals.calls_per_second),
        rate(totals.errors_per_second),
        status.in_flight.invocations,
        status.capacity.invocations,
        status.queued.invocations
    );
    let gates: Vec<String> = status.closed_gates.iter().map(|gate| plain(gate)).collect();
    let held =
        if gates.is_empty() { String::new() } else { format!(", held back for want of {}", gates.join(" and ")) };
    let others = format!(
        "evicted {}, refused {}, connections {}{held}",
        overview.evicted,
        status.rejected.values().sum::<u64>(),
        status.connections
    );
    let loading: Vec<String> = compiling
        .loading
        .iter()
        .take(3)
        .map(|one| format!("{} (about {:.0} s)", plain(&one.file), one.seconds_left.ceil()))
        .collect();
    let compiled = format!(
        "compiling {} of {}, {} waiting, {} to be optimised  {}",
        compiling.running,
        compiling.places,
        compiling.waiting,
        compiling.baseline,
        loading.join(", ")
    );
    vec![
        Line::from(vec![Span::styled("WasmBox ", BOLD), Span::styled(state, BOLD), Span::raw(title)]),
        Line::raw(calls),
        Line::raw(others),
        Line::raw(compiled),
    ]
}

fn draw_gauges(frame: &mut Frame<'_>, area: Rect, overview: &Overview) {
    let [cpu, memory] = Layout::vertical([Constraint::Length(1), Constraint::Length(1)]).areas(area);
    let mut gauge = |area: Rect, label: String, ratio: f64| {
        let ratio = if ratio.is_finite() { ratio.clamp(0.0, 1.0) } else { 0.0 };
        frame.render_widget(LineGauge::default().label(label).ratio(ratio).filled_style(BOLD), area);
    };
    let (cores, limit) = (overview.status.cpu_cores, overview.cpu_limit_cores);
    gauge(cpu, format!("cpu    {cores:>9.2} of {limit:>9.0} cores"), cores / limit);
    let used = overview.status.memory.working_set_bytes.unwrap_or(0);
    let limit = overview.status.memory.limit_bytes;
    gauge(memory, format!("memory {:>9} of {:>9}      ", bytes(used), bytes(limit)), used as f64 / limit as f64);
}

fn draw_functions(frame: &mut Frame<'_>, area: Rect, query: &Query, overview: &Overview) {
    let functions = &overview.functions;
    let heading = format!(
        "FUNCTION, {} to {} of {} by {}",
        functions.offset + u64::from(!functions.rows.is_empty()),
        functions.offset + functions.rows.len() as u64,
        functions.matching,
        query.sort.as_str()
    );
    let head = [
        heading.as_str(),
        "STATE",
        "RUNS",
        "CALLS/S",
        "ERRORS/S",
        "CALLS",
        "ERRORS",
        "CPU",
        "CPU %",
        "PEAK",
        "PEAK %",
        "99 %",
    ];
    let rows = functions.rows.iter().map(|row| {
        let counts = &row.counts;
        Row::new(
            [
                plain(&row.name),
                plain(&row.state),
                row.running.to_string(),
                rate(counts.calls_per_second),
                rate(counts.errors_per_second),
                counts.calls.to_string(),
                counts.errors.to_string(),
                format!("{:.3}", counts.cpu_cores),
                share(counts.cpu_cores, row.cpu_limit_cores),
                bytes(row.memory_peak_bytes),
                share(row.memory_peak_bytes as f64, row.memory_limit_bytes.map(|bytes| bytes as f64)),
                bound(row.p99_seconds),
            ]
            .map(Cell::from),
        )
    });
    let widths = [
        Constraint::Min(24),
        Constraint::Length(8),
        Constraint::Length(5),
        Constraint::Length(8),
        Constraint::Length(8),
        Constraint::Length(9),
        Constraint::Length(7),
        Constraint::Length(7),
        Constraint::Length(5),
        Constraint::Length(10),
        Constraint::Length(6),
        Constraint::Length(7),
    ];
    frame.render_widget(Table::new(rows, widths).header(Row::new(head).style(REVERSED)), area);
}

fn failed(overview: &Overview) -> Vec<Line<'static>> {
    let mut lines = vec![Line::styled("FAILED LAST", REVERSED)];
    for failure in &overview.failures {
        lines.push(Line::raw(format!(
            "{}  {} {}  {}  {}",
            plain(&failure.function),
            failure.status,
            plain(&failure.code),
            plain(&failure.invocation_id),
            plain(&failure.reason)
        )));
        let said = plain_lines(&failure.stderr);
        let last = said.len().saturating_sub(LAST_WORDS);
        lines.extend(said[last..].iter().map(|line| Line::raw(format!("    {line}"))));
    }
    if overview.failures.is_empty() {
        lines.push(Line::raw("nothing"));
    }
    lines
}

#[cfg(test)]
mod tests;
