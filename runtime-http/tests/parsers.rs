//! Properties of what parses a stranger's text: limit headers, module names, routes, arguments. `fuzz/` looks for what breaks them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fmt::{Debug, Display},
    num::NonZeroU32,
    path::{Component, Path},
    str::FromStr,
};

use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::{collection::vec, prelude::*};
use wasmbox::{
    admission::OverbookingRatio,
    api::{arguments::arguments, route::Route},
    invocation::OutboundGrant,
    limits::{
        ByteSize, ConfigDuration, Cores, CpuQuota, Fraction, InvocationTimeout, LimitCaps, Limits, MemoryLimit,
        MemoryRequest, PlainBytes, RequestedLimits,
    },
    registry::{Reference, challenge::Challenge},
    reporter::QueueProxyHost,
    store::{
        name::ModuleName,
        settings::{FunctionSettings, OperatorGrants},
    },
    traces::context::{Received, TraceContext},
};

fn caps() -> LimitCaps {
    LimitCaps {
        cpu_quota: CpuQuota::from_millicores(2_000).unwrap(),
        memory: MemoryRequest::from_bytes(1 << 30).unwrap(),
        timeout: InvocationTimeout::DEFAULT,
    }
}

fn headers(lines: &[(&str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&str, &str)| {
        (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap())
    };
    let mut headers = HeaderMap::new();
    for (name, value) in lines.iter().map(pair) {
        headers.append(name, value);
    }
    headers
}

fn parsed(lines: &[(&str, &str)]) -> Option<Limits> {
    let requested = RequestedLimits::parse(&headers(lines), &caps()).ok()?;
    Some(requested.within(&Limits::default(), &caps()).unwrap())
}

/// Numbers as people and programs write them wrongly, and anything else.
fn odd_value() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ -~]{0,20}",
        "[+-]?[0-9]{0,24}([.,][0-9]{0,6})?([eE][+-]?[0-9]{1,3})?( ?[A-Za-z]{1,4})?",
        Just("NaN".to_owned()),
        Just("Infinity".to_owned()),
        Just("0x1F4".to_owned()),
    ]
}

/// Written down and read again, a value is the same.
fn same_again<T: FromStr<Err: Debug> + Display + PartialEq + Debug>(value: &T) -> Result<(), TestCaseError> {
    let again = value.to_string().parse::<T>();
    prop_assert!(again.as_ref().is_ok_and(|again| again == value), "{} became {:?}", value, again);
    Ok(())
}

/// As [`same_again`], if the text is a value.
fn read_again<T: FromStr<Err: Debug> + Display + PartialEq + Debug>(text: &str) -> Result<(), TestCaseError> {
    text.parse::<T>().map_or(Ok(()), |value| same_again(&value))
}

/// Of all magnitudes.
fn number() -> impl Strategy<Value = u64> {
    (any::<u64>(), 0..64_u32).prop_map(|(bits, shift)| bits >> shift)
}

proptest! {
    /// Each value of each type, whatever it is.
    #[test]
    fn values_read_back_from_what_is_shown(number in number(), unit in prop::sample::select(vec![1, 1000, 1024, 1_000_000, 1 << 20, 1_000_000_000, 1 << 30])) {
        let size = ByteSize::of_bytes(number.saturating_mul(unit));
        same_again(&size)?;
        same_again(&PlainBytes(size))?;
        // Both grammars read what either shows.
        prop_assert_eq!(PlainBytes(size).to_string().parse::<ByteSize>(), Ok(size));
        same_again(&size.to_string().parse::<MemoryLimit>().unwrap_or("64Ki".parse().unwrap()))?;
        same_again(&MemoryRequest::from_bytes(size.bytes()).unwrap_or(MemoryRequest::MAX))?;
        let number = u32::try_from(number >> 32).unwrap();
        same_again(&ConfigDuration::from_millis(number))?;
        same_again(&InvocationTimeout::from_millis(number))?;
        same_again(&CpuQuota::from_millicores(number % 1_024_000 + 1).unwrap())?;
    }

    /// Settings are good if an instance serves no more requests at once than in all, and than the operator says.
    #[test]
    fn no_more_at_once_than_in_all(reuse in prop::option::of(0_u32..20), concurrent in prop::option::of(0_u32..20), cap in 1_u32..20) {
        let line = |name: &str, value: Option<u32>| value.map_or(String::new(), |value| format!("{name} = {value}\n"));
        let text = format!("[instance]\n{}{}", line("reuse", reuse), line("concurrent", concurrent));
        let grants = OperatorGrants { reuse: NonZeroU32::new(100), concurrent: NonZeroU32::new(cap), ..Default::default() };
        let (in_all, at_once) = (reuse.unwrap_or(1), concurrent.unwrap_or(1));
        let is_good = in_all > 0 && (1..=in_all.min(cap)).contains(&at_once);
        prop_assert_eq!(FunctionSettings::parse("f.toml", &text, caps(), &grants).is_ok(), is_good, "{}", text);
    }

    /// Each value of those that are made of text only.
    #[test]
    fn what_is_read_is_read_again(text in prop_oneof![odd_value(), "[0-9]{0,3}[.][0-9]{0,9}", "[a-z0-9.:\\[\\]/-]{1,16}", "[a-z.]{1,8}:[0-9]{1,5}", "ws://[a-z.]{1,9}"]) {
        read_again::<Fraction>(&text)?;
        read_again::<Cores>(&text)?;
        read_again::<MemoryLimit>(&text)?;
        read_again::<OverbookingRatio>(&text)?;
        read_again::<OutboundGrant>(&text)?;
        read_again::<QueueProxyHost>(&text)?;
        read_again::<ModuleName>(&text)?;
        read_again::<ByteSize>(&text)?;
        read_again::<PlainBytes>(&text)?;
        read_again::<ConfigDuration>(&text)?;
        read_again::<CpuQuota>(&text)?;
        read_again::<MemoryRequest>(&text)?;
        read_again::<InvocationTimeout>(&text)?;
    }

    /// A header that carries what an answer shows asks for the same.
    #[test]
    fn limits_read_back_from_headers(millicores in 1..=2_000_u32, bytes in 64_u64 << 10..=1 << 30, millis in 1..=60_000_u32) {
        let limits = Limits {
            cpu_quota: CpuQuota::from_millicores(millicores).unwrap(),
            memory: MemoryRequest::from_bytes(bytes).unwrap(),
            timeout: InvocationTimeout::from_millis(millis),
        };
        let lines = [
            ("Cpu-Quota", limits.cpu_quota.to_string()),
            ("Memory-Request", limits.memory.to_string()),
            ("Invocation-Timeout", limits.timeout.to_string()),
        ];
        prop_assert_eq!(parsed(&lines.each_ref().map(|(name, value)| (*name, value.as_str()))), Some(limits));
    }

    #[test]
    fn one_quota_has_many_spellings(millicores in 1..=1_024_000_u32) {
        let quota = CpuQuota::from_millicores(millicores).unwrap();
        let cores = format!("{}.{:03}", millicores / 1000, millicores % 1000);
        for text in [millicores.to_string(), format!("{millicores}m"), cores, quota.to_string()] {
            prop_assert_eq!(text.parse::<CpuQuota>(), Ok(quota), "{}", text);
        }
    }

    #[test]
    fn one_size_has_many_spellings(mebibytes in 1..16_000_u64) {
        let size = MemoryRequest::from_bytes(mebibytes << 20).unwrap();
        let kibibytes = format!("{}Ki", mebibytes << 10);
        for text in [mebibytes.to_string(), format!("{mebibytes}Mi"), kibibytes, size.to_string()] {
            prop_assert_eq!(text.parse::<MemoryRequest>(), Ok(size), "{}", text);
        }
        prop_assert_eq!(size.mebibytes(), mebibytes);
    }

    #[test]
    fn one_time_has_many_spellings(seconds in 1..=86_400_u64) {
        let time = InvocationTimeout::from_millis(seconds as u32 * 1000);
        for text in [format!("{}", seconds * 1000), format!("{}ms", seconds * 1000), format!("{seconds}s"), time.to_string()] {
            prop_assert_eq!(text.parse::<InvocationTimeout>(), Ok(time), "{}", text);
        }
    }

    /// Only digits, one point and a suffix are ever read as a limit; what is read is within the type's bounds.
    #[test]
    fn odd_values_are_read_exactly_or_not_at_all(text in odd_value()) {
        let plain = |suffixes: &[&str]| {
            let number = suffixes.iter().find_map(|suffix| text.strip_suffix(suffix)).unwrap_or(&text);
            !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
        };
        if let Ok(quota) = text.parse::<CpuQuota>() {
            prop_assert!(plain(&["m"]) && (CpuQuota::MIN..=CpuQuota::MAX).contains(&quota));
        }
        if let Ok(size) = text.parse::<MemoryRequest>() {
            prop_assert!(plain(&["Ki", "Mi", "Gi", "k", "M", "G", "B"]) && !text.contains('.'));
            prop_assert!((MemoryRequest::MIN..=MemoryRequest::MAX).contains(&size));
        }
        if let Ok(time) = text.parse::<InvocationTimeout>() {
            prop_assert!(plain(&["ms", "s", "m"]) && !text.contains('.'));
            prop_assert!((InvocationTimeout::MIN..=InvocationTimeout::MAX).contains(&time));
        }
    }

    #[test]
    fn what_headers_ask_for_is_within_the_caps_or_refused_by_name(
        name in prop::sample::select(vec!["cpu_quota", "Cpu-Quota", "Memory-Request", "Invocation-Timeout"]),
        value in odd_value(),
    ) {
        match RequestedLimits::parse(&headers(&[(name, &value)]), &caps()) {
            Ok(requested) => {
                let limits = requested.within(&Limits::default(), &caps()).unwrap();
                prop_assert!(limits.cpu_quota <= caps().cpu_quota);
                prop_assert!(limits.memory <= caps().memory && limits.timeout <= caps().timeout);
            }
            Err(bad) => {
                prop_assert_eq!(bad.header.to_ascii_lowercase(), name.to_ascii_lowercase().replace('_', "-"));
                prop_assert_eq!(&bad.value, &value);
            }
        }
    }

    #[test]
    fn both_names_of_the_quota_are_one_header(first in 1..=2000_u32, second in 1..=2000_u32) {
        let (a, b) = (first.to_string(), format!("{second}m"));
        let one = parsed(&[("cpu_quota", &a)]);
        prop_assert_eq!(one, parsed(&[("Cpu-Quota", &a)]));
        let both = parsed(&[("cpu_quota", &a), ("Cpu-Quota", &b)]);
        prop_assert_eq!(both, if first == second { one } else { None });
    }

    #[test]
    fn a_long_value_is_quoted_in_part(value in "[0-9]{65,4000}") {
        let bad = RequestedLimits::parse(&headers(&[("Memory-Request", &value)]), &caps()).unwrap_err();
        prop_assert!(bad.to_string().len() < 300);
    }

    #[test]
    fn a_modules_name_is_one_harmless_path_component(text in prop_oneof!["[A-Za-z0-9._-]{1,130}", "\\PC{0,20}", "(\\.|/|%2e|a|\\\\){1,8}"]) {
        if let Ok(name) = text.parse::<ModuleName>() {
            prop_assert_eq!(name.as_str(), &text);
            let components: Vec<_> = Path::new(&text).components().collect();
            prop_assert!(matches!(components[..], [Component::Normal(only)] if only == text.as_str()));
            prop_assert!(!text.starts_with('.') && text.len() <= ModuleName::LONGEST);
        } else {
            let spelled_well = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
            prop_assert!(!spelled_well || text.is_empty() || text.starts_with('.') || text.len() > ModuleName::LONGEST);
        }
    }

    #[test]
    fn a_functions_name_in_a_registry_is_one_harmless_path_component(
        text in prop_oneof!["[a-z0-9.:-]{1,9}/[a-z0-9._/-]{1,20}(:[A-Za-z0-9._-]{1,9})?", "\\PC{0,40}", "r/(\\.|/|%2e|a|\\\\|_|-){1,12}"],
    ) {
        if let Ok(reference) = format!("oci://{text}").parse::<Reference>() {
            let components: Vec<_> = Path::new(reference.function()).components().collect();
            prop_assert!(matches!(components.as_slice(), [Component::Normal(_)]), "{components:?}");
            prop_assert!(!reference.function().starts_with('.'));
            let shown: Reference = reference.to_string().parse().unwrap();
            prop_assert_eq!((shown.registry(), shown.repository(), shown.target()), (reference.registry(), reference.repository(), reference.target()));
        }
    }

    #[test]
    fn any_challenge_of_a_registry_is_read_to_its_end(
        headers in vec(prop_oneof!["(Bearer|Basic) ([a-z]{0,6}|=|,|\"|\\\\| ){0,20}", "\\PC{0,60}"], 0..3),
        realm in "[!#-\\[\\]-~]{1,30}",
    ) {
        let _ = Challenge::of(headers.iter().map(String::as_str));
        let header = format!("Bearer x=y,realm=\"{realm}\"");
        let expected = Challenge::Bearer { realm, service: None, scope: None };
        prop_assert_eq!(Challenge::of([header.as_str()].into_iter()), Some(expected));
    }

    #[test]
    fn a_route_is_its_first_segment(name in "[A-Za-z0-9_-][A-Za-z0-9._-]{0,20}", below in prop::option::of("[!-~]{0,20}")) {
        let path = below.as_ref().map_or_else(|| format!("/{name}"), |below| format!("/{name}/{below}"));
        prop_assume!(!matches!(&*path, "/-/live" | "/-/ready"));
        let expected = Route::Module { name: name.parse().unwrap(), below: below.is_some() };
        prop_assert_eq!(Route::parse(&path), Ok(expected));
    }

    #[test]
    fn arguments_come_through_a_query(values in vec("[^\\x00]{0,12}", 0..6), noise in "[a-z]{0,5}") {
        let encoded = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
        let mut pairs: Vec<String> = values.iter().map(|value| format!("arg={}", encoded(value))).collect();
        pairs.push(format!("x{noise}=1"));
        prop_assert_eq!(arguments(&pairs.join("&")), Ok(values));
    }

    #[test]
    fn no_query_makes_an_impossible_argument(query in "([ -~]|%[0-9A-F]{2}|&|arg=){0,20}") {
        if let Ok(arguments) = arguments(&query) {
            prop_assert!(arguments.iter().all(|argument| !argument.contains('\0')));
        }
    }

    #[test]
    fn traces_are_read_exactly_or_not_at_all(
        parents in vec("(00|01|ff|[ -~]{0,2})-([0-9a-f]{32}|[0-9a-fA-F]{30,33})-([0-9a-f]{16}|0{16}|[!-~]{0,17})-([0-9a-f]{2}|[ -~]{0,60})", 0..3),
        states in vec("([a-z0-9@_*/-]{0,20}[=, ][!-~]{0,300}[,\t ]?){0,40}", 0..3),
    ) {
        let lines: Vec<(&str, &str)> = parents.iter().map(|parent| ("traceparent", parent.as_str()))
            .chain(states.iter().map(|state| ("tracestate", state.as_str())))
            .collect();
        if let Some(received) = Received::of(&headers(&lines)) {
            prop_assert_eq!(parents.len(), 1);
            let (read, written) = (&parents[0], received.context.to_string());
            // The same trace and span; the flag that is known.
            prop_assert_eq!(&written[3..53], &read[3..53]);
            prop_assert_eq!(TraceContext::parse(written.as_bytes()), Some(received.context));
            prop_assert!(!read.starts_with("00") || read.len() == 55);
            if let Some(state) = &received.state {
                prop_assert!(!state.is_empty() && state.len() <= 512 && state.is_ascii());
                // What is passed on is read again as it is.
                let again = Received::of(&headers(&[("traceparent", &written), ("tracestate", state)]));
                prop_assert_eq!(again.and_then(|again| again.state), received.state);
            }
        }
    }

    #[test]
    fn every_trace_that_is_one_is_read(trace in 1_u128.., span in 1_u64.., flags: u8) {
        let text = format!("00-{trace:032x}-{span:016x}-{flags:02x}");
        let context = TraceContext::parse(text.as_bytes()).unwrap();
        prop_assert_eq!(context.to_string(), format!("{}{:02x}", &text[..53], flags & 1));
    }
}
