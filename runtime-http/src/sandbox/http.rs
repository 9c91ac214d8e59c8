//! Runs `wasi:http/incoming-handler`: the guest gets the request itself and makes the response.

use std::{
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http_body::{Body, Frame};
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
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
    Answer, Ended, Left, Remains, ReplySender, Setup, Stream, bounded_store,
    command::granted_context,
    executor::bounded,
    failure::{LimitHits, cancelled, classify, limit_hit},
    limiter::Limiter,
    outbound::Outbound,
    resource_table,
};
use crate::{
    exchange::request_body::RequestBody,
    invocation::{CancelReason, Failure},
};

/// The data of a component's store.
pub struct ComponentHost {
    pub(super) wasi: WasiCtx,
    pub(super) table: ResourceTable,
    pub(super) http: WasiHttpCtx,
    pub(super) outbound: Outbound,
    pub(super) limiter: Limiter,
}

impl ComponentHost {
    /// Before a host call. One that the box holds too much for has nothing left.
    fn bound(&mut self) {
        if self.limiter.overdraws() {
            self.wasi = WasiCtxBuilder::new().build();
            self.table = ResourceTable::new();
            self.http = WasiHttpCtx::new();
        }
    }
}

impl WasiView for ComponentHost {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.bound();
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for ComponentHost {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        self.bound();
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

/// Takes a response; an error stays.
fn take_response(slot: &Slot) -> Option<::http::Response<HyperOutgoingBody>> {
    slot.lock().unwrap_or_else(PoisonError::into_inner).take_if(|response| response.is_ok())?.ok()
}

pub(super) async fn run(
    program: &ProxyPre<ComponentHost>,
    request: ::http::Request<RequestBody>,
    setup: &Setup,
    reply: &ReplySender,
) -> Ended {
    let mut wasi = match granted_context(setup) {
        Ok(wasi) => wasi,
        Err(failure) => return Ended::not_started(failure),
    };
    // An HTTP handler has no output but its response: what it prints is for the log.
    wasi.args(&setup.grants.args).stdout(setup.stderr.clone()).stderr(setup.stderr.clone());
    let host = ComponentHost {
        wasi: wasi.build(),
        table: resource_table(setup),
        http: WasiHttpCtx::new(),
        outbound: Outbound::new(setup),
        limiter: setup.limiter(),
    };
    let mut store = bounded_store(program.engine(), host, |host| &mut host.limiter);
    let body = request.body().status();
    let slot = Slot::default();
    let result = {
        let slot_of_guest = slot.clone();
        let call = pin!(async {
            setup.reserve_overhead().await;
            let mut http = store.data_mut().http();
            let request = http.new_incoming_request(Scheme::Http, request)?;
            let out = http.new_response_outparam_from_callback(move |response| {
                *slot_of_guest.lock().unwrap_or_else(PoisonError::into_inner) = Some(response);
            })?;
            let proxy = program.instantiate_async(&mut store).await?;
            proxy.wasi_http_incoming_handler().call_handle(&mut store, request, out).await
        });
        bounded(setup, call, || {
            // The guest waits: whoever reads its response may be what it waits for.
            if let Some(response) = take_response(&slot) {
                reply.stream(Stream::Response(response));
            }
        })
        .await
    };
    let hits = LimitHits { body: body.end(), ..LimitHits::default() };
    let result = judge(setup, &slot, hits, &store.data().limiter, reply, result);
    Ended { result, memory_peak: store.data().limiter.peak(), remains: Remains::of(Left::Component(store)) }
}

/// Decides how the call ended; gives the response, unless it was streamed.
fn judge(
    setup: &Setup,
    slot: &Slot,
    hits: LimitHits,
    limiter: &Limiter,
    reply: &ReplySender,
    result: Result<wasmtime::Result<()>, CancelReason>,
) -> Result<Option<Answer>, Failure> {
    let failure = match &result {
        _ if limiter.overdrawn().is_some() => {
            limiter.overdrawn().map(|(reason, bytes)| cancelled(reason, bytes, setup.bounds()))
        }
        Err(reason) => Some(cancelled(*reason, setup.memory.cost(), setup.bounds())),
        Ok(Err(error)) => {
            tracing::debug!(id = %setup.id, "guest call failed: {error:?}");
            // `exit(0)` of a handler that has not answered is still no answer: see below.
            classify(error, limiter, hits, setup.bounds())
        }
        Ok(Ok(())) => None,
    };
    if let Some(failure) = failure {
        return Err(failure);
    }
    if reply.is_streaming() {
        return Ok(None);
    }
    match take(slot) {
        Some(Ok(response)) => whole(response, setup.max_output).map(Some),
        Some(Err(code)) => Err(limit_hit(limiter, hits, setup.bounds())
            .unwrap_or_else(|| Failure::NoResponse { reason: format!("it answered with the error {code:?}") })),
        None => Err(Failure::NoResponse { reason: "it returned without setting one".into() }),
    }
}

/// Takes the body of an ended guest, which is all there, out of its channel.
fn whole(response: ::http::Response<HyperOutgoingBody>, max_output: u64) -> Result<Answer, Failure> {
    let (head, mut body) = response.into_parts();
    let mut frames: Vec<Frame<Bytes>> = Vec::new();
    let mut bytes = 0_u64;
    let mut context = Context::from_waker(Waker::noop());
    loop {
        match Pin::new(&mut body).poll_frame(&mut context) {
            Poll::Ready(Some(Ok(frame))) => {
                bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                if bytes > max_output {
                    return Err(Failure::OutputLimit { limit: max_output });
                }
                frames.push(frame);
            }
            // Pending: the guest returned without finishing its body. Like wasmtime, take it as finished.
            Poll::Ready(None) | Poll::Pending => return Ok(Answer::Response { head, frames }),
            Poll::Ready(Some(Err(error))) => {
                return Err(Failure::NoResponse { reason: format!("its body ended with an error: {error:?}") });
            }
        }
    }
}
