//! A container's usage in containerd's messages: `io.containerd.cgroups.v1.Metrics` and `io.containerd.cgroups.v2.Metrics`, from which
//! CRI computes what `kubectl top` and autoscalers see. What containerd's own shims tell is told, since clients rely on it.

mod v1;
mod v2;

use std::{collections::BTreeMap, fs};

use containerd_shim_protos::protobuf::{self, Message, well_known_types::any::Any};

use crate::cgroup::Cgroup;

#[derive(Debug, thiserror::Error)]
#[error("statistics: {0}")]
pub struct StatsError(#[from] protobuf::Error);

/// What `cgroup` has used. Readings that are not there are zero.
///
/// # Errors
/// If the message cannot be written.
pub fn stats(cgroup: &Cgroup) -> Result<Any, StatsError> {
    let (type_url, value) = match cgroup {
        Cgroup::V1(_) => ("io.containerd.cgroups.v1.Metrics", v1::metrics(cgroup).write_to_bytes()?),
        Cgroup::V2(_) => ("io.containerd.cgroups.v2.Metrics", v2::metrics(cgroup).write_to_bytes()?),
    };
    Ok(Any { type_url: type_url.into(), value, ..Any::default() })
}

fn field(fields: &BTreeMap<String, u64>, name: &str) -> u64 {
    fields.get(name).copied().unwrap_or(0)
}

/// `MAJOR:MINOR`.
fn device(text: &str) -> Option<(u64, u64)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The sizes of huge pages that a controller counts, as its files are called: `2MB`.
fn page_sizes(cgroup: &Cgroup, file: &str) -> Vec<String> {
    let entries = cgroup.directory("hugetlb").and_then(|directory| fs::read_dir(directory).ok());
    let names = entries.into_iter().flatten().flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let suffix = format!(".{file}");
    let mut sizes: Vec<String> =
        names.filter_map(|name| Some(name.strip_prefix("hugetlb.")?.strip_suffix(&suffix)?.to_owned())).collect();
    sizes.retain(|size| !size.contains('.'));
    sizes.sort();
    sizes
}

#[cfg(test)]
mod tests;
