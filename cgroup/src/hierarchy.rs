//! Hierarchies: how the host is set up, what is mounted, and the mapping from `/proc/PID/cgroup` and `/proc/PID/mountinfo` to a
//! directory (cgroups(7)).
//!
//! How the host is set up (v1, v2, both) is `libcgroups`' finding. Its look-ups of mounts are not used: they take the first mount whose
//! directory is called like the controller and leave out its root, so in a container that sees its own cgroup as the root of what is mounted,
//! or has the hierarchy elsewhere, they lead to another directory or to none.

use std::path::{Component, Path, PathBuf};

pub use libcgroups::common::CgroupSetup;
use libcgroups::common::get_cgroup_setup;
use procfs::{
    ProcResult,
    process::{MountInfo, Process},
};

/// Of a hierarchy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    V1,
    V2,
}

/// Which hierarchy is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hierarchy<'a> {
    /// The one with this controller.
    V1(&'a str),
    /// There is only one.
    V2,
}

impl Hierarchy<'_> {
    pub fn version(self) -> Version {
        match self {
            Hierarchy::V1(_) => Version::V1,
            Hierarchy::V2 => Version::V2,
        }
    }

    fn is_mounted_by(self, mount: &MountInfo) -> bool {
        match self {
            Hierarchy::V1(controller) => mount.fs_type == "cgroup" && mount.super_options.contains_key(controller),
            Hierarchy::V2 => mount.fs_type == "cgroup2",
        }
    }
}

/// How the host is set up; `None` where `/sys/fs/cgroup` is not mounted or unusual.
pub fn setup() -> Option<CgroupSetup> {
    get_cgroup_setup().ok()
}

/// The hierarchies that this process sees.
#[derive(Debug)]
pub struct CgroupMounts(Vec<MountInfo>);

impl CgroupMounts {
    /// # Errors
    /// If `/proc/self/mountinfo` cannot be read.
    pub fn read() -> ProcResult<CgroupMounts> {
        Self::of(&Process::myself()?)
    }

    /// Those that `process` sees.
    ///
    /// # Errors
    /// If its `mountinfo` cannot be read.
    pub fn of(process: &Process) -> ProcResult<CgroupMounts> {
        Ok(CgroupMounts(process.mountinfo()?.into_iter().filter(is_cgroup).collect()))
    }

    /// Where they are mounted.
    pub fn points(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().map(|mount| mount.mount_point.as_path())
    }

    /// The directory of the cgroup that `/proc/PID/cgroup` calls `pathname`: the first that is there.
    pub fn directory(&self, hierarchy: Hierarchy<'_>, pathname: &str) -> Option<PathBuf> {
        self.places(hierarchy, pathname).find(|path| path.is_dir())
    }

    /// Where it would be, in each mount that shows it.
    fn places(&self, hierarchy: Hierarchy<'_>, pathname: &str) -> impl Iterator<Item = PathBuf> {
        self.0.iter().filter(move |mount| hierarchy.is_mounted_by(mount)).filter_map(move |mount| {
            let below = Path::new(pathname).strip_prefix(&mount.root).ok()?;
            inside(&mount.mount_point, below)
        })
    }
}

fn is_cgroup(mount: &MountInfo) -> bool {
    matches!(mount.fs_type.as_str(), "cgroup" | "cgroup2")
}

/// The directory `below` the mount point; `None` if that leads out of it: a process outside of this one's cgroup namespace is at `/..`.
pub fn inside(mount_point: &Path, below: &Path) -> Option<PathBuf> {
    let is_name = |component| matches!(component, Component::Normal(_));
    if below == Path::new("") {
        return Some(mount_point.to_owned());
    }
    below.components().all(is_name).then(|| mount_point.join(below))
}

#[cfg(test)]
mod tests;
