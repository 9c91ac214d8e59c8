//! Runs `wasi:http/incoming-handler`: the guest gets the request itself and makes the response.

use std::{
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http_body::{Body, Frame};
use tokio::sync::oneshot;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{
    WasiHttpCtx, WasiHttpCtxView, WasiHttpView,
    p2::{
        bindings::{
            ProxyPre,
            http::types::{ErrorCode, Scheme},
        },
        body::HyperOutgoingBody,
    },
};

use super::{
    Input, Invocation, Meter, Reply, RequestBody, bounded, bounded_store,
    command::granted_context,
    failure::{Failure, Notes, classify},
    limiter::Limiter,
    outbound::Outbound,
    set_end,
    stderr::Stderr,
};
use crate::{epoch, sandbox::failure::noted};

/// The data of a component's store.
pub struct ComponentHost {
    pub(super) wasi: WasiCtx,
    pub(super) table: ResourceTable,
    pub(super) http: WasiHttpCtx,
    pub(super) outbound: Outbound,
    pub(super) limiter: Limiter,
}

impl WasiView for ComponentHost {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for ComponentHost {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { hooks: &mut self.outbound, table: &mut self.table, ctx: &mut self.http }
    }
}

type GuestResponse = Result<::http::Response<HyperOutgoingBody>, ErrorCode>;

/// Where the guest puts its response. It stays here while the guest runs on without waiting, so that a short response is passed on
/// whole, in one step.
type Slot = Arc<Mutex<Option<GuestResponse>>>;

fn take(slot: &Slot) -> Option<GuestResponse> {
    slot.lock().unwrap_or_else(PoisonError::into_inner).take()
}

pub(super) fn run(
    program: &ProxyPre<ComponentHost>,
    mut invocation: Invocation,
    reply: oneshot::Sender<Reply>,
    epochs: &epoch::Awake,
    meter: Meter<'_>,
) {
    let input =
        std::mem::replace(&mut invocation.input, Input::Http(::http::Request::new(RequestBody::full(Bytes::new()))));
    let Input::Http(request) = input else {
        return refuse(
            &invocation,
            reply,
            meter,
            Failure::Internal { reason: "an HTTP handler was given no request".into() },
        );
    };
    let mut wasi = match granted_context(&invocation.grants) {
        Ok(wasi) => wasi,
        Err(failure) => return refuse(&invocation, reply, meter, failure),
    };
    // An HTTP handler has no output but its response: what it prints is for the log.
    let stderr = Stderr::new(invocation.record.function.name().clone(), invocation.record.id);
    wasi.args(&invocation.grants.args).stdout(stderr.clone()).stderr(stderr);
    let host = ComponentHost {
        wasi: wasi.build(),
        table: ResourceTable::new(),
        http: WasiHttpCtx::new(),
        outbound: Outbound::new(invocation.grants.clone()),
        limiter: invocation.limiter(),
    };
    let mut store = bounded_store(program.engine(), host, |host| &mut host.limiter);
    let fate = request.body().fate();
    let slot = Slot::default();
    let mut reply = Some(reply);
    let result = {
        let slot_of_guest = slot.clone();
        let call = pin!(async {
            let mut http = store.data_mut().http();
            let request = http.new_incoming_request(Scheme::Http, request)?;
            let out = http.new_response_outparam_from_callback(move |response| {
                *slot_of_guest.lock().unwrap_or_else(PoisonError::into_inner) = Some(response);
            })?;
            let proxy = program.instantiate_async(&mut store).await?;
            proxy.wasi_http_incoming_handler().call_handle(&mut store, request, out).await
        });
        bounded(&invocation, epochs).run(call, |_| {
            // The guest waits: whoever reads its response may be what it waits for.
            if let Some(Ok(response)) = take(&slot)
                && let Some(reply) = reply.take()
            {
                let _ = reply.send(Reply::ResponseStream(response));
            }
        })
    };
    let limiter = &store.data().limiter;
    let notes = Notes { body_limit: fate.is_too_large(), body_broken: fate.is_broken(), ..Notes::default() };
    let failure = match &result {
        Err(reason) => Some(Failure::stopped(*reason, invocation.bounds())),
        Ok(Err(error)) => {
            tracing::debug!(id = %invocation.record.id, "guest call failed: {error:?}");
            // `exit(0)` of a handler that has not answered is still no answer: see below.
            classify(error, limiter, notes, invocation.bounds())
        }
        Ok(Ok(())) => None,
    };
    let Some(reply) = reply else {
        return set_end(&invocation.record, meter.usage(Some(limiter)), failure);
    };
    let answer = match (failure, take(&slot)) {
        (Some(failure), _) => Reply::Failed(failure),
        (None, Some(Ok(response))) => whole(response, invocation.max_output),
        (None, Some(Err(code))) => match noted(limiter, notes, invocation.bounds()) {
            Some(failure) => Reply::Failed(failure),
            None => Reply::Failed(Failure::NoResponse { reason: format!("it answered with the error {code:?}") }),
        },
        (None, None) => Reply::Failed(Failure::NoResponse { reason: "it returned without setting one".into() }),
    };
    let failure = if let Reply::Failed(failure) = &answer { Some(failure.clone()) } else { None };
    set_end(&invocation.record, meter.usage(Some(limiter)), failure);
    let _ = reply.send(answer);
}

/// Takes the body of an ended guest, which is all there, out of its channel.
fn whole(response: ::http::Response<HyperOutgoingBody>, max_output: u64) -> Reply {
    let (head, mut body) = response.into_parts();
    let mut frames: Vec<Frame<Bytes>> = Vec::new();
    let mut bytes = 0_u64;
    let mut context = Context::from_waker(Waker::noop());
    loop {
        match Pin::new(&mut body).poll_frame(&mut context) {
            Poll::Ready(Some(Ok(frame))) => {
                bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                if bytes > max_output {
                    return Reply::Failed(Failure::OutputLimit { limit: max_output });
                }
                frames.push(frame);
            }
            // Pending: the guest returned without finishing its body. Like wasmtime, take it as finished.
            Poll::Ready(None) | Poll::Pending => return Reply::Response { head, frames },
            Poll::Ready(Some(Err(error))) => {
                return Reply::Failed(Failure::NoResponse {
                    reason: format!("its body ended with an error: {error:?}"),
                });
            }
        }
    }
}

fn refuse(invocation: &Invocation, reply: oneshot::Sender<Reply>, meter: Meter<'_>, failure: Failure) {
    set_end(&invocation.record, meter.usage(None), Some(failure.clone()));
    let _ = reply.send(Reply::Failed(failure));
}
