//! The limit headers of a request, as hostile as headers can be.
//!
//! Whatever is accepted lies within the caps, and written down and read again it is the same.

#![no_main]

use std::{fmt::Display, str::FromStr};

use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::{Corpus, fuzz_target};
use wasmbox_fuzz::limits::{
    ByteSize, ConfigDuration, Cores, CpuQuota, Fraction, InvocationTimeout, LimitCaps, Limits, MemoryLimit,
    MemoryRequest, PlainBytes, RequestedLimits,
};

const NAMES: [&str; 4] = ["cpu_quota", "cpu-quota", "memory-request", "invocation-timeout"];

// Each line is a header: the first byte says which, the rest is its value.
fuzz_target!(|input: &[u8]| -> Corpus {
    let mut headers = HeaderMap::new();
    for line in input.split(|byte| *byte == b'\n') {
        let Some((name, value)) = line.split_first() else { continue };
        let Ok(value) = HeaderValue::from_bytes(value) else { return Corpus::Reject };
        if let Ok(text) = value.to_str() {
            same_again::<CpuQuota>(text);
            same_again::<MemoryRequest>(text);
            same_again::<InvocationTimeout>(text);
            same_again::<ByteSize>(text);
            same_again::<PlainBytes>(text);
            same_again::<ConfigDuration>(text);
            same_again::<MemoryLimit>(text);
            same_again::<Fraction>(text);
            same_again::<Cores>(text);
        }
        headers.append(NAMES[usize::from(name & 3)], value);
    }
    let caps = LimitCaps {
        cpu_quota: CpuQuota::from_millicores(2_000).expect("within bounds"),
        memory: MemoryRequest::from_bytes(1 << 30).expect("within bounds"),
        timeout: InvocationTimeout::DEFAULT,
    };
    match RequestedLimits::parse(&headers, &caps) {
        Ok(requested) => {
            let limits = requested.within(&Limits::default(), &caps).expect("what was parsed is within the caps");
            assert!(
                limits.cpu_quota <= caps.cpu_quota && limits.memory <= caps.memory && limits.timeout <= caps.timeout
            );
            assert!(requested.timeout(&Limits::default(), &caps) == limits.timeout);
        }
        // A value is quoted, but not all of a long one.
        Err(bad) => assert!(bad.value.chars().count() <= 65 && !bad.to_string().is_empty()),
    }
    Corpus::Keep
});

fn same_again<T: FromStr + Display + PartialEq>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        assert!(!text.contains(['-', '+', ' ', 'e', 'N', 'I']), "{text:?} was accepted");
        let again = value.to_string().parse::<T>();
        assert!(again.is_ok_and(|again| again == value), "{text:?} became {value}, which is read otherwise");
    }
}
