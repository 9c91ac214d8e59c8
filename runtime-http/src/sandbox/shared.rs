//! Runs an instance that serves several requests at once, until nobody is in it.
//!
//! What ends the instance ends all requests in it: a trap, a limit, the box's need. What ends one request alone, its deadline or its client,
//! leaves the others; but wasmtime has no way to end that request's task, so the instance takes no further requests, and is ended
//! when the others are done. A task that computes, or waits in the middle of a call, keeps wasmtime from polling what runs beside it. So requests
//! are watched from outside of the store.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures_util::stream::{FuturesUnordered, Stream};
use tokio::sync::oneshot;
use wasmtime::component::Accessor;
use wasmtime_wasi_http::{
    WasiHttpView,
    p3::{self as wasi, bindings::Service},
};

use super::{
    Answer, Ended, Left, Remains, ReplySender, Setup,
    carrier::{CarriedRequest, Carrier, CarrierGuard},
    component::ComponentHost,
    executor::{Pause, bounded, pause},
    failure::{LimitHits, cancelled},
    http::{error_given, failure, none_set, prepare, whole},
    instance::{Handler, Instance},
    p3::{Passing, begun, with_authority},
    program::HttpComponent,
};
use crate::{
    excerpt::excerpt,
    exchange::{
        body_end::BodyStatus,
        budget::Hold,
        request_body::{FRAME, RequestBody},
    },
    invocation::{CancelReason, CgroupTimes, Failure, Outcome, Usage},
};

/// An instance that holds on to the bodies of more requests than that takes no further ones.
const MOST_BODIES_LEFT: usize = 16;

/// The requests in an instance, seen from the thread that runs it.
struct Requests<'a> {
    carrier: &'a Arc<Carrier>,
    setup: &'a Setup,
    cgroup: Option<CgroupTimes>,
    /// Whether the guest takes further calls.
    is_ready: AtomicBool,
    /// Whether a task of a request that is over may still run.
    is_spoilt: AtomicBool,
    /// Whether an answer is in its account, as long as that is not delivered.
    is_held: AtomicBool,
    /// Bodies that the guest had not let go of when their requests were over.
    bodies: Mutex<Vec<BodyStatus>>,
}

/// What a connection may have taken of a streamed answer before its end, and not sent yet, bytes: hyper's buffer of a stream, and a frame.
const MOST_TAKEN: u64 = 512 << 10;

/// How the request's body was received.
type Received = Pin<Box<dyn Future<Output = Result<(), wasmtime_wasi_http::Error>> + Send>>;

/// An instance that is left when all of its requests are over; `None` if one of their tasks may still run in it.
type Survivor = Option<Handler>;

pub(super) async fn run(
    program: &HttpComponent,
    guard: CarrierGuard,
    kept: Option<Instance>,
    setup: &Setup,
    reply: &ReplySender,
) -> Ended {
    let requests = Requests {
        carrier: &guard.0,
        setup,
        cgroup: reply.cgroup(),
        is_ready: AtomicBool::new(false),
        is_spoilt: AtomicBool::new(false),
        is_held: AtomicBool::new(false),
        bodies: Mutex::default(),
    };
    requests.carrier.begin();
    let (mut store, handler, served) = match prepare(program, kept, setup) {
        Ok(prepared) => prepared,
        Err(failure) => {
            requests.fail(|_| failure.clone());
            // Who waited knows it now.
            return Ended { result: Ok(None), ..Ended::not_started(failure) };
        }
    };
    let most = setup.reuse.as_ref().map_or(1, |reuse| reuse.most.get());
    requests.carrier.serves(most.saturating_sub(served).max(1));
    let result = {
        let call = pin!(async {
            setup.reserve_overhead().await;
            let handler = program.handler(handler, &mut store, setup).await?;
            let Handler::P3(service) = &handler else {
                wasmtime::bail!("a component of WASI 0.2 serves one request at a time");
            };
            store.run_concurrent(async |guest| requests.serve_all(service, guest).await).await??;
            Ok(handler)
        });
        bounded(setup, pin!(requests.watched(call)), |_| ()).await
    };
    requests.carrier.close();
    let bounds = setup.bounds();
    // What fails when nobody waits is told to nobody else. That nobody waits is no failure.
    let is_empty = requests.carrier.present().is_empty();
    let untold = failure(setup, LimitHits::default(), &store.data().limiter, &result)
        .filter(|failure| is_empty && !matches!(failure, Failure::ClientGone));
    requests.fail(|carried| match carried.cancelled() {
        Some(reason) => cancelled(reason, setup.memory.cost(), bounds),
        None => failure(setup, hits(carried), &store.data().limiter, &result).unwrap_or_else(none_set),
    });
    let memory_peak = store.data().limiter.peak();
    let remains = match (result, &setup.reuse) {
        (Ok(Ok(Some(handler))), Some(reuse)) if !requests.is_held.load(Ordering::Relaxed) => {
            let (stderr, served) = (setup.stderr.clone(), served.saturating_add(requests.carrier.served()));
            Remains::reusable(Instance { handler, store, stderr, served }, reuse, requests.are_gone())
        }
        _ => Remains::of(Left::Component(store)),
    };
    Ended { result: untold.map_or(Ok(None), Err), memory_peak, remains }
}

fn hits(carried: &CarriedRequest) -> LimitHits {
    LimitHits { body: carried.body.end(), ..LimitHits::default() }
}

impl Requests<'_> {
    /// Serves who is in it and who joins, until nobody is in it and no task is left.
    async fn serve_all(&self, service: &Service, guest: &Accessor<ComponentHost>) -> wasmtime::Result<()> {
        let handle = *service.wasi_http_handler().func_handle().func();
        let mut serving = FuturesUnordered::new();
        poll_fn(|context| {
            loop {
                let is_ready = guest.poll_ready_for_concurrent_call(handle, context).is_ready();
                self.is_ready.store(is_ready, Ordering::Relaxed);
                while is_ready && let Some((carried, request)) = self.carrier.next() {
                    serving.push(self.serve(service, guest, carried, request));
                }
                match Pin::new(&mut serving).poll_next(context) {
                    Poll::Ready(Some(Ok(()))) => {}
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(None) => {
                        let has_ended = guest.poll_no_interesting_tasks(context).is_ready();
                        let is_over = has_ended && self.carrier.close_if_empty();
                        return if is_over { Poll::Ready(Ok(())) } else { Poll::Pending };
                    }
                }
            }
        })
        .await
    }

    async fn serve(
        &self,
        service: &Service,
        guest: &Accessor<ComponentHost>,
        carried: Arc<CarriedRequest>,
        request: ::http::Request<RequestBody>,
    ) -> wasmtime::Result<()> {
        let request = with_authority(request);
        let (request, received) = guest.with(|mut store| {
            let (request, received) = wasi::Request::from_http(store.get().http().hooks, request);
            (request, Box::pin(received) as Received)
        });
        let response = match service.handle(guest, request).await? {
            Ok(response) => guest.with(|store| response.into_http(store, received))?,
            Err(code) => {
                let code = excerpt(format_args!("{code:?}"));
                let failure =
                    guest.with(|mut store| error_given(&code, hits(&carried), &store.get().limiter, self.setup));
                self.end(&carried, failure);
                return Ok(());
            }
        };
        let (delivered, delivery) = oneshot::channel();
        carried.slot.put(Ok(response.map(|body| Passing::body(Vec::new(), Some(body), Some(delivered)))));
        match delivery.await {
            // If it was passed on as a whole, it has ended.
            Ok(bytes) => self.end_with(&carried, Ok((None, bytes.min(MOST_TAKEN)))),
            Err(_) => self.end_alone(&carried, carried.cancelled().unwrap_or(CancelReason::ClientGone)),
        }
        Ok(())
    }

    /// `call`, beside which requests are looked at each time that it waits or yields, and at their deadlines.
    async fn watched(
        &self,
        mut call: Pin<&mut impl Future<Output = wasmtime::Result<Handler>>>,
    ) -> wasmtime::Result<Survivor> {
        let mut alarm = pin!(tokio::time::sleep_until(self.setup.deadline.into()));
        poll_fn(|context| {
            self.carrier.register(context.waker());
            if let Poll::Ready(result) = call.as_mut().poll(context) {
                let is_spoilt = self.is_spoilt.load(Ordering::Relaxed);
                return Poll::Ready(result.map(|handler| (!is_spoilt).then_some(handler)));
            }
            let first = self.look(context, pause());
            if self.is_spoilt.load(Ordering::Relaxed) && first.is_none() {
                return Poll::Ready(Ok(None));
            }
            let next = first.map_or(self.setup.deadline, |first| first.min(self.setup.deadline)).into();
            if alarm.deadline() != next {
                alarm.as_mut().reset(next);
            }
            if alarm.as_mut().poll(context).is_ready() {
                context.waker().wake_by_ref();
            }
            Poll::Pending
        })
        .await
    }

    /// Ends those who are to end alone, and passes on what is there; gives the first deadline of who is left.
    fn look(&self, context: &Context<'_>, pause: Pause) -> Option<Instant> {
        let (now, mut staying) = (Instant::now(), self.carrier.present());
        staying.retain(|carried| match carried.reason(context.waker(), now) {
            None => true,
            Some(reason) => {
                self.end_alone(carried, reason);
                false
            }
        });
        // Before anybody has an answer, and can come again.
        if pause == Pause::Waits && self.is_ready.load(Ordering::Relaxed) && !self.is_spoilt.load(Ordering::Relaxed) {
            self.carrier.is_receptive();
        }
        staying.retain(|carried| !self.pass_on(carried, pause));
        let first = staying.iter().map(|carried| carried.deadline).min();
        if first.is_none() && !self.is_spoilt.load(Ordering::Relaxed) {
            let latest = self.carrier.latest();
            if now >= latest {
                self.carrier.cancel(CancelReason::Deadline);
            }
            return Some(latest);
        }
        first
    }

    /// One is over, but for its task, beside which nobody else is to come.
    fn end_alone(&self, carried: &CarriedRequest, reason: CancelReason) {
        self.is_spoilt.store(true, Ordering::Relaxed);
        self.carrier.close();
        self.end(carried, cancelled(reason, self.setup.memory.cost(), self.setup.bounds()));
    }

    /// Whether that was all of it.
    fn pass_on(&self, carried: &CarriedRequest, pause: Pause) -> bool {
        let Some(response) = carried.slot.take_for_client(pause) else { return false };
        let (response, is_whole) = begun(response, self.setup.buffer_limit);
        if is_whole {
            let answer = whole(response, self.setup.max_output);
            let answer = answer.map_err(|failure| hits(carried).failure(self.setup.bounds()).unwrap_or(failure));
            let delivered_later = |answer: Answer| {
                let bytes = answer.bytes();
                (Some(answer), bytes)
            };
            self.end_with(carried, answer.map(delivered_later));
        } else {
            carried.stream(response, self.cgroup(carried));
        }
        is_whole
    }

    /// Ends all who are in it.
    fn fail(&self, failure: impl Fn(&CarriedRequest) -> Failure) {
        for carried in self.carrier.present() {
            self.end(&carried, failure(&carried));
        }
    }

    fn end(&self, carried: &CarriedRequest, failure: Failure) {
        self.end_with(carried, Err(failure));
    }

    /// One is over, with its answer unless that was streamed, and how many bytes of it may have to be delivered still.
    fn end_with(&self, carried: &CarriedRequest, result: Result<(Option<Answer>, u64), Failure>) {
        let Some(cpu) = self.carrier.free(carried) else { return };
        let hold = result.as_ref().ok().map(|(_, bytes)| self.hold(carried, *bytes));
        let (answer, failure) = match result {
            Ok((answer, _)) => (answer, None),
            // What others have caused to be written is not for this one's client.
            Err(failure) if self.carrier.has_served_one() => {
                (None, Some(failure.with_stderr(self.setup.stderr.last_lines())))
            }
            Err(failure) => (None, Some(failure)),
        };
        let usage = Usage {
            execution: carried.since.elapsed(),
            cpu,
            // Those are the instance's.
            throttled: None,
            outbound: Duration::ZERO,
            memory_peak: self.setup.memory.grown(),
        };
        let cgroup = self.cgroup(carried);
        self.leave_body(carried);
        carried.end(Outcome { usage, began: Some(carried.since), cgroup, failure }, answer, hold);
    }

    /// Only the first one has waited for it.
    fn cgroup(&self, carried: &CarriedRequest) -> Option<CgroupTimes> {
        self.cgroup.map(|times| if carried.is_first { times } else { CgroupTimes::default() })
    }

    /// What accounts for so many bytes until they are delivered. Those that stay in the instance's account could be more and more, which would end all
    /// who are in it: so it takes no further requests.
    fn hold(&self, carried: &CarriedRequest, bytes: u64) -> Hold {
        let elsewhere = || self.setup.memory.accounted_elsewhere(bytes);
        match carried.reserve(bytes) {
            _ if bytes <= FRAME => Box::new(elsewhere()),
            Some(reserved) => Box::new((elsewhere(), reserved)),
            None => {
                self.is_held.store(true, Ordering::Relaxed);
                self.carrier.close();
                Box::new((self.carrier.permit.clone(), self.setup.memory.clone()))
            }
        }
    }

    fn leave_body(&self, carried: &CarriedRequest) {
        let mut bodies = self.bodies.lock().unwrap_or_else(PoisonError::into_inner);
        bodies.retain(|body| !body.is_gone());
        if !carried.body.is_gone() {
            bodies.push(carried.body.clone());
        }
        let are_too_many = bodies.len() > MOST_BODIES_LEFT;
        drop(bodies);
        if are_too_many {
            self.carrier.close();
        }
    }

    /// Whether the guest holds no request's body any more.
    fn are_gone(&self) -> bool {
        self.bodies.lock().unwrap_or_else(PoisonError::into_inner).iter().all(BodyStatus::is_gone)
    }
}
