//! A body that can end before whoever writes it does: its request has failed, and others are still in the instance.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use tokio::sync::oneshot;
use wasmtime_wasi_http::{Error, WasiBody};

struct Abortable {
    /// `None` when it was aborted.
    body: Option<WasiBody>,
    /// `None` when it will not be.
    aborted: Option<oneshot::Receiver<()>>,
}

/// Ends the body. Dropping this leaves the body as it is.
pub(super) struct AbortHandle(oneshot::Sender<()>);

impl AbortHandle {
    pub fn abort(self) {
        // Nobody receives it if the body is gone.
        let _ = self.0.send(());
    }
}

/// `body`, which the handle ends.
pub(super) fn abortable(body: WasiBody) -> (WasiBody, AbortHandle) {
    let (sender, receiver) = oneshot::channel();
    (Abortable { body: Some(body), aborted: Some(receiver) }.boxed_unsync(), AbortHandle(sender))
}

impl Body for Abortable {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Some(aborted) = &mut self.aborted
            && let Poll::Ready(aborted) = Pin::new(aborted).poll(context)
        {
            self.aborted = None;
            if aborted.is_ok() {
                self.body = None;
            }
        }
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(context),
            None => Poll::Ready(None),
        }
    }
}
