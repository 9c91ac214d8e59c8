//! `wasmbox top`: the functions of a box that use the most.

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

use super::{
    arguments::TopArgs, ask::ask, bound, plain, rate, screen::Shows, session, share, status::StatusError,
    status_screen::bytes,
};
use crate::{
    config::Settings,
    deploy::table::aligned,
    overview::{DirectoryState, Overview, query::Query},
};

/// Shows them until a key ends it, or once.
///
/// # Errors
/// [`StatusError`], if no box answers.
pub fn top(arguments: &TopArgs, settings: &Settings) -> Result<ExitCode, StatusError> {
    let address = arguments.place.address(settings);
    let query = Query {
        sort: arguments.sort,
        limit: usize::from(arguments.number),
        filter: arguments.filter.clone().unwrap_or_default().to_ascii_lowercase(),
        ..Query::default()
    };
    let interactive = io::stdout().is_terminal() && io::stdin().is_terminal();
    if interactive && !arguments.once && !arguments.json {
        session::watch(&address, Shows::Functions, query)?;
        return Ok(ExitCode::SUCCESS);
    }
    let overview = ask(&address, &Query { failures: 0, ..query })?;
    let text = if arguments.json {
        serde_json::to_string_pretty(&overview.functions).map_err(io::Error::from)? + "\n"
    } else {
        list(&overview)
    };
    let mut output = io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        written => Ok(written.map(|()| ExitCode::SUCCESS)?),
    }
}

/// The functions as aligned lines.
fn list(overview: &Overview) -> String {
    let head = [
        "FUNCTION", "STATE", "RUNS", "CALLS/S", "ERRORS/S", "CALLS", "ERRORS", "CPU", "CPU %", "PEAK", "PEAK %", "99 %",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(overview.functions.rows.iter().map(|row| {
        [
            plain(&row.name),
            plain(&row.state),
            row.running.to_string(),
            rate(row.counts.calls_per_second),
            rate(row.counts.errors_per_second),
            row.counts.calls.to_string(),
            row.counts.errors.to_string(),
            format!("{:.3}", row.counts.cpu_cores),
            share(row.counts.cpu_cores, row.cpu_limit_cores),
            bytes(row.memory_peak_bytes),
            share(row.memory_peak_bytes as f64, row.memory_limit_bytes.map(|bytes| bytes as f64)),
            bound(row.p99_seconds),
        ]
    }));
    let mut text = aligned(&rows);
    let functions = &overview.functions;
    let more = functions.matching.saturating_sub(functions.rows.len() as u64);
    if more > 0 {
        text.push_str(&format!("and {more} more; -n shows up to 200, --filter some of them\n"));
    }
    if functions.directory != DirectoryState::Whole {
        text.push_str(
            "the functions directory is not known as a whole: functions that were not called may be missing\n",
        );
    }
    text
}
