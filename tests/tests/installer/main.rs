//! The node installer on nodes with a real containerd, each version.
//!
//! - [`host`]: a node's root directory; [`machine`]: a whole machine, on which pods run
//! - [`installation`]: what it does to a node; [`configuration`]: to containerd's files, in all their forms; [`faults`]: when something fails
//! - [`pods`]: what goes on meanwhile; [`older_installation`]: and while one is mended

mod configuration;
mod faults;
mod host;
mod installation;
mod machine;
mod older_installation;
mod pods;

use wasmbox_tests::{Version, node::Ran};

use self::host::{Host, Layout};

/// A configuration as an administrator has it: comments, settings, another runtime, and none of what is there by default.
fn owners(version: Version, systemd: bool) -> String {
    let (number, plugin) = (version.configuration_version(), version.runtime_plugin());
    format!(
        "# Ours. Ask ops before you change it.\nversion = {number}\n\n[plugins.'{plugin}']\n\trestrict_oom_score_adj = true\n\
         [plugins.'{plugin}'.containerd.runtimes.runc]\nruntime_type = 'io.containerd.runc.v2'\n\
         [plugins.'{plugin}'.containerd.runtimes.runc.options]\nSystemdCgroup = {systemd}\n\
         [plugins.'{plugin}'.containerd.runtimes.kata]\nruntime_type = 'io.containerd.kata.v2'   # slow"
    )
}

/// A node with that configuration, whose containerd runs.
fn running(version: Version) -> Host {
    let host = Host::new(version, Layout::Plain);
    host.write(host.config(), &owners(version, false));
    host.start();
    host
}

/// The installer fails, and says this.
#[track_caller]
fn fails(ran: &Ran, part: &str) {
    assert!(ran.code != 0 && ran.stderr.contains(part), "{ran:?}");
}

/// What the effective configuration says of a runtime, sorted: versions order it differently.
fn runtime(dump: &str, name: &str) -> Vec<String> {
    let mut is_in = false;
    let mut lines = Vec::new();
    for line in dump.lines().map(str::trim) {
        if line.starts_with('[') {
            is_in = line.contains(&format!(".runtimes.{name}]")) || line.contains(&format!(".runtimes.{name}."));
        } else if is_in {
            lines.push(line.replace('\'', "\""));
        }
    }
    lines.sort();
    lines
}

fn has(dump: &str, name: &str, line: &str) -> bool {
    runtime(dump, name).iter().any(|other| other == line)
}
