//! Structured logs on standard error, written by a thread of their own: a slow reader of the log never holds up a request, it loses
//! lines, which are counted.

use std::io::{self, BufWriter};

use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{EnvFilter, fmt::time::SystemTime};

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    Text,
    Json,
}

/// Lines between the writers and the reader.
const LINES: usize = 100_000;

/// Writes what is left when dropped.
pub struct Logs {
    _writer: WorkerGuard,
    pub lost: ErrorCounter,
}

/// Starts logging. `level` is a filter in `tracing`'s syntax: `info`, `debug`, `info,guest=off`.
///
/// # Errors
/// If `level` is none.
pub fn start(level: &str, format: LogFormat) -> Result<Logs, String> {
    let filter: EnvFilter = level.parse().map_err(|error| format!("LOG_LEVEL {level:?} is not a level: {error}; expected error, warn, info, debug, trace, or target=level pairs"))?;
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(LINES)
        .lossy(true)
        .thread_name("log")
        .finish(BufWriter::with_capacity(64 << 10, io::stderr()));
    let lost = writer.error_counter();
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_timer(SystemTime).with_ansi(false);
    match format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
    Ok(Logs { _writer: guard, lost })
}
