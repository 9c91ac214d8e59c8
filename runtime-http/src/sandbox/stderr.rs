//! The guest's standard error as log lines, and the lines that it gives to the log itself: both from one account.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::{
    async_trait,
    cli::{IsTerminal, StdoutStream},
    p2::{OutputStream, Pollable, StreamError},
};

use super::log_allowance::LogAllowance;
use crate::{
    function_log::{Entry, FunctionLog},
    invocation::InvocationId,
};

/// A longer line is logged in pieces.
const LONGEST_LINE: usize = 8 << 10;
/// What one invocation may write to the log, as it is there; the rest is counted, not logged.
const MOST_BYTES: usize = 1 << 20;
/// What a line takes beside its text: time, function, id.
const LINE_BYTES: usize = 256;

/// The most of a line's context, bytes.
const LONGEST_CONTEXT: usize = 256;

/// How much a line matters that a guest gives to the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
    Critical,
}

/// Logs in the level that a [`Severity`] is: those are constants to `tracing`.
macro_rules! at_level {
    ($severity:expr, $macro:ident, $($argument:tt)*) => {
        match $severity {
            Severity::Trace => tracing::$macro!(target: "guest", tracing::Level::TRACE $($argument)*),
            Severity::Debug => tracing::$macro!(target: "guest", tracing::Level::DEBUG $($argument)*),
            Severity::Info => tracing::$macro!(target: "guest", tracing::Level::INFO $($argument)*),
            Severity::Warn => tracing::$macro!(target: "guest", tracing::Level::WARN $($argument)*),
            Severity::Error | Severity::Critical => tracing::$macro!(target: "guest", tracing::Level::ERROR $($argument)*),
        }
    };
}

impl Severity {
    fn as_str(self) -> &'static str {
        match self {
            Severity::Trace => "trace",
            Severity::Debug => "debug",
            Severity::Info => "info",
            Severity::Warn => "warn",
            Severity::Error => "error",
            Severity::Critical => "critical",
        }
    }

    /// Whether the box's log has lines of that level.
    fn is_logged(self) -> bool {
        at_level!(self, enabled,)
    }
}

/// The most that is kept for whoever asks why a function failed: some lines.
const LAST_BYTES: usize = 1 << 10;

/// Whether the end of it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeepLast {
    Nothing,
    Lines,
}

/// Standard error of one invocation; the last, unended line is logged when the last clone is dropped.
#[derive(Clone)]
pub struct Stderr(Arc<Mutex<Lines>>);

struct Lines {
    function: Arc<str>,
    id: InvocationId,
    unended: Vec<u8>,
    /// What it may still write.
    left: usize,
    /// What its function may write beside that; `None`: as much as it likes.
    allowance: Option<Arc<LogAllowance>>,
    /// What was not logged because it was too much.
    dropped: usize,
    /// Where whoever follows the function finds it, too.
    log: Option<Arc<FunctionLog>>,
    keep: KeepLast,
    /// The end of all that was written, and at most as much again before it.
    last: Vec<u8>,
}

impl Stderr {
    pub fn new(function: Arc<str>, id: InvocationId, keep: KeepLast) -> Self {
        Stderr(Arc::new(Mutex::new(Lines::new(function, id, keep))))
    }

    /// Its lines are among those that its function may write.
    #[must_use]
    pub fn within(self, allowance: Option<Arc<LogAllowance>>) -> Self {
        self.lines().allowance = allowance;
        self
    }

    /// The same lines go there, too.
    #[must_use]
    pub fn followed(self, log: Option<Arc<FunctionLog>>) -> Self {
        if log.is_some() {
            self.lines().log = log;
        }
        self
    }

    /// The invocation has ended: what it has not ended is logged now, although its instance has the stream still.
    pub fn end(&self) {
        self.lines().end();
    }

    /// From now on it is that of another invocation in the same instance, as if it were new.
    pub fn renew(&self, id: InvocationId) {
        let mut lines = self.lines();
        let (log, allowance) = (lines.log.clone(), lines.allowance.clone());
        *lines = Lines::new(lines.function.clone(), id, lines.keep);
        (lines.log, lines.allowance) = (log, allowance);
    }

    /// The last lines that were written, whole ones if they are not too long; empty if there are none, or they are not kept.
    pub fn last_lines(&self) -> String {
        let lines = self.lines();
        let before = lines.last.len().saturating_sub(LAST_BYTES);
        let mut end = lines.last[before..].trim_ascii_end();
        // Of a line whose beginning is gone, the rest is left out.
        if before > 0
            && let Some(newline) = end.iter().position(|byte| *byte == b'\n')
        {
            end = &end[newline + 1..];
        }
        String::from_utf8_lossy(end.trim_ascii_start()).into_owned()
    }

    /// A line of the log: one, whatever is in `message`, or several if it is long. What the box does not log costs nothing.
    pub fn log(&self, severity: Severity, context: &str, message: &str) {
        if severity.is_logged() {
            self.lines().entry(severity, beginning(context, LONGEST_CONTEXT), message);
        }
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// At most `most` bytes of `text`, whole characters.
fn beginning(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

/// What is logged of a line, whose bytes may have become longer when they were made characters.
fn logged(line: &str) -> &str {
    beginning(line.trim_end_matches('\r'), LONGEST_LINE)
}

/// Bytes of `text` in the log, where a control character is escaped.
fn escaped_length(text: &str) -> usize {
    text.chars().flat_map(char::escape_debug).map(char::len_utf8).sum()
}

impl Lines {
    fn new(function: Arc<str>, id: InvocationId, keep: KeepLast) -> Lines {
        let (unended, last) = (Vec::new(), Vec::new());
        Lines { function, id, unended, left: MOST_BYTES, allowance: None, dropped: 0, log: None, keep, last }
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.keep == KeepLast::Lines {
            // One byte more than is shown, which tells that there was more.
            self.last.extend_from_slice(&bytes[bytes.len().saturating_sub(LAST_BYTES + 1)..]);
            if self.last.len() > 2 * LAST_BYTES {
                self.last.drain(..self.last.len() - LAST_BYTES - 1);
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        self.keep(bytes);
        if self.left == 0 {
            self.dropped += bytes.len();
            return;
        }
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            for part in piece.chunks(LONGEST_LINE) {
                self.unended.extend_from_slice(part);
                if part.ends_with(b"\n") || self.unended.len() >= LONGEST_LINE {
                    self.log();
                }
            }
        }
    }

    /// Whether a line of `size` bytes may be logged. The first one that is too much for the invocation is its last one.
    fn take(&mut self, size: usize) -> bool {
        if size > self.left {
            self.left = 0;
            return false;
        }
        if self.allowance.as_ref().is_some_and(|allowance| !allowance.take(size)) {
            return false;
        }
        self.left -= size;
        true
    }

    fn log(&mut self) {
        let mut unended = std::mem::take(&mut self.unended);
        let line = String::from_utf8_lossy(unended.strip_suffix(b"\n").unwrap_or(&unended));
        let text = logged(&line);
        // An empty line costs the log as much as a short one, and a control character is escaped.
        let size = LINE_BYTES + escaped_length(text);
        if self.take(size) {
            tracing::info!(target: "guest", function = %self.function, id = %self.id, stderr = text);
            if let Some(log) = self.log.as_ref().filter(|_| Severity::Info.is_logged()) {
                log.push(self.id, Entry::Stderr(text.into()));
            }
        } else {
            self.dropped += unended.len();
        }
        unended.clear();
        self.unended = unended;
    }

    fn entry(&mut self, severity: Severity, context: &str, message: &str) {
        for text in [context, if context.is_empty() { "" } else { ": " }, message, "\n"] {
            self.keep(text.as_bytes());
        }
        // Not `level`, which each line has already.
        let (severity_name, mut rest) = (severity.as_str(), message);
        loop {
            let text = beginning(rest, LONGEST_LINE);
            let size = LINE_BYTES + escaped_length(context) + escaped_length(text);
            if !self.take(size) {
                self.dropped += rest.len();
                return;
            }
            at_level!(severity, event, , function = %self.function, id = %self.id, severity = severity_name, context, log = text);
            if let Some(log) = &self.log {
                log.push(self.id, Entry::Log { severity: severity_name, context: context.into(), text: text.into() });
            }
            rest = &rest[text.len()..];
            if rest.is_empty() {
                return;
            }
        }
    }

    fn end(&mut self) {
        if !self.unended.is_empty() {
            self.log();
        }
        if self.dropped > 0 {
            let dropped_bytes = std::mem::take(&mut self.dropped);
            tracing::warn!(target: "guest", function = %self.function, id = %self.id, dropped_bytes, "what it wrote beyond 1 MiB, or its function beyond --function-log-rate, was not logged");
            if let Some(log) = self.log.as_ref().filter(|_| Severity::Warn.is_logged()) {
                log.push(self.id, Entry::Dropped { bytes: dropped_bytes });
            }
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.end();
    }
}

#[async_trait]
impl Pollable for Stderr {
    async fn ready(&mut self) {}
}

#[async_trait]
impl OutputStream for Stderr {
    fn write(&mut self, bytes: Bytes) -> Result<(), StreamError> {
        self.lines().write(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StreamError> {
        Ok(())
    }

    fn check_write(&mut self) -> Result<usize, StreamError> {
        Ok(64 << 10)
    }
}

impl AsyncWrite for Stderr {
    fn poll_write(self: Pin<&mut Self>, _context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.lines().write(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl IsTerminal for Stderr {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Stderr {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
mod tests;
