//! The guest's standard error as log lines.

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

use crate::invocation::InvocationId;

/// A longer line is logged in pieces.
const LONGEST_LINE: usize = 8 << 10;
/// What one invocation may write to the log, as it is there; the rest is counted, not logged.
const MOST_BYTES: usize = 1 << 20;
/// What a line takes beside its text: time, function, id.
const LINE_BYTES: usize = 256;

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
    /// What was not logged because it was too much.
    dropped: usize,
    keep: KeepLast,
    /// The end of all that was written, and at most as much again before it.
    last: Vec<u8>,
}

impl Stderr {
    pub fn new(function: Arc<str>, id: InvocationId, keep: KeepLast) -> Self {
        let (unended, last) = (Vec::new(), Vec::new());
        Stderr(Arc::new(Mutex::new(Lines { function, id, unended, left: MOST_BYTES, dropped: 0, keep, last })))
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

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lines {
    fn write(&mut self, bytes: &[u8]) {
        if self.keep == KeepLast::Lines {
            // One byte more than is shown, which tells that there was more.
            self.last.extend_from_slice(&bytes[bytes.len().saturating_sub(LAST_BYTES + 1)..]);
            if self.last.len() > 2 * LAST_BYTES {
                self.last.drain(..self.last.len() - LAST_BYTES - 1);
            }
        }
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

    fn log(&mut self) {
        let line = String::from_utf8_lossy(self.unended.strip_suffix(b"\n").unwrap_or(&self.unended));
        let text = line.trim_end_matches('\r');
        // An empty line costs the log as much as a short one, and a control character is escaped.
        let size = LINE_BYTES + text.chars().map(|character| character.escape_debug().len()).sum::<usize>();
        if size <= self.left {
            self.left -= size;
            tracing::info!(target: "guest", function = %self.function, id = %self.id, stderr = text);
        } else {
            self.left = 0;
            self.dropped += self.unended.len();
        }
        self.unended.clear();
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        if !self.unended.is_empty() {
            self.log();
        }
        if self.dropped > 0 {
            let dropped_bytes = self.dropped;
            tracing::warn!(target: "guest", function = %self.function, id = %self.id, dropped_bytes, "stderr beyond 1 MiB was not logged");
        }
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stderr(keep: KeepLast) -> Stderr {
        Stderr::new("function".into(), InvocationId::next(), keep)
    }

    #[test]
    fn whole_lines_are_kept() {
        let stderr = stderr(KeepLast::Lines);
        assert_eq!(stderr.last_lines(), "");
        // After each, since what is kept is cut now and then.
        for number in 0..600 {
            stderr.lines().write(format!("line {number}\n").as_bytes());
            let last = stderr.last_lines();
            assert!(last.starts_with("line ") && last.ends_with(&format!("line {number}")), "{last}");
            assert!(last.len() <= LAST_BYTES && (number < 200 || last.len() > LAST_BYTES - 20), "{}", last.len());
        }
    }

    #[test]
    fn nothing_is_kept_that_nobody_may_read() {
        let stderr = stderr(KeepLast::Nothing);
        stderr.lines().write(b"secret\n");
        assert_eq!(stderr.last_lines(), "");
        assert_eq!(stderr.lines().last.capacity(), 0);
    }

    proptest! {
        #[test]
        fn little_is_kept_of_whatever_is_written(writes in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3000), 0..20)) {
            let stderr = stderr(KeepLast::Lines);
            for bytes in &writes {
                stderr.lines().write(bytes);
                prop_assert!(stderr.lines().last.len() <= 2 * LAST_BYTES);
            }
            // What is no UTF-8 becomes three bytes long.
            prop_assert!(stderr.last_lines().len() <= 3 * LAST_BYTES);
            let all = writes.concat();
            if all.len() <= LAST_BYTES {
                prop_assert_eq!(stderr.last_lines(), String::from_utf8_lossy(all.trim_ascii()));
            }
        }
    }
}
