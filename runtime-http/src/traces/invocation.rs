//! The trace of one invocation: what its guest is told of it, and what is kept of it until it has ended.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant, SystemTime},
};

use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};

use super::{
    Traces,
    context::{Received, SpanId, TRACEPARENT, TRACESTATE, TraceContext},
};
use crate::{
    invocation::trace_id::TraceId,
    invocation::{CgroupTimes, InvocationId, Usage},
    limits::Limits,
};

/// The most of a path that a span has, bytes.
const MOST_PATH: usize = 256;

/// Those of HTTP's registry that OpenTelemetry knows.
const KNOWN_METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

pub(super) fn known_method(method: &Method) -> Option<&'static str> {
    KNOWN_METHODS.into_iter().find(|known| method.as_str() == *known)
}

/// What is passed on with requests that belong to an invocation.
#[derive(Debug, Clone)]
pub struct Propagated {
    context: TraceContext,
    state: Option<HeaderValue>,
}

impl Propagated {
    /// Into a request for the guest: whatever its client said.
    pub fn put_into(&self, headers: &mut HeaderMap) {
        // There may be no room left for another name; then it goes without.
        if headers.try_insert(TRACEPARENT, self.context.header()).is_err() {
            return;
        }
        headers.remove(TRACESTATE);
        if let Some(state) = &self.state {
            let _ = headers.try_insert(TRACESTATE, state.clone());
        }
    }

    /// Into a request of the guest's. One that is in this trace already keeps the span that the guest names, but whether the trace is recorded is not
    /// the guest's to say.
    pub fn put_into_outgoing(&self, headers: &mut HeaderMap) {
        match Received::of(headers).map(|own| own.context).filter(|own| own.trace == self.context.trace) {
            Some(own) => {
                let own = TraceContext { sampled: self.context.sampled, ..own };
                if let Some(parent) = headers.get_mut(TRACEPARENT) {
                    *parent = own.header();
                }
            }
            None => self.put_into(headers),
        }
    }
}

/// From its arrival to its end; told by the record of the invocation.
pub struct InvocationTrace {
    traces: Arc<Traces>,
    pub(super) context: TraceContext,
    /// The span of whoever called.
    pub(super) parent: Option<SpanId>,
    pub(super) state: Option<Box<str>>,
    /// `None` if no spans are recorded.
    pub(super) request: Option<Box<RequestParts>>,
}

/// What spans say of a request.
pub(super) struct RequestParts {
    pub arrived: SystemTime,
    /// `None` of one that nobody specifies: it may be as long as a head.
    pub method: Option<&'static str>,
    pub path: Box<str>,
    /// `None` of one that was refused before its function was ready.
    pub limits: Option<Limits>,
    /// When a streamed answer began, counted from its arrival.
    pub streamed: OnceLock<Duration>,
}

/// What a request was for.
pub struct Called {
    pub id: InvocationId,
    pub function: Arc<str>,
    /// That of its function in metrics.
    pub label: Arc<str>,
}

/// An invocation that has ended, or a request that did not become one. Times are counted from its arrival.
pub struct Ended {
    pub trace: InvocationTrace,
    /// `None` if it was refused before its function was ready.
    pub called: Option<Called>,
    /// `None`: nothing was answered.
    pub status: Option<u16>,
    /// Of the problem that was answered; empty if there was none.
    pub code: &'static str,
    /// Of the problem that the failure is, also if the answer had begun.
    pub failure: Option<&'static str>,
    pub is_error: bool,
    pub evicted: bool,
    /// Until its function was ready.
    pub compile: Option<Duration>,
    /// From when to when it waited for admission.
    pub queue: Option<(Duration, Duration)>,
    /// When its guest began.
    pub began: Option<Duration>,
    pub usage: Option<Usage>,
    pub cgroup: Option<CgroupTimes>,
    pub total: Duration,
}

impl InvocationTrace {
    /// Reads what `headers` say of the trace, and replaces it by what the guest is to be told.
    pub(super) fn begin(
        traces: &Arc<Traces>,
        headers: &mut HeaderMap,
        (method, uri): (Option<&'static str>, &Uri),
        limits: Option<Limits>,
        arrived: Instant,
    ) -> InvocationTrace {
        let received = Received::of(headers);
        let trace = received.as_ref().map_or_else(TraceId::new, |received| received.context.trace);
        let sampled = traces.sampler.samples(&trace, received.as_ref().map(|received| &received.context));
        let request = sampled.then(|| {
            let path = uri.path();
            Box::new(RequestParts {
                arrived: SystemTime::now() - arrived.elapsed(),
                method,
                path: path[..path.floor_char_boundary(MOST_PATH)].into(),
                limits,
                streamed: OnceLock::new(),
            })
        });
        let parent = received.as_ref().map(|received| received.context.span);
        let state = received.and_then(|received| received.state);
        let context = TraceContext { trace, span: SpanId::new(), sampled };
        let begun = InvocationTrace { traces: traces.clone(), context, parent, state, request };
        begun.propagated().put_into(headers);
        begun
    }

    pub fn propagated(&self) -> Propagated {
        let state = self.state.as_deref().and_then(|state| HeaderValue::from_str(state).ok());
        Propagated { context: self.context, state }
    }

    pub fn id(&self) -> TraceId {
        self.context.trace
    }

    /// A streamed answer begins, of an invocation that arrived then.
    pub fn streams(&self, arrived: Instant) {
        if let Some(request) = &self.request {
            let _ = request.streamed.set(arrived.elapsed());
        }
    }

    /// Whether spans are recorded.
    pub fn is_sampled(&self) -> bool {
        self.request.is_some()
    }
}

impl Ended {
    /// Of a request that is answered with this status and code before its function is ready.
    pub(super) fn refused(
        trace: InvocationTrace,
        (status, code): (StatusCode, &'static str),
        total: Duration,
    ) -> Ended {
        Ended {
            trace,
            called: None,
            status: Some(status.as_u16()),
            code,
            failure: None,
            is_error: status.is_server_error(),
            evicted: false,
            compile: None,
            queue: None,
            began: None,
            usage: None,
            cgroup: None,
            total,
        }
    }

    /// Has its spans exported, if there is room for them.
    pub fn export(self) {
        let traces = self.trace.traces.clone();
        traces.export(self);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "00f067aa0ba902b7";

    #[test]
    fn a_guest_names_its_span_and_not_whether_it_is_recorded() {
        for sampled in [false, true] {
            let context = TraceContext { trace: TraceId::new(), span: SpanId::new(), sampled };
            let propagated = Propagated { context, state: None };
            let sent = |parent: String| {
                let mut headers = HeaderMap::from_iter([(TRACEPARENT, HeaderValue::try_from(parent).unwrap())]);
                propagated.put_into_outgoing(&mut headers);
                assert_eq!(headers.get_all(TRACEPARENT).iter().count(), 1);
                headers[TRACEPARENT].to_str().unwrap().to_owned()
            };
            for flags in ["00", "01"] {
                let expected = format!("00-{}-{OWN}-0{}", context.trace, u8::from(sampled));
                assert_eq!(sent(format!("00-{}-{OWN}-{flags}", context.trace)), expected);
            }
            assert_eq!(sent(format!("00-{}-{OWN}-01", TraceId::new())), context.to_string());
        }
    }
}
