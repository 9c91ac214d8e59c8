//! A container's usage in containerd's messages: `io.containerd.cgroups.v1.Metrics` and `io.containerd.cgroups.v2.Metrics`, from which
//! CRI computes what `kubectl top` and autoscalers see. What containerd's own shims tell is told, since clients rely on it. The crate
//! `wasmbox-cgroup` reads.

mod v1;
mod v2;

use std::collections::BTreeMap;

use containerd_shim_protos::protobuf::{self, Message, well_known_types::any::Any};
use wasmbox_cgroup::ProcessCgroups;

#[derive(Debug, thiserror::Error)]
#[error("statistics: {0}")]
pub struct StatsError(#[from] protobuf::Error);

/// What `cgroup` has used. Readings that are not there are zero.
///
/// # Errors
/// If the message cannot be written.
pub fn stats(cgroup: &ProcessCgroups) -> Result<Any, StatsError> {
    let (type_url, value) = match cgroup {
        ProcessCgroups::V1(_) => ("io.containerd.cgroups.v1.Metrics", v1::metrics(cgroup).write_to_bytes()?),
        ProcessCgroups::V2(_) => ("io.containerd.cgroups.v2.Metrics", v2::metrics(cgroup).write_to_bytes()?),
    };
    Ok(Any { type_url: type_url.into(), value, ..Any::default() })
}

fn field(fields: &BTreeMap<String, u64>, name: &str) -> u64 {
    fields.get(name).copied().unwrap_or(0)
}
