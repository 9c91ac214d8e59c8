//! What one invocation may use: CPU, memory, wall-clock time.
//!
//! Each limit is parsed once, at the edge, into a newtype that can only hold a valid value. This module does not enforce
//! anything: [`crate::sandbox`] enforces memory and time, the worker's cgroup enforces CPU.
//!
//! - [`cpu_quota`]: [`CpuQuota`], millicores
//! - [`memory_request`]: [`MemoryRequest`], a size in bytes that a guest can have
//! - [`timeout`]: [`InvocationTimeout`], a time in which an invocation can end
//! - [`requested`]: reading the three from request headers, within the operator's caps
//! - [`byte_size`], [`config_duration`]: sizes in bytes and spans of time in general
//! - [`memory_limit`], [`fraction`], [`cores`]: what operators say of a whole box
//! - [`fields`]: what a guest may send in a head
//! - [`number`]: what all of them are written with
//!
//! Each value reads back from what it is shown as: `value.to_string().parse() == Ok(value)`.

pub mod byte_size;
pub mod config_duration;
pub mod cores;
pub mod cpu_quota;
pub mod fields;
pub mod fraction;
pub mod memory_limit;
pub mod memory_request;
pub mod number;
pub mod requested;
pub mod timeout;

pub use byte_size::{ByteSize, PlainBytes};
pub use config_duration::ConfigDuration;
pub use cores::Cores;
pub use cpu_quota::CpuQuota;
pub use fraction::Fraction;
pub use memory_limit::MemoryLimit;
pub use memory_request::MemoryRequest;
pub use requested::{BadLimit, LimitCaps, RequestedLimits};
pub use timeout::InvocationTimeout;

/// The limits of one invocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub cpu_quota: CpuQuota,
    pub memory: MemoryRequest,
    pub timeout: InvocationTimeout,
}

impl Default for Limits {
    /// 500 millicores, 200 MiB, 60 s: the original WasmBox's defaults.
    fn default() -> Self {
        Limits { cpu_quota: CpuQuota::DEFAULT, memory: MemoryRequest::DEFAULT, timeout: InvocationTimeout::DEFAULT }
    }
}

/// A limit's text that cannot be read, and what would be accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}; expected {expected}")]
pub struct InvalidLimit {
    pub reason: &'static str,
    pub expected: &'static str,
}

/// Implements `Deserialize`, from a number or a string, through `FromStr`: for what functions' settings name.
macro_rules! serde_through_text {
    ($type:ty) => {
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                #[derive(serde::Deserialize)]
                #[serde(untagged)]
                enum NumberOrText {
                    Integer(u64),
                    Float(f64),
                    Text(String),
                }
                let text = match NumberOrText::deserialize(deserializer)? {
                    NumberOrText::Integer(number) => number.to_string(),
                    NumberOrText::Float(number) => $crate::limits::number::written(number),
                    NumberOrText::Text(text) => text,
                };
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use serde_through_text;
