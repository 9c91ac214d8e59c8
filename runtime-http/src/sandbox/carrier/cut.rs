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

struct Cut {
    /// `None` when it was cut.
    body: Option<WasiBody>,
    /// `None` when it will not be.
    cut: Option<oneshot::Receiver<()>>,
}

/// Ends the body. Dropping this leaves the body as it is.
pub(super) struct Scissors(oneshot::Sender<()>);

impl Scissors {
    pub fn cut(self) {
        // Nobody receives it if the body is gone.
        let _ = self.0.send(());
    }
}

/// `body`, which the scissors end.
pub(super) fn cuttable(body: WasiBody) -> (WasiBody, Scissors) {
    let (sender, receiver) = oneshot::channel();
    (Cut { body: Some(body), cut: Some(receiver) }.boxed_unsync(), Scissors(sender))
}

impl Body for Cut {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Some(cut) = &mut self.cut
            && let Poll::Ready(cut) = Pin::new(cut).poll(context)
        {
            self.cut = None;
            if cut.is_ok() {
                self.body = None;
            }
        }
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(context),
            None => Poll::Ready(None),
        }
    }
}
