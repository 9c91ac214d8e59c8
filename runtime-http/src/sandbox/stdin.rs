//! The request body as the guest's standard input.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http_body::Body;
use tokio::io::AsyncRead;
use wasmtime_wasi::{
    async_trait,
    cli::{IsTerminal, StdinStream},
    p2::{InputStream, Pollable, StreamError},
};

use crate::exchange::request_body::RequestBody;

/// Standard input of one invocation. Clones and streams share one position, as WASI asks.
#[derive(Clone)]
pub struct Stdin(Arc<Mutex<State>>);

struct State {
    /// Received, not yet read.
    buffer: Bytes,
    rest: Option<RequestBody>,
    error: Option<String>,
}

impl State {
    /// Ready when there is something to read, or the end, or an error.
    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while self.buffer.is_empty() {
            let Some(rest) = &mut self.rest else { return Poll::Ready(()) };
            match Pin::new(rest).poll_frame(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer = data;
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    self.error = Some(error.to_string());
                    self.rest = None;
                }
                Poll::Ready(None) => self.rest = None,
            }
        }
        Poll::Ready(())
    }
}

impl Stdin {
    pub fn new(mut body: RequestBody) -> Self {
        let (buffer, rest) = match body.take_buffered() {
            Some(buffer) => (buffer, None),
            None => (Bytes::new(), Some(body)),
        };
        Stdin(Arc::new(Mutex::new(State { buffer, rest, error: None })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Pollable for Stdin {
    async fn ready(&mut self) {
        std::future::poll_fn(|context| self.state().poll_fill(context)).await;
    }
}

#[async_trait]
impl InputStream for Stdin {
    fn read(&mut self, size: usize) -> Result<Bytes, StreamError> {
        let mut state = self.state();
        if state.poll_fill(&mut Context::from_waker(Waker::noop())).is_pending() {
            return Ok(Bytes::new());
        }
        if state.buffer.is_empty() {
            return Err(match state.error.take() {
                Some(error) => StreamError::LastOperationFailed(wasmtime::Error::msg(error)),
                None => StreamError::Closed,
            });
        }
        let size = size.min(state.buffer.len());
        Ok(state.buffer.split_to(size))
    }
}

impl AsyncRead for Stdin {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let mut state = self.state();
        std::task::ready!(state.poll_fill(context));
        if let Some(error) = state.error.take() {
            return Poll::Ready(Err(std::io::Error::other(error)));
        }
        let size = into.remaining().min(state.buffer.len());
        into.put_slice(&state.buffer.split_to(size));
        Poll::Ready(Ok(()))
    }
}

impl IsTerminal for Stdin {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdinStream for Stdin {
    fn async_stream(&self) -> Box<dyn AsyncRead + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn InputStream> {
        Box::new(self.clone())
    }
}
