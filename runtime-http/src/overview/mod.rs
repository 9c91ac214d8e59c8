//! What a box does now, as one document of bounded size: `/overview.json` of the admin port. The live page, `wasmbox top` and `wasmbox status
//! --watch` show it.
//!
//! - [`query`]: which functions of all are wanted, in which order; [`source`]: where the document comes from
//! - [`directory`]: which functions lie in the functions directory, whether they were called or not

pub mod directory;
pub mod query;
pub mod source;

use serde::{Deserialize, Serialize};

use crate::{
    metrics::activity::{LATENCIES, Rates, Totals},
    status::Status,
    store::listing::{Compiling, ListedLimits},
};

/// The document. Members may be added; readers take what they know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Overview {
    pub status: Status,
    /// Cores that the box may use.
    pub cpu_limit_cores: f64,
    /// Of all functions since the start.
    pub totals: Counts,
    pub latency: Latency,
    /// Invocations that were ended because memory ran short.
    pub evicted: u64,
    /// Growths of guests' memory that had to wait.
    pub growth_waits: u64,
    pub compiling: Compiling,
    pub functions: Functions,
    /// The newest first.
    pub failures: Vec<FailedInvocation>,
    /// Whether functions may be put here, with a token.
    pub uploads: bool,
}

/// What was done, and what is done in a second on average.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    /// Ended invocations.
    pub calls: u64,
    /// Answers with a status of 500 and above.
    pub errors: u64,
    pub cpu_seconds: f64,
    pub calls_per_second: f64,
    pub errors_per_second: f64,
    /// CPU time of invocations.
    pub cpu_cores: f64,
}

/// Ended invocations by the time that they took, since the start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// The upper bound of each class but the last, which has none, microseconds.
    pub bounds_us: Vec<u64>,
    pub counts: Vec<u64>,
}

/// Some of the functions that are in memory, were lately, or lie in the functions directory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Functions {
    /// How many there are.
    pub all: u64,
    /// How many of them the filter lets through.
    pub matching: u64,
    /// How many of those are before the first that is shown.
    pub offset: u64,
    /// Whether those that were not called are among them.
    #[serde(default)]
    pub directory: DirectoryState,
    pub rows: Vec<FunctionRow>,
}

/// How much of the functions directory is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DirectoryState {
    /// All that lie there.
    Whole,
    /// It has more entries than are looked at.
    Cut,
    /// It cannot be read, or that takes long.
    #[default]
    #[serde(other)]
    Unknown,
}

/// A function.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FunctionRow {
    pub name: String,
    /// `ready`, `loading`, `failed`, or `unloaded`: not in memory, because it was not called, or not lately.
    pub state: String,
    #[serde(default)]
    pub file: Option<String>,
    #[serde(default)]
    pub kind: Option<String>,
    #[serde(default)]
    pub tier: Option<String>,
    pub code_bytes: u64,
    /// Running invocations.
    pub running: u64,
    #[serde(flatten)]
    pub counts: Counts,
    /// The most of one invocation.
    pub memory_peak_bytes: u64,
    /// What the CPU quotas of its invocations allow, of as many as ran at once; `None` if its limits are not known.
    #[serde(default)]
    pub cpu_limit_cores: Option<f64>,
    /// Of one invocation.
    #[serde(default)]
    pub memory_limit_bytes: Option<u64>,
    /// Bounds within which half and 99 of 100 invocations ended; `None` if there were none.
    pub p50_seconds: Option<f64>,
    pub p99_seconds: Option<f64>,
    /// Of requests that name none.
    #[serde(default)]
    pub limits: Option<ListedLimits>,
    /// Why it is not ready.
    #[serde(default)]
    pub reason: Option<String>,
}

/// An invocation that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedInvocation {
    pub invocation_id: String,
    pub function: String,
    /// Milliseconds since 1970.
    pub at_unix_ms: u64,
    /// What the client was answered; 200 if the answer had begun.
    pub status: u16,
    /// The problem's code; empty if the answer had begun.
    pub code: String,
    pub reason: String,
    /// The end of its standard error; empty with `--stderr-in-errors=false`.
    pub stderr: String,
}

impl Counts {
    fn new(totals: &Totals, rates: Rates) -> Counts {
        Counts {
            calls: totals.calls(),
            errors: totals.errors,
            cpu_seconds: totals.cpu_us as f64 / 1e6,
            calls_per_second: rates.calls,
            errors_per_second: rates.errors,
            cpu_cores: rates.cpu_cores,
        }
    }
}

impl Latency {
    fn new(totals: &Totals) -> Latency {
        let bounds_us = LATENCIES.iter().map(|seconds| (seconds * 1e6).round() as u64).collect();
        Latency { bounds_us, counts: totals.latencies.to_vec() }
    }
}
