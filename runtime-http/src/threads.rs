//! What an operator can do where the threads that a box starts with cannot be started.

pub const REMEDY: &str = "raise the limit on threads: the container's (pids), or the user's (ulimit -u)";
