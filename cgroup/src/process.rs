//! The cgroups of any process, by controller: the same for cgroupfs and systemd, v1 and v2.

use std::{
    collections::BTreeMap,
    num::TryFromIntError,
    path::{Path, PathBuf},
};

use procfs::process::Process;

use crate::{
    file,
    hierarchy::{CgroupMounts, Hierarchy},
    members,
};

/// Where a process's controllers are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProcessCgroups {
    /// By controller.
    V1(BTreeMap<String, PathBuf>),
    V2(PathBuf),
}

#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    #[error(transparent)]
    Number(#[from] TryFromIntError),
    #[error(transparent)]
    Proc(#[from] procfs::ProcError),
    #[error("no cgroup hierarchy of process {pid} is mounted here")]
    NotMounted { pid: u32 },
}

impl ProcessCgroups {
    /// The cgroups of `pid`, as this process sees them.
    ///
    /// # Errors
    /// If `/proc` cannot be read, or no hierarchy is mounted.
    pub fn of(pid: u32) -> Result<ProcessCgroups, ProcessError> {
        let groups = Process::new(i32::try_from(pid)?)?.cgroups()?.0;
        let mounts = CgroupMounts::read()?;
        let mut v1 = BTreeMap::new();
        for group in &groups {
            for controller in group.controllers.iter().filter(|name| !name.starts_with("name=")) {
                if let Some(path) = mounts.directory(Hierarchy::V1(controller), &group.pathname) {
                    v1.insert(controller.clone(), path);
                }
            }
        }
        // On a hybrid host the controllers are v1's.
        if v1.contains_key("memory") || v1.contains_key("cpu") {
            return Ok(ProcessCgroups::V1(v1));
        }
        let unified = groups.iter().find(|group| group.hierarchy == 0);
        let path = unified.and_then(|group| mounts.directory(Hierarchy::V2, &group.pathname));
        path.map(ProcessCgroups::V2).ok_or(ProcessError::NotMounted { pid })
    }

    /// The directory of a controller.
    pub fn directory(&self, controller: &str) -> Option<&Path> {
        match self {
            ProcessCgroups::V1(controllers) => controllers.get(controller).map(PathBuf::as_path),
            ProcessCgroups::V2(path) => Some(path),
        }
    }

    pub fn read(&self, controller: &str, name: &str) -> Option<String> {
        file::text(&self.directory(controller)?.join(name))
    }

    /// A file with one number; `max` is none.
    pub fn number(&self, controller: &str, name: &str) -> Option<u64> {
        file::number(&self.directory(controller)?.join(name))
    }

    /// A file of lines `name value`.
    pub fn fields(&self, controller: &str, name: &str) -> BTreeMap<String, u64> {
        file::fields(&self.read(controller, name).unwrap_or_default())
    }

    /// All processes in there.
    pub fn pids(&self) -> Vec<u32> {
        // v1's cpu hierarchy has nested cgroups of threads: another one has all processes in one place.
        let directory = match self {
            ProcessCgroups::V1(controllers) => {
                ["pids", "memory", "devices", "freezer"].iter().find_map(|name| controllers.get(*name))
            }
            ProcessCgroups::V2(path) => Some(path),
        };
        let mut pids = directory.map(|directory| members::pids(directory)).unwrap_or_default();
        pids.sort_unstable();
        pids.dedup();
        pids
    }
}
