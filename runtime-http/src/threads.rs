//! Threads of the box: how they begin, and what an operator can do where they cannot be started.

use std::sync::Arc;

/// What a thread does first.
pub type ThreadStart = Arc<dyn Fn() + Send + Sync>;

pub const REMEDY: &str = "raise the limit on threads: the container's (pids), or the user's (ulimit -u)";
