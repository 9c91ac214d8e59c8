//! Structured logs on standard error.
//!
//! Whoever logs only appends to a buffer in memory; a thread of its own writes it out. A slow or stuck reader of the log never holds up a
//! request: beyond [`MOST_BYTES`] lines are lost, and counted.

mod line;

use std::{
    io::{self, Write},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tracing_subscriber::{EnvFilter, filter::LevelFilter, fmt::MakeWriter};

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    Text,
    Json,
}

/// The most that waits to be written.
const MOST_BYTES: usize = 8 << 20;
/// Lines of this span are written together; a line appears this much later at most.
const GATHER: Duration = Duration::from_millis(5);
/// How long the last lines may take to be written at the end, if the reader is stuck.
const LAST_WRITE: Duration = Duration::from_secs(1);

/// The log. Dropping it writes what is left.
pub struct Logs {
    buffer: Arc<Buffer>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Buffer {
    state: Mutex<State>,
    changed: Condvar,
    lost: AtomicU64,
}

#[derive(Default)]
struct State {
    lines: Vec<u8>,
    /// The writer waits for the first line, without a time limit.
    asleep: bool,
    closed: bool,
}

/// Starts logging. `level` is a filter in `tracing`'s syntax: `info`, `debug`, `info,guest=off`.
///
/// # Errors
/// If `level` is none, or the thread cannot be started.
pub fn start(level: &str, format: LogFormat) -> Result<Logs, String> {
    let filter = parse_level(level)?;
    let buffer = Arc::new(Buffer::default());
    let thread = {
        let buffer = buffer.clone();
        thread::Builder::new()
            .name("log".into())
            .spawn(move || buffer.write_out(&mut io::stderr()))
            .map_err(|error| format!("cannot start the log's thread: {error}"))?
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(Writer(buffer.clone()));
    match format {
        LogFormat::Text => builder.fmt_fields(line::TextFields).event_format(line::TextLine).init(),
        LogFormat::Json => {
            builder.json().flatten_event(true).with_current_span(false).with_span_list(false).init();
        }
    }
    Ok(Logs { buffer, thread: Some(thread) })
}

/// Libraries that open a span, at level info, for each call a guest makes: not worth what they cost, unless asked for.
const QUIET: [&str; 2] = ["wasmtime_wasi=warn", "wiggle=warn"];

fn parse_level(level: &str) -> Result<EnvFilter, String> {
    let bad = |reason: String| {
        format!(
            "--log-level (LOG_LEVEL) {level:?}: {reason}; expected error, warn, info, debug, trace or off, also by target: \
             info,guest=off"
        )
    };
    // The filter would take a misspelt level for a target, and log nothing.
    for directive in level.split(',').filter(|directive| !directive.contains('=')) {
        directive.parse::<LevelFilter>().map_err(|_| bad(format!("{directive:?} is not a level")))?;
    }
    // Of two directives for one target the later counts.
    format!("{},{level}", QUIET.join(",")).parse().map_err(|error| bad(format!("{error}")))
}

impl Logs {
    /// Counts the lines that were lost.
    pub fn lost(&self) -> impl Fn() -> u64 + Send + Sync + Clone + 'static {
        let buffer = self.buffer.clone();
        move || buffer.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        self.buffer.state().closed = true;
        self.buffer.changed.notify_one();
        let Some(thread) = self.thread.take() else { return };
        let give_up = Instant::now() + LAST_WRITE;
        while !thread.is_finished() && Instant::now() < give_up {
            thread::sleep(Duration::from_millis(1));
        }
        // A stuck reader is left behind with the process.
        if thread.is_finished() {
            let _ = thread.join();
        }
    }
}

impl Buffer {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append(&self, line: &[u8]) {
        let mut state = self.state();
        if state.lines.len() + line.len() > MOST_BYTES {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        state.lines.extend_from_slice(line);
        if std::mem::take(&mut state.asleep) {
            self.changed.notify_one();
        }
    }

    fn write_out(&self, to: &mut impl Write) {
        let mut lines = Vec::new();
        loop {
            let closed = {
                let mut state = self.state();
                while state.lines.is_empty() && !state.closed {
                    state.asleep = true;
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                std::mem::swap(&mut lines, &mut state.lines);
                state.closed
            };
            // Nobody can be told that the log cannot be written.
            let _ = to.write_all(&lines);
            if closed && lines.is_empty() {
                return;
            }
            lines.clear();
            if !closed {
                thread::sleep(GATHER);
            }
        }
    }
}

/// Hands whole lines to the buffer.
struct Writer(Arc<Buffer>);

impl<'a> MakeWriter<'a> for Writer {
    type Writer = LineWriter<'a>;

    fn make_writer(&'a self) -> LineWriter<'a> {
        LineWriter(&self.0)
    }
}

/// `tracing-subscriber` writes each event with one call.
struct LineWriter<'a>(&'a Buffer);

impl Write for LineWriter<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.append(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stuck_reader_costs_lines_not_time() {
        let buffer = Buffer::default();
        let line = [b'x'; 1 << 20];
        for _ in 0..10 {
            buffer.append(&line);
        }
        assert_eq!(buffer.lost.load(Ordering::Relaxed), 2);
        buffer.state().closed = true;
        let mut written = Vec::new();
        buffer.write_out(&mut written);
        assert_eq!(written.len(), 8 << 20);
    }
}
