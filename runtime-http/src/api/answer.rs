//! The headers of answers: those that say what an invocation cost, and those that a guest may not set.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use serde::Serialize;

use crate::{
    engine::tier::Tier,
    exchange::response_body::ResponseBody,
    invocation::{CgroupTimes, InvocationId, Outcome, Usage, microseconds},
    sandbox::InstanceUse,
};

/// What an invocation took, for the headers of its answer. What only its end tells is missing in a streamed one.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    pub id: InvocationId,
    pub compile: Duration,
    /// Of the code that it ran.
    pub tier: Tier,
    pub queue: Duration,
    /// `None` if its function's instances are not reused.
    pub instance: Option<InstanceUse>,
    /// `None` without cgroups.
    pub cgroup: Option<CgroupTimes>,
    pub usage: Option<Usage>,
}

impl Timing {
    pub fn new(id: InvocationId, tier: Tier) -> Timing {
        Timing { id, compile: Duration::ZERO, tier, queue: Duration::ZERO, instance: None, cgroup: None, usage: None }
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
const INSTANCE: HeaderName = HeaderName::from_static("wasmbox-instance");
const EXECUTION_TIME: HeaderName = HeaderName::from_static("execution-time");
const CURRENT_REQUESTS: HeaderName = HeaderName::from_static("num-current-requests");
const POD: HeaderName = HeaderName::from_static("pod");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// What is text is UTF-8.
pub const TEXT: &str = "text/plain; charset=utf-8";

/// Room for what [`add_invocation_headers`] and hyper add: a map that grows is made twice.
pub const INVOCATION_HEADERS: usize = 15;

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

/// Whether a guest may not say it, in a head or behind a body.
pub fn is_reserved(name: &HeaderName) -> bool {
    RESERVED.contains(name) || name.as_str().starts_with("wasmbox-")
}

/// Removes what a guest may not say.
pub fn strip_reserved(headers: &mut HeaderMap) {
    if headers.keys().any(is_reserved) {
        let names: Vec<HeaderName> = headers.keys().filter(|name| is_reserved(name)).cloned().collect();
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
    if let Some(instance) = timing.instance {
        headers.insert(INSTANCE, HeaderValue::from_static(instance.as_str()));
    }
    let mut text = String::with_capacity(96);
    push_milliseconds(&mut text, "queue;dur=", timing.queue);
    let compile = match timing.tier {
        Tier::Optimised => ", compile;dur=",
        Tier::Baseline => ", compile;desc=baseline;dur=",
    };
    push_milliseconds(&mut text, compile, timing.compile);
    if let Some(times) = timing.cgroup {
        push_milliseconds(&mut text, ", cgroup;dur=", times.creation + times.assign);
        headers.insert(CGROUP_CREATION_TIME, milliseconds(times.creation));
        headers.insert(CGROUP_ASSIGN_TIME, milliseconds(times.assign));
    }
    if let Some(usage) = timing.usage {
        push_milliseconds(&mut text, ", exec;dur=", usage.execution);
        let (_, execution) = text.rsplit_once('=').expect("it was just written");
        headers.insert(EXECUTION_TIME, value(execution));
        if !usage.outbound.is_zero() {
            push_milliseconds(&mut text, ", outbound;dur=", usage.outbound);
        }
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
pub fn whole(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::full(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A document of the server's own.
pub fn json(document: &impl Serialize) -> Response<ResponseBody> {
    let text_of = serde_json::to_string_pretty(document).expect("names and numbers are representable in JSON");
    whole(StatusCode::OK, "application/json", text_of + "\n")
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
