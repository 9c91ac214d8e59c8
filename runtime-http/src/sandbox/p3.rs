//! Calls of WASI 0.3: a guest's tasks run beside each other, on one thread, and may go on after it has answered.

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use tokio::sync::oneshot;
use wasmtime::Store;
use wasmtime_wasi::p3::bindings::CommandPre;
use wasmtime_wasi_http::{
    Error, WasiBody, WasiHttpView,
    p3::{self, bindings::Service},
};

use super::{component::ComponentHost, http::Slot};
use crate::exchange::request_body::RequestBody;

/// Runs a command until it returns. As with `wasmtime run`, that ends its other tasks.
pub(super) async fn run(
    command: &CommandPre<ComponentHost>,
    store: &mut Store<ComponentHost>,
) -> wasmtime::Result<Result<(), ()>> {
    let command = command.instantiate_async(&mut *store).await?;
    store.run_concurrent(async |guest| command.wasi_cli_run().call_run(guest).await).await?
}

/// Runs a handler until all of its tasks have ended.
pub(super) async fn handle(
    service: &Service,
    store: &mut Store<ComponentHost>,
    request: Request<RequestBody>,
    slot: &Slot,
) -> wasmtime::Result<Delivery> {
    let request = with_authority(request);
    let (request, received) = p3::Request::from_http(store.data_mut().http().hooks, request);
    let delivery = store.run_concurrent(async |guest| {
        let delivery = match service.handle(guest, request).await? {
            Ok(response) => {
                let response = guest.with(|store| response.into_http(store, received))?;
                let (delivered, delivery) = oneshot::channel();
                slot.put(Ok(response.map(|body| Passing::body(Vec::new(), Some(body), Some(delivered)))));
                Delivery(Some(delivery))
            }
            Err(code) => {
                slot.put_error(&code);
                Delivery(None)
            }
        };
        poll_fn(|context| guest.poll_no_interesting_tasks(context)).await;
        wasmtime::Result::Ok(delivery)
    });
    delivery.await?
}

/// Guests are told whom a request is for as part of its target, also where HTTP/1.1 has it in a field.
pub(super) fn with_authority(request: Request<RequestBody>) -> Request<RequestBody> {
    let (mut head, body) = request.into_parts();
    let mut uri = head.uri.clone().into_parts();
    let host = || http::uri::Authority::try_from(head.headers.get(header::HOST)?.as_bytes()).ok();
    uri.authority = uri.authority.or_else(host);
    uri.scheme = uri.authority.is_some().then_some(http::uri::Scheme::HTTP);
    if let Ok(uri) = http::Uri::from_parts(uri) {
        head.uri = uri;
    }
    Request::from_parts(head, body)
}

/// A response's body on its way, after the guest has ended: it may have passed on its request's body, or that of another server's response.
pub(super) struct Delivery(Option<oneshot::Receiver<u64>>);

impl Delivery {
    /// Whether all of the body is there, or taken. Of one that is in `slot`, and not streamed, about `most` bytes are taken out of its guest's
    /// hands.
    pub(super) fn is_over(&mut self, slot: &Slot, is_streaming: bool, most: usize) -> bool {
        let Some(delivered) = &mut self.0 else { return true };
        if !is_streaming && let Some(response) = slot.take_response() {
            let (response, is_whole) = begun(response, most);
            slot.put(Ok(response));
            if is_whole {
                return true;
            }
        }
        !matches!(delivered.try_recv(), Err(oneshot::error::TryRecvError::Empty))
    }

    /// Until it is.
    pub(super) async fn rest(self) {
        if let Some(delivered) = self.0 {
            // Either way it will not be sent any more.
            let _ = delivered.await;
        }
    }
}

/// Takes what is there of its body, up to about `most` bytes; whether that is all of it.
pub(super) fn begun(response: Response<WasiBody>, most: usize) -> (Response<WasiBody>, bool) {
    let (head, mut body) = response.into_parts();
    let (mut frames, mut bytes) = (Vec::new(), 0);
    let mut context = Context::from_waker(Waker::noop());
    let is_whole = loop {
        match Pin::new(&mut body).poll_frame(&mut context) {
            Poll::Ready(Some(frame)) => {
                let length = frame.as_ref().ok().and_then(Frame::data_ref).map_or(0, Bytes::len);
                let is_error = frame.is_err();
                frames.push(frame);
                bytes += length;
                if is_error {
                    break true;
                }
                if bytes > most {
                    break false;
                }
            }
            Poll::Ready(None) => break true,
            Poll::Pending => break false,
        }
    };
    (Response::from_parts(head, Passing::body(frames, (!is_whole).then_some(body), None)), is_whole)
}

type ResultFrame = Result<Frame<Bytes>, Error>;

/// A body that says when it has been delivered; it was dropped before if it does not.
pub(super) struct Passing {
    first: VecDeque<ResultFrame>,
    rest: Option<WasiBody>,
    /// Is told how many bytes that were.
    delivered: Option<oneshot::Sender<u64>>,
    bytes: u64,
}

impl Passing {
    pub(super) fn body(
        first: Vec<ResultFrame>,
        rest: Option<WasiBody>,
        delivered: Option<oneshot::Sender<u64>>,
    ) -> WasiBody {
        Passing { first: first.into(), rest, delivered, bytes: 0 }.boxed_unsync()
    }
}

impl Body for Passing {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<ResultFrame>> {
        if let Some(frame) = self.first.pop_front() {
            return Poll::Ready(Some(frame));
        }
        let Some(rest) = &mut self.rest else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(rest).poll_frame(context));
        match &frame {
            Some(frame) => self.bytes += frame.as_ref().ok().and_then(Frame::data_ref).map_or(0, Bytes::len) as u64,
            None => {
                self.rest = None;
                if let Some(delivered) = self.delivered.take() {
                    // Whoever does not ask any more need not know.
                    let _ = delivered.send(self.bytes);
                }
            }
        }
        Poll::Ready(frame)
    }
}
