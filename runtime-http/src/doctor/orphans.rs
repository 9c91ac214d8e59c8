//! What containerd has lost: shims and containers that run, whose bundles it has removed. It does so when it starts and does not find a
//! container's shim; the kubelet then starts another against the one that still runs, and has the port.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{
    Finding,
    node::{SHIM, state_directory},
};
use crate::config::Config;

/// A container as runc keeps it: `state.json`.
#[derive(Deserialize)]
struct State {
    init_process_pid: u32,
    config: Labels,
}

#[derive(Deserialize)]
struct Labels {
    labels: Vec<String>,
}

/// Whether all shims and boxes of this node are containerd's.
pub fn orphans(_: &Config) -> Finding {
    let directory = state_directory();
    let (shims, containers) = (shims(), containers(&directory));
    let lost_shims: Vec<_> = shims.iter().filter(|shim| shim.is_lost).collect();
    let lost: Vec<_> = containers.iter().filter(|container| !container.bundle.exists()).collect();
    if lost_shims.is_empty() && lost.is_empty() {
        return Finding::ok(format!("none of {} shims and {} containers", shims.len(), containers.len()));
    }
    let mut found: Vec<_> = lost_shims.iter().map(|shim| format!("shim {} of {}", shim.pid, shim.id)).collect();
    let mut remedy = Vec::new();
    if !lost_shims.is_empty() {
        let pids: Vec<_> = lost_shims.iter().map(|shim| shim.pid.to_string()).collect();
        remedy.push(format!("kill {}", pids.join(" ")));
    }
    for container in lost {
        found.push(format!("container {}, process {}", container.id, container.pid));
        remedy.push(format!("runc --root {} delete --force {}", container.directory.display(), container.id));
    }
    Finding::warn(format!("containerd does not know {}", found.join("; ")), remedy.join("; "))
}

struct Shim {
    pid: u32,
    /// Of the container for which it was started.
    id: String,
    /// It works in that one's bundle.
    is_lost: bool,
}

/// The long-lived processes, as far as this user may look at them.
fn shims() -> Vec<Shim> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let shim = |pid: u32| {
        let words = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let words: Vec<_> = words.split(|&byte| byte == 0).map(String::from_utf8_lossy).collect();
        let is_ours =
            Path::new(words.first()?.as_ref()).file_name()? == SHIM && words.iter().any(|word| word == "-socket");
        let id = words.iter().skip_while(|word| *word != "-id").nth(1)?.to_string();
        let bundle = fs::read_link(format!("/proc/{pid}/cwd")).ok().filter(|_| is_ours)?;
        Some(Shim { pid, id, is_lost: !bundle.exists() })
    };
    pids.filter_map(shim).collect()
}

struct Container {
    id: String,
    pid: u32,
    bundle: PathBuf,
    /// Of its namespace: what runc calls its root.
    directory: PathBuf,
}

fn containers(root: &Path) -> Vec<Container> {
    let entries = |directory: &Path| fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let container = |path: PathBuf| {
        let state: State = serde_json::from_slice(&fs::read(path.join("state.json")).ok()?).ok()?;
        let bundle = state.config.labels.iter().find_map(|label| label.strip_prefix("bundle="))?;
        let id = path.file_name()?.to_str()?.to_owned();
        Some(Container { id, pid: state.init_process_pid, bundle: bundle.into(), directory: path.parent()?.to_owned() })
    };
    entries(root).flat_map(|namespace| entries(&namespace).collect::<Vec<_>>()).filter_map(container).collect()
}
