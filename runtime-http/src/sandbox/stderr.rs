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
}

impl Stderr {
    pub fn new(function: Arc<str>, id: InvocationId) -> Self {
        Stderr(Arc::new(Mutex::new(Lines { function, id, unended: Vec::new(), left: MOST_BYTES, dropped: 0 })))
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lines {
    fn write(&mut self, bytes: &[u8]) {
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
