//! Runs `wasi:http/incoming-handler` and `wasi:http/handler`: the guest gets the request itself and makes the response.

use std::{
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http_body::{Body, Frame};
use wasmtime::Store;
use wasmtime_wasi_http::{
    WasiBody, WasiHttpView,
    p2::bindings::{ProxyPre, http::types::Scheme},
};

use super::{
    Answer, Ended, Left, Remains, ReplySender, Setup, Stream, bounded_store,
    command::granted_context,
    component::ComponentHost,
    executor::{Pause, bounded},
    failure::{LimitHits, cancelled, classify, limit_hit},
    limiter::Limiter,
    p3,
    program::HttpComponent,
};
use crate::{
    exchange::request_body::RequestBody,
    invocation::{CancelReason, Failure},
};

/// A response, or the error code that the guest gave instead.
type GuestResponse = Result<::http::Response<WasiBody>, String>;

/// Where the guest puts its response. It stays here while the guest runs on without waiting, so that a short response is passed on
/// whole, in one step.
#[derive(Clone, Default)]
pub(super) struct Slot(Arc<Mutex<Option<Put>>>);

struct Put {
    response: GuestResponse,
    /// How often the guest has yielded since, without waiting for anything.
    yields: u32,
}

/// A guest that has yielded fewer times since it put its response there is probably about to write the rest of it: one of WASI 0.3 yields
/// before its other tasks go on.
const YIELDS: u32 = 4;

impl Slot {
    fn put_in(&self) -> MutexGuard<'_, Option<Put>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn put(&self, response: GuestResponse) {
        *self.put_in() = Some(Put { response, yields: 0 });
    }

    fn take(&self) -> Option<GuestResponse> {
        self.put_in().take().map(|put| put.response)
    }

    /// Takes a response; an error stays.
    pub(super) fn take_response(&self) -> Option<::http::Response<WasiBody>> {
        self.put_in().take_if(|put| put.response.is_ok())?.response.ok()
    }

    /// For whoever is to read it, who may be what a guest waits for.
    fn take_for_client(&self, pause: Pause) -> Option<::http::Response<WasiBody>> {
        if pause == Pause::Yields
            && let Some(put) = &mut *self.put_in()
        {
            put.yields += 1;
            if put.yields < YIELDS {
                return None;
            }
        }
        self.take_response()
    }
}

pub(super) async fn run(
    program: &HttpComponent,
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
    let engine = match program {
        HttpComponent::P2(proxy) => proxy.engine(),
        HttpComponent::P3(service) => service.engine(),
    };
    let host = ComponentHost::new(wasi.build(), setup);
    let mut store = bounded_store(engine, host, |host| &mut host.limiter);
    let body = request.body().status();
    let slot = Slot::default();
    let stream = |pause| {
        if let Some(response) = slot.take_for_client(pause) {
            reply.stream(Stream::Response(response));
        }
    };
    let result = {
        let call = pin!(async {
            setup.reserve_overhead().await;
            match program {
                HttpComponent::P2(proxy) => handle(proxy, &mut store, request, &slot).await.map(|()| None),
                HttpComponent::P3(service) => p3::handle(service, &mut store, request, &slot).await.map(Some),
            }
        });
        bounded(setup, call, stream).await
    };
    let hits = || LimitHits { body: body.end(), ..LimitHits::default() };
    if let Ok(Ok(Some(delivery))) = result {
        // With its tasks the guest's streams have ended. What it has only passed on comes as long as it does.
        let host = store.into_data();
        let delivered = delivery.delivered(&slot, reply.is_streaming(), setup.buffer_limit);
        let result = bounded(setup, pin!(delivered), stream).await.map(Ok);
        let result = judge(setup, &slot, hits(), &host.limiter, reply, result);
        return Ended { result, memory_peak: host.limiter.peak(), remains: Remains::none() };
    }
    let result = result.map(|result| result.map(drop));
    let result = judge(setup, &slot, hits(), &store.data().limiter, reply, result);
    Ended { result, memory_peak: store.data().limiter.peak(), remains: Remains::of(Left::Component(store)) }
}

async fn handle(
    proxy: &ProxyPre<ComponentHost>,
    store: &mut Store<ComponentHost>,
    request: ::http::Request<RequestBody>,
    slot: &Slot,
) -> wasmtime::Result<()> {
    let mut http = store.data_mut().http();
    let request = http.new_incoming_request(Scheme::Http, request)?;
    let slot = slot.clone();
    let out = http.new_response_outparam_from_callback(move |response| {
        slot.put(response.map_err(|code| format!("{code:?}")));
    })?;
    let proxy = proxy.instantiate_async(&mut *store).await?;
    proxy.wasi_http_incoming_handler().call_handle(store, request, out).await
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
    match slot.take() {
        Some(Ok(response)) => whole(response, setup.max_output)
            .map(Some)
            .map_err(|failure| limit_hit(limiter, hits, setup.bounds()).unwrap_or(failure)),
        Some(Err(code)) => Err(limit_hit(limiter, hits, setup.bounds())
            .unwrap_or_else(|| Failure::NoResponse { reason: format!("it answered with the error {code}") })),
        None => Err(Failure::NoResponse { reason: "it returned without setting one".into() }),
    }
}

/// Takes the body of an ended guest, which is all there, out of its channel.
fn whole(response: ::http::Response<WasiBody>, max_output: u64) -> Result<Answer, Failure> {
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
