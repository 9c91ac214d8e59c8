//! The processes in a tree of cgroups.
//!
//! `libcgroups`' `get_all_pids` is not used: it gives none at all if a cgroup is removed while it looks, as those of ending processes are.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rustix::process::{Pid, Signal, kill_process};

/// The processes in the cgroup and those below it, some of them twice.
pub fn pids(cgroup: &Path) -> Vec<u32> {
    let mut pids = Vec::new();
    collect(cgroup, &mut pids);
    pids
}

/// Kills what is in these cgroups and those below them.
pub fn kill(cgroups: &[PathBuf]) {
    let mut pids = Vec::new();
    cgroups.iter().for_each(|cgroup| collect(cgroup, &mut pids));
    for pid in pids.into_iter().filter_map(|pid| Pid::from_raw(i32::try_from(pid).ok()?)) {
        let _ = kill_process(pid, Signal::KILL);
    }
}

fn collect(directory: &Path, pids: &mut Vec<u32>) {
    // A threaded cgroup does not tell (EOPNOTSUPP), nor do those below it: their processes are in the one above.
    let Ok(text) = fs::read_to_string(directory.join("cgroup.procs")) else { return };
    pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), pids);
        }
    }
}
