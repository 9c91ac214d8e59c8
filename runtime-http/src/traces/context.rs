//! Trace context, as the W3C specifies it (Trace Context, level 1): what the headers `traceparent` and `tracestate` of a request say, and what is
//! passed on.
//!
//! Whoever sends a request chooses both. What is not exactly as specified is not there: then a new trace begins.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::invocation::trace_id::{TraceId, not_zero};

pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// `00-{trace}-{span}-{flags}`.
const LENGTH: usize = 55;
/// The most entries of `tracestate` (section 3.3.1.1).
const MOST_ENTRIES: usize = 32;
/// Of a longer one, long entries and then the last ones are left out (section 3.3.1.5, which asks for at least as much).
const MOST_STATE: usize = 512;
const LONG_ENTRY: usize = 128;
const SAMPLED: u8 = 1;

/// The name of a span within its trace. Never all zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanId([u8; 8]);

/// Where in which trace something happens, and whether its spans are recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    pub trace: TraceId,
    pub span: SpanId,
    pub sampled: bool,
}

/// What a request says of the trace that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    pub context: TraceContext,
    /// Of other tracing systems: passed on as it is, at most 512 bytes.
    pub state: Option<Box<str>>,
}

impl SpanId {
    pub fn new() -> SpanId {
        SpanId(not_zero().to_be_bytes())
    }

    pub fn bytes(&self) -> &[u8; 8] {
        &self.0
    }
}

impl Default for SpanId {
    fn default() -> Self {
        SpanId::new()
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

/// As a header has it.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", self.trace, self.span, u8::from(self.sampled))
    }
}

impl TraceContext {
    /// `None` if `text` is none of any version: of a later one than 00, what 00 has is read.
    pub fn parse(text: &[u8]) -> Option<TraceContext> {
        let (known, more) = text.split_at_checked(LENGTH)?;
        let separated = [2, 35, 52].iter().all(|at| known[*at] == b'-');
        let version = hexadecimal::<1>(&known[..2])?[0];
        let is_whole = match version {
            0 => more.is_empty(),
            0xff => false,
            _ => more.first().is_none_or(|next| *next == b'-'),
        };
        if !separated || !is_whole {
            return None;
        }
        let trace = hexadecimal::<16>(&known[3..35]).filter(|id| *id != [0; 16])?;
        let span = hexadecimal::<8>(&known[36..52]).filter(|id| *id != [0; 8])?;
        let sampled = hexadecimal::<1>(&known[53..])?[0] & SAMPLED != 0;
        Some(TraceContext { trace: TraceId::of(trace), span: SpanId(span), sampled })
    }

    pub fn header(&self) -> HeaderValue {
        HeaderValue::try_from(self.to_string()).expect("digits, letters and dashes")
    }
}

/// Lower case alone, as it is specified.
fn hexadecimal<const BYTES: usize>(text: &[u8]) -> Option<[u8; BYTES]> {
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; BYTES];
    if text.len() != 2 * BYTES {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

impl Received {
    /// `None` if there is no header `traceparent`, a bad one, or several.
    pub fn of(headers: &HeaderMap) -> Option<Received> {
        let mut parents = headers.get_all(TRACEPARENT).iter();
        let (Some(parent), None) = (parents.next(), parents.next()) else { return None };
        let context = TraceContext::parse(parent.as_bytes())?;
        Some(Received { context, state: state(headers) })
    }
}

/// What `tracestate` says, in one line; `None` if it says nothing, or not as it is specified.
fn state(headers: &HeaderMap) -> Option<Box<str>> {
    let mut entries: Vec<&str> = Vec::new();
    for value in headers.get_all(TRACESTATE) {
        let value = value.to_str().ok()?;
        for entry in value.split(',').map(|entry| entry.trim_matches([' ', '\t'])).filter(|entry| !entry.is_empty()) {
            let (key, value) = entry.split_once('=')?;
            let is_new = entries.iter().all(|other| other.split_once('=').is_none_or(|(other, _)| other != key));
            if entries.len() == MOST_ENTRIES || !is_key(key) || !is_value(value) || !is_new {
                return None;
            }
            entries.push(entry);
        }
    }
    let length = |entries: &[&str]| entries.iter().map(|entry| entry.len() + 1).sum::<usize>();
    if length(&entries) > MOST_STATE + 1 {
        entries.retain(|entry| entry.len() <= LONG_ENTRY);
    }
    while length(&entries) > MOST_STATE + 1 {
        entries.pop();
    }
    (!entries.is_empty()).then(|| entries.join(",").into())
}

/// `key`, or `tenant@system` (section 3.3.1.3.1).
fn is_key(key: &str) -> bool {
    let is_rest = |text: &str| {
        text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-*/".contains(&byte))
    };
    let begins = |text: &str, digit: bool| {
        text.bytes().next().is_some_and(|first| first.is_ascii_lowercase() || digit && first.is_ascii_digit())
    };
    match key.split_once('@') {
        None => key.len() <= 256 && begins(key, false) && is_rest(key),
        Some((tenant, system)) => {
            tenant.len() <= 241
                && system.len() <= 14
                && begins(tenant, true)
                && begins(system, false)
                && is_rest(tenant)
                && is_rest(system)
        }
    }
}

/// 1 to 256 visible characters and spaces, but `,` and `=` (section 3.3.1.3.2). Spaces at the end are gone already.
fn is_value(value: &str) -> bool {
    (1..=256).contains(&value.len())
        && value.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b',' && byte != b'=')
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn received(headers: &[(&str, &str)]) -> Option<Received> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        Received::of(&map)
    }

    #[test]
    fn a_parent_is_read_and_written() {
        let context = TraceContext::parse(PARENT.as_bytes()).unwrap();
        assert_eq!(context.trace.to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!((context.span.to_string().as_str(), context.sampled), ("b7ad6b7169203331", true));
        assert_eq!(context.to_string(), PARENT);
        // Flags that are not known are not passed on; later versions may have more.
        for (flags, sampled) in [("00", false), ("02", false), ("03", true), ("ff", true)] {
            let context = TraceContext::parse(format!("{}{flags}", &PARENT[..53]).as_bytes()).unwrap();
            assert_eq!(context.sampled, sampled);
            assert!(context.to_string().ends_with(if sampled { "-01" } else { "-00" }));
        }
        for later in [format!("01{}", &PARENT[2..]), format!("fe{}-what else", &PARENT[2..])] {
            assert_eq!(TraceContext::parse(later.as_bytes()), Some(context));
        }
    }

    #[test]
    fn what_is_not_exactly_as_specified_is_no_parent() {
        let zeros = "0".repeat(32);
        for bad in [
            String::new(),
            PARENT.to_uppercase(),
            PARENT[..54].into(),
            format!("{PARENT}-00"),
            format!("{PARENT}0"),
            format!("ff{}", &PARENT[2..]),
            format!("01{}.", &PARENT[2..]),
            PARENT.replace('-', "_"),
            PARENT.replace("0af7651916cd43dd8448eb211c80319c", &zeros),
            PARENT.replace("b7ad6b7169203331", &zeros[..16]),
            PARENT.replace("b7ad", "b7aG"),
            format!("{}0x", &PARENT[..53]),
        ] {
            assert_eq!(TraceContext::parse(bad.as_bytes()), None, "{bad}");
        }
        assert!(received(&[("traceparent", PARENT), ("traceparent", PARENT)]).is_none());
        assert!(received(&[("tracestate", "a=1")]).is_none());
    }

    #[test]
    fn a_state_is_passed_on_in_one_line() {
        let state = |values: &[&str]| {
            let mut headers = vec![("traceparent", PARENT)];
            headers.extend(values.iter().map(|value| ("tracestate", *value)));
            received(&headers).unwrap().state.map(String::from)
        };
        assert_eq!(state(&["a=1 , 3b@c=d e", ",", "x/*-_=~!"]).as_deref(), Some("a=1,3b@c=d e,x/*-_=~!"));
        let most: Vec<String> = (0..32).map(|number| format!("k{number}=v")).collect();
        assert_eq!(state(&[&most.join(",")]), Some(most.join(",")));
        for bad in ["a", "A=1", "a=", "=1", "1a=1", "a@b@c=1", "a=1,a=2", "a=b=c", "é=1", "a@=1", "@b=1", "a b=1"] {
            assert_eq!(state(&[bad]), None, "{bad}");
        }
        assert_eq!(state(&[&format!("{},k32=v", most.join(","))]), None);
        assert_eq!(state(&[&format!("{}=1", "a".repeat(257))]), None);
        assert_eq!(state(&[&format!("a={}", "1".repeat(257))]), None);
        // A long entry goes first, then the last ones.
        let long: Vec<String> = (0..8).map(|number| format!("k{number}={}", "v".repeat(97))).collect();
        let left = state(&[&format!("long={},{}", "v".repeat(200), long.join(","))]).unwrap();
        assert_eq!(left, long[..5].join(","));
        assert!(left.len() <= MOST_STATE);
    }

    #[test]
    fn new_names_differ() {
        let names: std::collections::HashSet<_> =
            (0..1000).map(|_| (*TraceId::new().bytes(), SpanId::new().0)).collect();
        assert_eq!(names.len(), 1000);
    }
}
