//! The body of a response, on its way from the server to the guest.
//!
//! It has the connection until its end. What it gives the guest is copied, in the guest's account: what the connection reads into is the
//! connection's.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;
use wasmtime_wasi_http::{Error, Result};

use super::{
    Destination, access::InvocationAccess, connection::Connection, failure, head::copied, meter::Waiting,
    request_body::Gone,
};

pub struct ResponseBody {
    incoming: Incoming,
    /// `None` when it is over.
    connection: Option<Connection>,
    request: Gone,
    destination: Destination,
    invocation: Arc<InvocationAccess>,
    between_bytes: Option<Duration>,
    /// While the guest waits for more: until when.
    patience: Option<Pin<Box<Sleep>>>,
    waiting: Option<Waiting>,
}

impl ResponseBody {
    pub fn new(
        incoming: Incoming,
        connection: Connection,
        request: Gone,
        destination: Destination,
        invocation: Arc<InvocationAccess>,
        between_bytes: Option<Duration>,
    ) -> ResponseBody {
        let mut body = ResponseBody {
            incoming,
            connection: Some(connection),
            request,
            destination,
            invocation,
            between_bytes,
            patience: None,
            waiting: None,
        };
        body.end_if_over();
        body
    }

    fn end_if_over(&mut self) {
        if self.incoming.is_end_stream() {
            self.end();
        }
    }

    /// Nothing more comes: the connection may be used again, unless the request is still being sent.
    fn end(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        if let Some(function) = &self.invocation.function
            && self.request.is_gone()
            && !connection.is_closed()
        {
            function.keep(self.invocation.refusals.function(), self.destination.clone(), connection);
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>>>> {
        let this = &mut *self;
        let Poll::Ready(frame) = Pin::new(&mut this.incoming).poll_frame(context) else {
            this.waiting.get_or_insert_with(|| this.invocation.meter().start());
            let Some(between_bytes) = this.between_bytes else { return Poll::Pending };
            let patience = this.patience.get_or_insert_with(|| Box::pin(tokio::time::sleep(between_bytes)));
            if patience.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            (this.connection, this.waiting) = (None, None);
            return Poll::Ready(Some(Err(Error::ConnectionReadTimeout)));
        };
        (this.patience, this.waiting) = (None, None);
        let frame = match frame {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                this.connection = None;
                return Poll::Ready(Some(Err(failure::of_body(&error))));
            }
            None => {
                this.end();
                return Poll::Ready(None);
            }
        };
        let frame = match frame.into_data() {
            Ok(data) => Frame::data(Bytes::copy_from_slice(&data)),
            Err(frame) => match frame.into_trailers() {
                Ok(trailers) => Frame::trailers(copied(&trailers)),
                Err(frame) => frame,
            },
        };
        if frame.is_trailers() {
            this.end();
        } else {
            this.end_if_over();
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
