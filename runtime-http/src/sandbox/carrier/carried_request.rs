//! One request in an instance that serves several at once.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use wasmtime_wasi_http::WasiBody;

use super::{
    abortable::{AbortHandle, abortable},
    last_one::LastOne,
    lock,
};
use crate::{
    exchange::{
        body_end::BodyStatus,
        budget::{ClientBudgets, Hold, Reservation},
        request_body::RequestBody,
    },
    invocation::{CancelReason, CancelToken, CgroupTimes, Outcome},
    sandbox::{Answer, ReplySender, Stream, http::Slot},
};

/// Who is told of one request that shares an instance.
pub trait Observer: Send {
    /// It is in an instance; `joins`: which was serving others.
    fn begins(&mut self, joins: bool);
    /// It is over; its client is told next.
    fn ends(self: Box<Self>, outcome: &Outcome);
}

/// A request that looks for an instance.
pub struct Joining {
    pub request: http::Request<RequestBody>,
    pub reply: ReplySender,
    /// Of this request alone.
    pub cancel: CancelToken,
    pub deadline: Instant,
    /// For an answer that is not delivered when it has ended.
    pub budgets: Arc<ClientBudgets>,
    pub observer: Box<dyn Observer>,
}

/// A request that is in an instance.
pub struct CarriedRequest {
    reply: ReplySender,
    cancel: CancelToken,
    pub(in crate::sandbox) deadline: Instant,
    budgets: Arc<ClientBudgets>,
    pub(in crate::sandbox) since: Instant,
    /// Whether the instance was taken for it.
    pub(in crate::sandbox) is_first: bool,
    pub(in crate::sandbox) body: BodyStatus,
    /// Where its response is until it is passed on.
    pub(in crate::sandbox) slot: Slot,
    /// Until it has ended.
    observer: Mutex<Option<Box<dyn Observer>>>,
    /// Once its answer is streamed.
    abort: Mutex<Option<AbortHandle>>,
    cpu: Mutex<Duration>,
}

impl CarriedRequest {
    pub(super) fn new(joining: Joining, is_first: bool) -> (CarriedRequest, http::Request<RequestBody>) {
        let Joining { request, reply, cancel, deadline, budgets, mut observer } = joining;
        observer.begins(!is_first);
        let carried = CarriedRequest {
            reply,
            cancel,
            deadline,
            budgets,
            since: Instant::now(),
            is_first,
            body: request.body().status(),
            slot: Slot::default(),
            observer: Mutex::new(Some(observer)),
            abort: Mutex::default(),
            cpu: Mutex::default(),
        };
        (carried, request)
    }

    /// From now on whoever cancels it tells `last`.
    pub(super) fn tells(&self, last: Arc<LastOne>) {
        self.cancel.begin(Some(last));
    }

    /// Why it is to end alone, if it is. Else `waker` is woken when its client leaves.
    pub(in crate::sandbox) fn reason(&self, waker: &std::task::Waker, now: Instant) -> Option<CancelReason> {
        self.cancel.register(waker);
        self.cancelled().or_else(|| (now >= self.deadline).then_some(CancelReason::Deadline))
    }

    pub(in crate::sandbox) fn cancelled(&self) -> Option<CancelReason> {
        self.cancel.reason()
    }

    /// Its answer begins.
    pub(in crate::sandbox) fn stream(&self, response: http::Response<WasiBody>, cgroup: Option<CgroupTimes>) {
        self.reply.set_cgroup(cgroup);
        let (head, body) = response.into_parts();
        let (body, abort) = abortable(body);
        *lock(&self.abort) = Some(abort);
        self.reply.stream(Stream::Response(http::Response::from_parts(head, body)));
    }

    /// Of its client's budget, for `bytes` of its answer.
    pub(in crate::sandbox) fn reserve(&self, bytes: u64) -> Option<Reservation> {
        self.budgets.answers.reserve(bytes)
    }

    /// Tells whoever waits, once.
    pub(in crate::sandbox) fn end(&self, outcome: Outcome, answer: Option<Answer>, hold: Option<Hold>) {
        let observer = lock(&self.observer).take();
        if let Some(observer) = observer {
            self.cancel.end();
            observer.ends(&outcome);
            let abort = lock(&self.abort).take().filter(|_| outcome.failure.is_some());
            self.reply.end(outcome, answer, hold);
            // Now that it is known why. Its guest may go on, for others.
            if let Some(abort) = abort {
                abort.abort();
            }
        }
    }

    pub(super) fn add_cpu(&self, part: Duration) {
        *lock(&self.cpu) += part;
    }

    pub(super) fn cpu(&self) -> Duration {
        *lock(&self.cpu)
    }
}
