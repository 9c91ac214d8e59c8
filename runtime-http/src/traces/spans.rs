//! From an invocation that has ended to its spans: one of the kind `server`, and one below it for each phase. Names of attributes are those of
//! OpenTelemetry's semantic conventions (HTTP server spans, FaaS); those that these do not have begin with `wasmbox.`.

use std::time::{Duration, SystemTime};

use super::{
    context::SpanId,
    invocation::{Ended, RequestParts},
    otlp::{Event, KeyValue, Kind, Span, Status, StatusCode, attribute},
};
use crate::invocation::microseconds;

/// W3C flags and, of OTLP, that it is known whether the parent is of another process, and that it is.
const FLAG_SAMPLED: u32 = 0x01;
const FLAG_HAS_REMOTE: u32 = 0x100;
const FLAG_REMOTE: u32 = 0x200;

/// The spans of `ended`, the server's first.
pub fn spans(ended: &Ended) -> Vec<Span> {
    let Some(request) = &ended.trace.request else { return Vec::new() };
    let builder = Builder { ended, request };
    let mut spans = vec![builder.server()];
    spans.extend(builder.phases());
    spans
}

struct Builder<'a> {
    ended: &'a Ended,
    request: &'a RequestParts,
}

impl Builder<'_> {
    /// Nothing lies outside of the invocation.
    fn time(&self, since_arrival: Duration) -> u64 {
        let time = self.request.arrived + since_arrival.min(self.ended.total);
        let nanoseconds = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
        u64::try_from(nanoseconds).unwrap_or(u64::MAX)
    }

    fn span(&self, name: String, kind: Kind, (from, to): (Duration, Duration)) -> Span {
        let Ended { trace, .. } = self.ended;
        Span {
            trace_id: trace.context.trace.bytes().to_vec(),
            trace_state: trace.state.as_deref().unwrap_or_default().to_owned(),
            name,
            kind: kind.into(),
            start_time_unix_nano: self.time(from),
            end_time_unix_nano: self.time(to.max(from)),
            flags: FLAG_SAMPLED | FLAG_HAS_REMOTE,
            ..Span::default()
        }
    }

    fn server(&self) -> Span {
        let Builder { ended, request } = *self;
        let method = request.method.unwrap_or("HTTP");
        let mut attributes = vec![
            attribute("http.request.method", request.method.unwrap_or("_OTHER")),
            attribute("url.path", &*request.path),
            attribute("url.scheme", "http"),
            attribute("faas.trigger", "http"),
        ];
        // A name that no function has is the client's, and may be any: it is in the path alone.
        let name = match &ended.called {
            Some(called) => {
                let route = format!("/{}", called.function);
                attributes.push(attribute("http.route", route.as_str()));
                attributes.push(attribute("faas.name", &*called.function));
                attributes.push(attribute("faas.invocation_id", called.id.digits().as_str()));
                format!("{method} {route}")
            }
            None => method.to_owned(),
        };
        if let Some(limits) = request.limits {
            attributes.push(attribute("wasmbox.cpu_quota_millicores", u64::from(limits.cpu_quota.millicores())));
            attributes.push(attribute("wasmbox.memory_request_bytes", limits.memory.bytes()));
        }
        // Of whom nothing was answered there is none.
        if let Some(status) = ended.status {
            attributes.push(attribute("http.response.status_code", u64::from(status)));
        }
        if let Some(usage) = &ended.usage {
            attributes.push(attribute("wasmbox.cpu_time_us", microseconds(usage.cpu)));
            attributes.push(attribute("wasmbox.memory_peak_bytes", usage.memory_peak));
            attributes.push(attribute("wasmbox.outbound_us", microseconds(usage.outbound)));
        }
        let code = ended.failure.filter(|_| ended.code.is_empty()).unwrap_or(ended.code);
        if !code.is_empty() {
            attributes.push(attribute("error.type", code));
        }
        // Of a server's span, what the client did wrong is no error (semantic conventions).
        let status = ended.is_error.then(|| Status { message: code.to_owned(), code: StatusCode::Error.into() });
        let remote = if ended.trace.parent.is_some() { FLAG_REMOTE } else { 0 };
        let span = self.span(name, Kind::Server, (Duration::ZERO, ended.total));
        Span {
            span_id: ended.trace.context.span.bytes().to_vec(),
            parent_span_id: ended.trace.parent.map(|parent| parent.bytes().to_vec()).unwrap_or_default(),
            attributes,
            status,
            flags: span.flags | remote,
            ..span
        }
    }

    fn child(&self, name: &str, times: (Duration, Duration)) -> Span {
        Span {
            span_id: SpanId::new().bytes().to_vec(),
            parent_span_id: self.ended.trace.context.span.bytes().to_vec(),
            ..self.span(name.to_owned(), Kind::Internal, times)
        }
    }

    fn phases(&self) -> impl Iterator<Item = Span> {
        let Ended { compile, queue, began, usage, cgroup, .. } = self.ended;
        let compiled = compile.map(|time| self.child("compile", (Duration::ZERO, time)));
        let parsed = compile.zip(*queue).map(|(ready, (queued, _))| self.child("parse", (ready, queued)));
        let admitted = queue.map_or(Duration::ZERO, |(_, to)| to);
        let queued = queue.map(|times| self.child("queue", times));
        let cgroup = cgroup.zip(*began).and_then(|(times, began)| {
            let took = times.creation + times.assign;
            // One that began on its connection's thread got its cgroup later: how much is in the answer's headers, when is not known.
            (!took.is_zero() && admitted + took <= began)
                .then(|| self.child("cgroup", (began.saturating_sub(took), began)))
        });
        let run = usage.zip(*began).map(|(usage, began)| {
            let times = (began, began + usage.execution);
            let mut span = self.child("exec", times);
            if let Some(throttled) = usage.throttled.filter(|throttled| !throttled.is_zero()) {
                let microseconds = attribute("wasmbox.throttled_us", microseconds(throttled));
                span.events.push(self.event("throttled", times.1, vec![microseconds]));
            }
            if self.ended.evicted {
                span.events.push(self.event("evicted", times.1, Vec::new()));
            }
            span
        });
        let streamed = self.request.streamed.get().map(|from| self.child("stream", (*from, self.ended.total)));
        [compiled, parsed, queued, cgroup, run, streamed].into_iter().flatten()
    }

    fn event(&self, name: &str, at: Duration, attributes: Vec<KeyValue>) -> Event {
        Event { time_unix_nano: self.time(at), name: name.to_owned(), attributes }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Instant};

    use http::Request;
    use tokio::sync::mpsc;

    use super::*;
    use crate::{
        invocation::{CgroupTimes, InvocationId, Usage},
        limits::Limits,
        metrics::Metrics,
        traces::{
            Traces,
            invocation::{Called, known_method},
            sampler::{Sampler, SamplerKind},
        },
    };

    const fn micros(number: u64) -> Duration {
        Duration::from_micros(number)
    }

    fn ended(began: Duration, cgroup: Duration) -> Ended {
        let sampler = Sampler { kind: SamplerKind::AlwaysOn, ratio: crate::limits::Fraction::percent(100) };
        let (queue, _) = mpsc::channel(1);
        let traces: Arc<Traces> = Traces::new(sampler, queue, Metrics::new().traces.clone());
        // As long as a head may be.
        let method = "BREW".repeat(16 << 10);
        let mut request =
            Request::builder().method(method.as_str()).uri(format!("/f/{}?secret", "p".repeat(300))).body(()).unwrap();
        let trace = traces.begin(&mut request, Limits::default(), Instant::now());
        Ended {
            trace,
            called: Some(Called { id: InvocationId::next(), function: "f".into(), label: "f".into() }),
            status: Some(200),
            code: "",
            is_error: true,
            failure: Some("evicted"),
            evicted: true,
            compile: Some(micros(10)),
            queue: Some((micros(20), micros(30))),
            began: Some(began),
            usage: Some(Usage { execution: micros(500), throttled: Some(micros(70)), ..Usage::default() }),
            cgroup: Some(CgroupTimes { creation: micros(5), assign: cgroup.saturating_sub(micros(5)) }),
            total: micros(400),
        }
    }

    #[test]
    fn phases_lie_within_their_invocation_and_tell_of_throttling_and_eviction() {
        let made = spans(&ended(micros(100), micros(40)));
        let names: Vec<&str> = made.iter().map(|span| span.name.as_str()).collect();
        assert_eq!(names, ["HTTP /f", "compile", "parse", "queue", "cgroup", "exec"]);
        let start = made[0].start_time_unix_nano;
        let times: Vec<_> = made
            .iter()
            .map(|span| [span.start_time_unix_nano, span.end_time_unix_nano].map(|time| (time - start) / 1000))
            .collect();
        // The guest's clock stopped a little after the last byte was sent.
        assert_eq!(times, [[0, 400], [0, 10], [10, 20], [20, 30], [60, 100], [100, 400]]);
        let events: Vec<&str> = made[5].events.iter().map(|event| event.name.as_str()).collect();
        assert_eq!(events, ["throttled", "evicted"]);
        assert_eq!(made[0].status.as_ref().map(|status| status.message.as_str()), Some("evicted"));
        let text = format!("{made:?}");
        assert!(
            text.contains("_OTHER")
                && !text.contains("BREW")
                && !text.contains("secret")
                && !text.contains(&"p".repeat(257))
        );
    }

    #[test]
    fn of_a_long_method_nothing_is_kept() {
        let ended = ended(micros(100), micros(40));
        assert_eq!(ended.trace.request.as_ref().map(|request| request.method), Some(None));
        let span = &spans(&ended)[0];
        assert!(span.name.len() < 16 && prost::Message::encoded_len(span) < 1024, "{span:?}");
        for (method, kept) in [("GET", Some("GET")), ("PATCH", Some("PATCH")), ("get", None), ("GETS", None)] {
            assert_eq!(known_method(&method.parse().unwrap()), kept);
        }
    }

    #[test]
    fn who_left_before_an_answer_has_no_status() {
        let has_status = |status| {
            let span = &spans(&Ended { status, ..ended(micros(100), micros(40)) })[0];
            span.attributes.iter().any(|attribute| attribute.key == "http.response.status_code")
        };
        assert!(has_status(Some(200)) && !has_status(None));
    }

    #[test]
    fn a_cgroup_that_came_after_the_guest_began_has_no_span() {
        let made = spans(&ended(micros(31), micros(40)));
        assert!(made.iter().all(|span| span.name != "cgroup"));
    }
}
