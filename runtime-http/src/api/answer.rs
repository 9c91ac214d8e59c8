//! Answers: their bodies, and the headers that say what an invocation cost.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use tokio::sync::{
    mpsc,
    oneshot::{self, error::TryRecvError},
};
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

use crate::{
    access_log::Record,
    invocation::{
        CancelOnDrop, CancelReason, CancelToken, CgroupTimes, Failure, InvocationId, Outcome, Usage, microseconds,
    },
};

/// An answer's body. A streamed one ends with an error, so that the connection is broken off, if its function failed meanwhile.
pub struct AnswerBody {
    source: Source,
    streamed: Option<Bounded>,
}

/// Where a body comes from.
pub enum Source {
    Full(Option<Bytes>),
    Frames {
        frames: std::vec::IntoIter<Frame<Bytes>>,
        left: u64,
    },
    /// A command's output.
    Output {
        first: Option<Bytes>,
        rest: mpsc::Receiver<Bytes>,
    },
    /// A wasi:http guest's body.
    Guest(HyperOutgoingBody),
}

/// The invocation behind an answer that has begun before it ended.
pub struct Streamed {
    /// Kept until the last byte is sent.
    pub record: Arc<Record>,
    pub cancel: CancelToken,
    /// Cancels the invocation if the client leaves before the end.
    pub on_drop: CancelOnDrop,
    /// Tells whether what was streamed is whole.
    pub outcome: oneshot::Receiver<Outcome>,
}

struct Bounded {
    by: Streamed,
    /// Bytes the guest may send, and may still send.
    limit: u64,
    allowed: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum Aborted {
    #[error("the function failed while its answer was sent: {0}")]
    Failed(Failure),
    #[error("the worker failed while the answer was sent")]
    Worker,
    #[error("the function broke its response off")]
    Guest(wasmtime_wasi_http::Error),
}

impl AnswerBody {
    pub fn full(bytes: Bytes) -> Self {
        AnswerBody { source: Source::Full(Some(bytes).filter(|bytes| !bytes.is_empty())), streamed: None }
    }

    pub fn frames(frames: Vec<Frame<Bytes>>) -> Self {
        let left = frames.iter().filter_map(Frame::data_ref).map(|data| data.len() as u64).sum();
        AnswerBody { source: Source::Frames { frames: frames.into_iter(), left }, streamed: None }
    }

    /// Of at most `limit` bytes.
    pub fn streaming(source: Source, by: Streamed, limit: u64) -> Self {
        AnswerBody { source, streamed: Some(Bounded { by, limit, allowed: limit }) }
    }
}

impl Source {
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        match self {
            Source::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Source::Frames { frames, left } => {
                let frame = frames.next();
                *left -= frame.as_ref().and_then(Frame::data_ref).map_or(0, |data| data.len() as u64);
                Poll::Ready(frame.map(Ok))
            }
            Source::Output { first, rest } => match first.take() {
                Some(first) => Poll::Ready(Some(Ok(Frame::data(first)))),
                None => rest.poll_recv(context).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes)))),
            },
            Source::Guest(body) => {
                Pin::new(body).poll_frame(context).map(|frame| frame.map(|frame| frame.map_err(Aborted::Guest)))
            }
        }
    }
}

impl Bounded {
    /// Counts what is sent.
    fn sent(&mut self, bytes: u64) -> Result<(), Aborted> {
        match self.allowed.checked_sub(bytes) {
            Some(left) => {
                self.allowed = left;
                Ok(())
            }
            None => {
                self.by.cancel.cancel(CancelReason::OutputLimit);
                self.by.on_drop.disarm();
                let failure = Failure::OutputLimit { limit: self.limit };
                self.by.record.aborted(failure.clone());
                Err(Aborted::Failed(failure))
            }
        }
    }

    /// The guest's streams are closed: whether what was sent is whole.
    fn poll_end(&mut self, source: &Source, context: &mut Context<'_>) -> Poll<Result<(), Aborted>> {
        let outcome = match source {
            // A guest may finish its body and run on. When it fails before, its outcome is there before its body is closed.
            Source::Guest(_) => match self.by.outcome.try_recv() {
                Ok(outcome) => Ok(outcome),
                Err(TryRecvError::Empty) => Ok(Outcome::default()),
                Err(TryRecvError::Closed) => Err(Aborted::Worker),
            },
            Source::Full(_) | Source::Frames { .. } | Source::Output { .. } => {
                std::task::ready!(Pin::new(&mut self.by.outcome).poll(context)).map_err(|_| Aborted::Worker)
            }
        };
        self.by.on_drop.disarm();
        Poll::Ready(outcome.and_then(|outcome| outcome.failure.map_or(Ok(()), |failure| Err(Aborted::Failed(failure)))))
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        let this = &mut *self;
        let frame = std::task::ready!(this.source.poll_frame(context));
        let Some(streamed) = &mut this.streamed else { return Poll::Ready(frame) };
        let checked = match &frame {
            Some(Ok(frame)) => streamed.sent(frame.data_ref().map_or(0, |data| data.len() as u64)),
            None => std::task::ready!(streamed.poll_end(&this.source, context)),
            Some(Err(_)) => Ok(()),
        };
        Poll::Ready(match checked {
            Ok(()) => frame,
            Err(aborted) => Some(Err(aborted)),
        })
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Full(bytes) => bytes.is_none(),
            Source::Frames { frames, .. } => frames.len() == 0,
            // Only the end itself tells whether it is whole.
            Source::Output { .. } | Source::Guest(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Source::Frames { left, .. } => SizeHint::with_exact(*left),
            Source::Output { .. } => SizeHint::default(),
            Source::Guest(body) => body.size_hint(),
        }
    }
}

/// What an invocation took, for the headers of its answer. What only its end tells is missing in a streamed one.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    pub id: InvocationId,
    pub compile: Duration,
    pub queue: Duration,
    /// `None` without cgroups.
    pub cgroup: Option<CgroupTimes>,
    pub usage: Option<Usage>,
}

impl Timing {
    pub fn new(id: InvocationId) -> Timing {
        Timing { id, compile: Duration::ZERO, queue: Duration::ZERO, cgroup: None, usage: None }
    }

    pub fn ended(&mut self, outcome: &Outcome) {
        self.cgroup = outcome.cgroup;
        self.usage = Some(outcome.usage);
    }
}

const INVOCATION_ID: HeaderName = HeaderName::from_static("wasmbox-invocation-id");
const CPU_TIME: HeaderName = HeaderName::from_static("wasmbox-cpu-time-us");
const MEMORY_PEAK: HeaderName = HeaderName::from_static("wasmbox-memory-peak-bytes");
const THROTTLED_TIME: HeaderName = HeaderName::from_static("wasmbox-throttled-time-us");
const CGROUP_CREATION_TIME: HeaderName = HeaderName::from_static("cgroup-creation-time");
const CGROUP_ASSIGN_TIME: HeaderName = HeaderName::from_static("cgroup-assign-time");
const EXECUTION_TIME: HeaderName = HeaderName::from_static("execution-time");
const CURRENT_REQUESTS: HeaderName = HeaderName::from_static("num-current-requests");
const POD: HeaderName = HeaderName::from_static("pod");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// What is text is UTF-8.
pub const TEXT: &str = "text/plain; charset=utf-8";

/// Room for what [`add_invocation_headers`] and hyper add: a map that grows is made twice.
pub const INVOCATION_HEADERS: usize = 14;

/// Headers of ours, which a guest's response cannot set, and hop-by-hop ones, which are hyper's.
const RESERVED: [HeaderName; 10] = [
    CGROUP_CREATION_TIME,
    CGROUP_ASSIGN_TIME,
    EXECUTION_TIME,
    CURRENT_REQUESTS,
    POD,
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::TRAILER,
    HeaderName::from_static("keep-alive"),
];

/// Removes what a guest may not say.
pub fn strip_reserved(headers: &mut HeaderMap) {
    let reserved = |name: &HeaderName| RESERVED.contains(name) || name.as_str().starts_with("wasmbox-");
    if headers.keys().any(reserved) {
        let names: Vec<HeaderName> = headers.keys().filter(|name| reserved(name)).cloned().collect();
        for name in names {
            headers.remove(name);
        }
    }
}

/// Adds what the invocation took. What only its end tells (execution, CPU, memory) is missing in a streamed answer.
pub fn add_invocation_headers(headers: &mut HeaderMap, timing: &Timing, in_flight: usize, pod: &HeaderValue) {
    let value = |text: &str| HeaderValue::from_str(text).expect("digits, letters and punctuation of ours");
    headers.reserve(INVOCATION_HEADERS);
    headers.insert(INVOCATION_ID, value(timing.id.digits().as_str()));
    headers.insert(CURRENT_REQUESTS, in_flight.into());
    headers.insert(POD, pod.clone());
    let mut text = String::with_capacity(96);
    push_milliseconds(&mut text, "queue;dur=", timing.queue);
    push_milliseconds(&mut text, ", compile;dur=", timing.compile);
    if let Some(times) = timing.cgroup {
        push_milliseconds(&mut text, ", cgroup;dur=", times.creation + times.assign);
        headers.insert(CGROUP_CREATION_TIME, milliseconds(times.creation));
        headers.insert(CGROUP_ASSIGN_TIME, milliseconds(times.assign));
    }
    if let Some(usage) = timing.usage {
        push_milliseconds(&mut text, ", exec;dur=", usage.execution);
        let (_, execution) = text.rsplit_once('=').expect("it was just written");
        headers.insert(EXECUTION_TIME, value(execution));
        if let Some(throttled) = usage.throttled {
            headers.insert(THROTTLED_TIME, microseconds(throttled).into());
        }
        headers.insert(CPU_TIME, microseconds(usage.cpu).into());
        headers.insert(MEMORY_PEAK, usage.memory_peak.into());
    }
    headers.append(SERVER_TIMING, value(&text));
}

/// Appends `name` and a duration in milliseconds with three decimals, without the cost of `format!`.
fn push_milliseconds(text: &mut String, name: &str, duration: Duration) {
    let micros = microseconds(duration);
    let mut digits = itoa::Buffer::new();
    text.push_str(name);
    text.push_str(digits.format(micros / 1000));
    // The leading 1 keeps the zeros behind it.
    text.push('.');
    text.push_str(&digits.format(1000 + micros % 1000)[1..]);
}

/// A whole answer of the server's own.
pub fn whole(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::full(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A duration as a header; mostly zero, since a worker keeps its cgroup.
fn milliseconds(duration: Duration) -> HeaderValue {
    if duration.is_zero() {
        return HeaderValue::from_static("0.000");
    }
    let mut text = String::new();
    push_milliseconds(&mut text, "", duration);
    HeaderValue::try_from(text).expect("digits and a point")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds() {
        let text = |micros| {
            let mut text = String::new();
            push_milliseconds(&mut text, "x=", Duration::from_micros(micros));
            text
        };
        assert_eq!([0, 7, 1_000, 61_042].map(text), ["x=0.000", "x=0.007", "x=1.000", "x=61.042"]);
    }
}
