//! How an invocation ended on its worker's side.

use std::time::Instant;

use super::{CgroupTimes, Failure, Usage};

/// Made once, by the worker. The client's side decides by it what to answer; the access log and the metrics observe it.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    pub usage: Usage,
    /// When its guest began, if it did.
    pub began: Option<Instant>,
    /// `None` without cgroups.
    pub cgroup: Option<CgroupTimes>,
    pub failure: Option<Failure>,
}
