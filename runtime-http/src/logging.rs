//! Structured logs on standard error.
//!
//! Whoever logs only puts a line into a queue in memory; a thread of its own writes it out. A slow or stuck reader of the log never holds
//! up a request: beyond [`MOST_BYTES`] lines are lost, and counted.
//!
//! There is no lock in it, because guests' standard error goes through it, too: see [`drain`](crate::drain).

pub mod json;
mod line;

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle, Thread},
    time::{Duration, Instant},
};

use tracing_subscriber::{EnvFilter, filter::LevelFilter, fmt::MakeWriter};

use crate::{
    drain::{Drain, Taken},
    threads,
};

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

/// The most that waits to be written.
const MOST_BYTES: usize = 8 << 20;
/// Lines of usual length are about as many.
const MOST_LINES: usize = 1 << 16;
/// How long a process that ends at once waits for its log.
const FLUSH: Duration = Duration::from_millis(100);
/// How long the last lines may take to be written at the end, if the reader is stuck.
const LAST_WRITE: Duration = Duration::from_secs(1);

/// The log. Dropping it writes what is left.
pub struct Logs {
    buffer: Arc<Buffer>,
    thread: Option<JoinHandle<()>>,
}

struct Buffer {
    lines: SyncSender<Vec<u8>>,
    /// In `lines`, in sum.
    bytes: AtomicUsize,
    drain: Drain,
    lost: AtomicU64,
}

/// Starts logging. `level` is a filter in `tracing`'s syntax: `info`, `debug`, `info,guest=off`.
///
/// # Errors
/// If `level` is none, or the thread cannot be started.
pub fn start(level: &str, format: LogFormat) -> Result<Logs, String> {
    let filter = parse_level(level)?;
    let (buffer, lines) = Buffer::new();
    let thread = {
        let buffer = buffer.clone();
        thread::Builder::new()
            .name("log".into())
            .spawn(move || buffer.write_out(&lines, &mut io::stderr()))
            .map_err(|error| format!("cannot start the log's thread: {error}; {}", threads::REMEDY))?
    };
    let writer = Writer { buffer: buffer.clone(), thread: thread.thread().clone(), format };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    match format {
        LogFormat::Text => builder.fmt_fields(line::TextFields).event_format(line::TextLine).init(),
        LogFormat::Json => {
            builder.json().flatten_event(true).with_current_span(false).with_span_list(false).init();
        }
    }
    Ok(Logs { buffer, thread: Some(thread) })
}

/// Libraries that open a span for each call a guest makes, and write lines that a guest can cause at will, without its name: left out,
/// unless asked for.
const QUIET: [&str; 3] = ["wasmtime_wasi=off", "wasmtime_wasi_http=off", "wiggle=off"];

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

    /// Waits until all that was logged is written, a tenth of a second at most.
    pub fn flush(&self) {
        let give_up = Instant::now() + FLUSH;
        while self.buffer.bytes.load(Ordering::Relaxed) > 0 && Instant::now() < give_up {
            thread::sleep(Duration::from_millis(1));
        }
        // What was taken out is being written.
        thread::sleep(Duration::from_millis(1));
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        self.buffer.drain.close();
        thread.thread().unpark();
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
    fn new() -> (Arc<Buffer>, Receiver<Vec<u8>>) {
        let (lines, receiver) = sync_channel(MOST_LINES);
        let buffer = Buffer { lines, bytes: AtomicUsize::new(0), drain: Drain::default(), lost: AtomicU64::new(0) };
        (Arc::new(buffer), receiver)
    }

    /// Whether the writer must be woken for it.
    fn append(&self, line: &[u8]) -> bool {
        let waiting = self.bytes.fetch_add(line.len(), Ordering::Relaxed);
        // As long as nobody blocks in receiving, sending takes no lock.
        if waiting + line.len() > MOST_BYTES || self.lines.try_send(line.to_vec()).is_err() {
            self.bytes.fetch_sub(line.len(), Ordering::Relaxed);
            self.lost.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        self.drain.must_wake()
    }

    fn write_out(&self, lines: &Receiver<Vec<u8>>, to: &mut impl Write) {
        let mut text = Vec::new();
        self.drain.run(|| {
            text.clear();
            // What comes meanwhile is for the next time: so `text` is bounded, too.
            for line in lines.try_iter().take(MOST_LINES) {
                text.extend_from_slice(&line);
            }
            if text.is_empty() {
                return Taken::Nothing;
            }
            self.bytes.fetch_sub(text.len(), Ordering::Relaxed);
            // Nobody can be told that the log cannot be written.
            let _ = to.write_all(&text);
            Taken::All
        });
    }
}

/// Hands whole lines to the buffer.
struct Writer {
    buffer: Arc<Buffer>,
    thread: Thread,
    format: LogFormat,
}

impl<'a> MakeWriter<'a> for Writer {
    type Writer = LineWriter<'a>;

    fn make_writer(&'a self) -> LineWriter<'a> {
        LineWriter(self)
    }
}

/// `tracing-subscriber` writes each event with one call.
struct LineWriter<'a>(&'a Writer);

impl Write for LineWriter<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let escaped = match self.0.format {
            LogFormat::Json => json::escaped(line),
            // It is escaped by its own formatter.
            LogFormat::Text => None,
        };
        if self.0.buffer.append(escaped.as_deref().unwrap_or(line)) {
            self.0.thread.unpark();
        }
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
        let (buffer, lines) = Buffer::new();
        let line = [b'x'; 1 << 20];
        for _ in 0..10 {
            buffer.append(&line);
        }
        assert_eq!(buffer.lost.load(Ordering::Relaxed), 2);
        buffer.drain.close();
        let mut written = Vec::new();
        buffer.write_out(&lines, &mut written);
        assert_eq!(written.len(), 8 << 20);
    }
}
