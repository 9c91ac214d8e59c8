//! Runs `wasi:http/incoming-handler` and `wasi:http/handler`: the guest gets the request itself and makes the response.

use std::{
    fmt,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http_body::{Body, Frame};
use wasmtime::{Engine, Store};
use wasmtime_wasi_http::{
    WasiBody, WasiHttpView,
    p2::bindings::{Proxy, http::types::Scheme},
};

use super::{
    Answer, Ended, Left, Remains, ReplySender, Setup, Stream, bounded_store,
    command::granted_context,
    component::ComponentHost,
    executor::{Pause, bounded},
    failure::{LimitHits, cancelled, classify, limit_hit},
    instance::{Handler, Instance},
    limiter::Limiter,
    p3,
    program::HttpComponent,
};
use crate::{
    excerpt::excerpt,
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

    /// Instead of a response. The guest chose the text in it.
    pub(super) fn put_error(&self, code: &impl fmt::Debug) {
        self.put(Err(excerpt(format_args!("{code:?}"))));
    }

    fn take(&self) -> Option<GuestResponse> {
        self.put_in().take().map(|put| put.response)
    }

    /// Takes a response; an error stays.
    pub(super) fn take_response(&self) -> Option<::http::Response<WasiBody>> {
        self.put_in().take_if(|put| put.response.is_ok())?.response.ok()
    }

    /// For whoever is to read it, who may be what a guest waits for.
    pub(super) fn take_for_client(&self, pause: Pause) -> Option<::http::Response<WasiBody>> {
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
    kept: Option<Instance>,
    setup: &Setup,
    reply: &ReplySender,
) -> Ended {
    let (mut store, handler, served) = match prepare(program, kept, setup) {
        Ok(prepared) => prepared,
        Err(failure) => return Ended::not_started(failure),
    };
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
            let handler = program.handler(handler, &mut store, setup).await?;
            let delivery = match &handler {
                Handler::P2(proxy) => handle(proxy, &mut store, request, &slot).await.map(|()| None),
                Handler::P3(service) => p3::handle(service, &mut store, request, &slot).await.map(Some),
            };
            delivery.map(|delivery| (handler, delivery))
        });
        bounded(setup, call, stream).await
    };
    let hits = || LimitHits { body: body.end(), ..LimitHits::default() };
    let (ended, delivery, result) = match result {
        Ok(Ok((handler, delivery))) => (Some(handler), delivery, Ok(Ok(()))),
        Ok(Err(error)) => (None, None, Ok(Err(error))),
        Err(reason) => (None, None, Err(reason)),
    };
    if let Some(mut delivery) = delivery
        && !delivery.is_over(&slot, reply.is_streaming(), setup.buffer_limit)
    {
        if let Some(reuse) = &setup.reuse {
            reuse.instances.metrics().ended_unclean.inc();
        }
        // With its tasks the guest's streams have ended. What it has only passed on comes as long as it does.
        let host = store.into_data();
        let rest = async {
            if !delivery.is_over(&slot, reply.is_streaming(), setup.buffer_limit) {
                delivery.rest().await;
            }
        };
        let result = bounded(setup, pin!(rest), stream).await.map(Ok);
        let result = judge(setup, &slot, hits(), &host.limiter, reply, result);
        return Ended { result, memory_peak: host.limiter.peak(), remains: Remains::none() };
    }
    let result = judge(setup, &slot, hits(), &store.data().limiter, reply, result);
    let memory_peak = store.data().limiter.peak();
    let remains = match (ended, &setup.reuse) {
        (Some(handler), Some(reuse)) if result.is_ok() => {
            let stderr = setup.stderr.clone();
            let instance = Instance { handler, store, stderr, served: served + 1 };
            Remains::reusable(instance, reuse, body.is_gone())
        }
        _ => Remains::of(Left::Component(store)),
    };
    Ended { result, memory_peak, remains }
}

/// Where the instance of an invocation is, or will be made: with what of it is called if it is there, and how many requests it has served.
pub(super) fn prepare(
    program: &HttpComponent,
    kept: Option<Instance>,
    setup: &Setup,
) -> Result<(Store<ComponentHost>, Option<Handler>, u32), Failure> {
    match kept {
        Some(mut instance) => {
            instance.renew(setup);
            Ok((instance.store, Some(instance.handler), instance.served))
        }
        None => Ok((new_store(program, setup)?, None, 0)),
    }
}

fn new_store(program: &HttpComponent, setup: &Setup) -> Result<Store<ComponentHost>, Failure> {
    let (mut wasi, for_sockets) = granted_context(setup)?;
    // An HTTP handler has no output but its response: what it prints is for the log.
    wasi.args(&setup.grants.args).stdout(setup.stderr.clone()).stderr(setup.stderr.clone());
    let host = ComponentHost::new(wasi.build(), for_sockets, setup);
    Ok(bounded_store(program.engine(), host, |host| &mut host.limiter))
}

impl HttpComponent {
    fn engine(&self) -> &Engine {
        match self {
            HttpComponent::P2(proxy) => proxy.engine(),
            HttpComponent::P3(service) => service.engine(),
        }
    }

    /// `kept`, or of an instance that is made.
    pub(super) async fn handler(
        &self,
        kept: Option<Handler>,
        store: &mut Store<ComponentHost>,
        setup: &Setup,
    ) -> wasmtime::Result<Handler> {
        if let Some(handler) = kept {
            return Ok(handler);
        }
        let handler = self.instantiate(store).await?;
        setup.memory.instance_made();
        Ok(handler)
    }

    async fn instantiate(&self, store: &mut Store<ComponentHost>) -> wasmtime::Result<Handler> {
        Ok(match self {
            HttpComponent::P2(proxy) => Handler::P2(proxy.instantiate_async(store).await?),
            HttpComponent::P3(service) => Handler::P3(service.instantiate_async(store).await?),
        })
    }
}

async fn handle(
    proxy: &Proxy,
    store: &mut Store<ComponentHost>,
    request: ::http::Request<RequestBody>,
    slot: &Slot,
) -> wasmtime::Result<()> {
    let mut http = store.data_mut().http();
    let request = http.new_incoming_request(Scheme::Http, request)?;
    let slot = slot.clone();
    let out = http.new_response_outparam_from_callback(move |response| match response {
        Ok(response) => slot.put(Ok(response)),
        Err(code) => slot.put_error(&code),
    })?;
    proxy.wasi_http_incoming_handler().call_handle(store, request, out).await
}

/// Why a call failed, if it did.
pub(super) fn failure<T>(
    setup: &Setup,
    hits: LimitHits,
    limiter: &Limiter,
    result: &Result<wasmtime::Result<T>, CancelReason>,
) -> Option<Failure> {
    match result {
        _ if limiter.overdrawn().is_some() => {
            limiter.overdrawn().map(|(reason, bytes)| cancelled(reason, bytes, setup.bounds()))
        }
        Err(reason) => Some(cancelled(*reason, setup.memory.cost(), setup.bounds())),
        Ok(Err(error)) => {
            tracing::debug!(id = %setup.id, "guest call failed: {error:?}");
            // `exit(0)` of a handler that has not answered is still no answer.
            classify(error, limiter, hits, setup.bounds())
        }
        Ok(Ok(_)) => None,
    }
}

/// Of a guest that has put no response anywhere.
pub(super) fn none_set() -> Failure {
    Failure::NoResponse { reason: "it returned without setting one".into() }
}

/// Of a guest that has given this code instead of a response.
pub(super) fn error_given(code: &str, hits: LimitHits, limiter: &Limiter, setup: &Setup) -> Failure {
    limit_hit(limiter, hits, setup.bounds())
        .unwrap_or_else(|| Failure::NoResponse { reason: format!("it answered with the error {code}") })
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
    if let Some(failure) = failure(setup, hits, limiter, &result) {
        return Err(failure);
    }
    if reply.is_streaming() {
        return Ok(None);
    }
    match slot.take() {
        Some(Ok(response)) => whole(response, setup.max_output)
            .map(Some)
            .map_err(|failure| limit_hit(limiter, hits, setup.bounds()).unwrap_or(failure)),
        Some(Err(code)) => Err(error_given(&code, hits, limiter, setup)),
        None => Err(none_set()),
    }
}

/// Takes the body of an ended guest, which is all there, out of its channel.
pub(super) fn whole(response: ::http::Response<WasiBody>, max_output: u64) -> Result<Answer, Failure> {
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
                return Err(Failure::NoResponse {
                    reason: excerpt(format_args!("its body ended with an error: {error:?}")),
                });
            }
        }
    }
}
