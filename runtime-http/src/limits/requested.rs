//! The limits a request asks for, checked against what the operator allows.

use std::{fmt::Display, str::FromStr};

use http::{HeaderMap, HeaderName};

use super::{CpuQuota, InvalidLimit, InvocationTimeout, Limits, MemoryRequest};

/// The most a request may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitCaps {
    pub cpu_quota: CpuQuota,
    pub memory: MemoryRequest,
    pub timeout: InvocationTimeout,
}

/// A limit header that is refused: answered 400 `bad-limit`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("header {header}: {value:?}: {reason}; expected {expected}, {minimum} to {maximum}")]
pub struct BadLimit {
    pub header: &'static str,
    /// As the client sent it, shortened.
    pub value: String,
    pub reason: &'static str,
    pub expected: &'static str,
    pub minimum: String,
    pub maximum: String,
}

const CPU_QUOTA: &str = "Cpu-Quota";
const MEMORY_REQUEST: &str = "Memory-Request";
const INVOCATION_TIMEOUT: &str = "Invocation-Timeout";
/// `cpu_quota` is the original's name; many proxies drop names with an underscore, so `Cpu-Quota` is the same header.
const CPU_QUOTA_SPELLINGS: [HeaderName; 2] =
    [HeaderName::from_static("cpu_quota"), HeaderName::from_static("cpu-quota")];
const MEMORY_REQUEST_SPELLINGS: [HeaderName; 1] = [HeaderName::from_static("memory-request")];
const INVOCATION_TIMEOUT_SPELLINGS: [HeaderName; 1] = [HeaderName::from_static("invocation-timeout")];
const ABOVE_CAP: &str = "above the cap";

/// The limits that a request's headers name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RequestedLimits {
    cpu_quota: Option<CpuQuota>,
    memory: Option<MemoryRequest>,
    timeout: Option<InvocationTimeout>,
}

impl RequestedLimits {
    /// Reads the limit headers, which must be within the operator's `caps`.
    ///
    /// # Errors
    /// [`BadLimit`] if a header is not readable, above its cap, or given twice with different values.
    pub fn parse(headers: &HeaderMap, caps: &LimitCaps) -> Result<Self, BadLimit> {
        Ok(RequestedLimits {
            cpu_quota: parse(headers, CPU_QUOTA, &CPU_QUOTA_SPELLINGS, CpuQuota::MIN, caps.cpu_quota)?,
            memory: parse(headers, MEMORY_REQUEST, &MEMORY_REQUEST_SPELLINGS, MemoryRequest::MIN, caps.memory)?,
            timeout: parse(
                headers,
                INVOCATION_TIMEOUT,
                &INVOCATION_TIMEOUT_SPELLINGS,
                InvocationTimeout::MIN,
                caps.timeout,
            )?,
        })
    }

    /// The limits of an invocation: what is requested, else the defaults; a default above the cap is lowered to it.
    ///
    /// # Errors
    /// [`BadLimit`] if a request is above its cap.
    pub fn within(&self, defaults: &Limits, caps: &LimitCaps) -> Result<Limits, BadLimit> {
        Ok(Limits {
            cpu_quota: choose(CPU_QUOTA, self.cpu_quota, defaults.cpu_quota, CpuQuota::MIN, caps.cpu_quota)?,
            memory: choose(MEMORY_REQUEST, self.memory, defaults.memory, MemoryRequest::MIN, caps.memory)?,
            timeout: choose(INVOCATION_TIMEOUT, self.timeout, defaults.timeout, InvocationTimeout::MIN, caps.timeout)?,
        })
    }

    /// The requested or default timeout, capped.
    pub fn timeout(&self, defaults: &Limits, caps: &LimitCaps) -> InvocationTimeout {
        self.timeout.unwrap_or(defaults.timeout).min(caps.timeout)
    }
}

fn choose<T: Ord + Copy + Display>(
    header: &'static str,
    requested: Option<T>,
    default: T,
    minimum: T,
    maximum: T,
) -> Result<T, BadLimit> {
    match requested {
        Some(requested) if requested > maximum => Err(BadLimit {
            header,
            value: requested.to_string(),
            reason: ABOVE_CAP,
            expected: "a value within it",
            minimum: minimum.to_string(),
            maximum: maximum.to_string(),
        }),
        Some(requested) => Ok(requested),
        None => Ok(default.min(maximum)),
    }
}

fn parse<T>(
    headers: &HeaderMap,
    header: &'static str,
    spellings: &[HeaderName],
    minimum: T,
    maximum: T,
) -> Result<Option<T>, BadLimit>
where
    T: FromStr<Err = InvalidLimit> + Ord + Copy + Display,
{
    let mut found: Option<T> = None;
    for spelling in spellings.iter().filter(|spelling| headers.contains_key(*spelling)) {
        for value in headers.get_all(spelling) {
            let text = String::from_utf8_lossy(value.as_bytes());
            let bad = |reason, expected| BadLimit {
                header,
                value: shortened(text.to_string()),
                reason,
                expected,
                minimum: minimum.to_string(),
                maximum: maximum.to_string(),
            };
            let parsed = text.parse::<T>().map_err(|invalid| bad(invalid.reason, invalid.expected))?;
            if parsed > maximum {
                return Err(bad(ABOVE_CAP, "a value within it"));
            }
            if found.is_some_and(|first| first != parsed) {
                return Err(bad("differs from another header of that name", "one value"));
            }
            found = Some(parsed);
        }
    }
    Ok(found)
}

/// A hostile value is quoted in the answer, but not all 60 KiB of it.
fn shortened(mut text: String) -> String {
    const LONGEST: usize = 64;
    if text.len() > LONGEST {
        let end = (0..=LONGEST).rev().find(|&index| text.is_char_boundary(index)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}
