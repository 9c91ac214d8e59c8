//! What can go wrong with a container.

use crate::{
    process::{IllegalTransition, State},
    rootfs::RootfsError,
    runtime::RuntimeError,
    stats::StatsError,
    stdio::StdioError,
};

#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    #[error("no container {container}")]
    Deleted { container: String },
    #[error("container {container}: the call has failed in the shim; containerd's log has more")]
    Unanswered { container: String },
    #[error("container {container}: it is being deleted")]
    Deleting { container: String },
    #[error("container {container}: no process {exec}")]
    NoProcess { container: String, exec: String },
    #[error("container {container}: process {exec} exists already")]
    Exists { container: String, exec: String },
    #[error("container {container}: process already finished")]
    Finished { container: String },
    #[error("container {container}: cannot exec in a {} state", state.as_str())]
    Exec { container: String, state: State },
    #[error("container {container}: process id {exec:?}: expected letters, digits, dashes, dots and underscores")]
    ProcessId { container: String, exec: String },
    #[error("container {container}: process spec: {source}")]
    ProcessSpec { container: String, source: serde_json::Error },
    #[error("container {container}: signal {signal}: unknown")]
    Signal { container: String, signal: u32 },
    #[error("container {container}: {source}")]
    Rootfs { container: String, source: RootfsError },
    #[error("container {container}: its cgroup was not found")]
    NoCgroup { container: String },
    #[error("container {container}: {source}")]
    Stats { container: String, source: StatsError },
    #[error(transparent)]
    Transition(#[from] IllegalTransition),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error(transparent)]
    Stdio(#[from] StdioError),
    #[error("container {container}: {what}: {source}")]
    Io { container: String, what: &'static str, source: std::io::Error },
}
