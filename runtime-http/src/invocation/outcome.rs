//! How an invocation ended on its worker's side.

use super::{CgroupTimes, Failure, Usage};

/// Made once, by the worker. The client's side decides by it what to answer; the access log and the metrics observe it.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    pub usage: Usage,
    /// `None` without cgroups.
    pub cgroup: Option<CgroupTimes>,
    pub failure: Option<Failure>,
}
