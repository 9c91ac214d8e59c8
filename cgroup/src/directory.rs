//! A directory of one hierarchy: this process's own cgroup, one that is named, or one that is searched for.

use std::{
    collections::VecDeque,
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
};

use procfs::process::Process;

use crate::hierarchy::{CgroupMounts, CgroupSetup, Hierarchy, Version, setup};

/// `statfs(2)`, `f_type`.
const CGROUP_V1_MAGIC: u64 = 0x0027_e0eb;
const CGROUP_V2_MAGIC: u64 = 0x6367_7270;
/// A node with a thousand pods has some ten thousand cgroups.
const MOST_SEARCHED: usize = 50_000;

/// A directory of a cgroup file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroup {
    pub version: Version,
    pub path: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum NotFound {
    #[error("reading /proc/self: {0}")]
    Proc(#[from] procfs::ProcError),
    #[error("/proc/self/cgroup names no cgroup of the controller {controller}")]
    NoController { controller: &'static str },
    #[error("no mounted hierarchy of the controller {controller} shows this process's cgroup {cgroup}")]
    NotMounted { controller: &'static str, cgroup: String },
    #[error("{} is no cgroup file system", path.display())]
    NoCgroup { path: PathBuf },
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("no cgroup below {} lists this process", path.display())]
    NotListed { path: PathBuf },
}

impl Cgroup {
    /// The cgroup in which `controller` governs this process.
    ///
    /// # Errors
    /// [`NotFound`], if it is not mounted where this process could see it.
    pub fn own(controller: &'static str) -> Result<Cgroup, NotFound> {
        let process = Process::myself()?;
        // Where `/sys/fs/cgroup` is not mounted or unusual, nothing is said of v1; `/proc/self/cgroup` then tells.
        let unified = matches!(setup(), Some(CgroupSetup::Unified));
        let groups = process.cgroups()?.0;
        let is_v1 = |controllers: &[String]| !unified && controllers.iter().any(|name| name == controller);
        let group = groups
            .iter()
            .find(|group| is_v1(&group.controllers))
            .or_else(|| groups.iter().find(|group| group.hierarchy == 0))
            .ok_or(NotFound::NoController { controller })?;
        let hierarchy = if group.hierarchy == 0 { Hierarchy::V2 } else { Hierarchy::V1(controller) };
        CgroupMounts::of(&process)?
            .directory(hierarchy, &group.pathname)
            .map(|path| Cgroup { version: hierarchy.version(), path })
            .ok_or(NotFound::NotMounted { controller, cgroup: group.pathname.clone() })
    }

    /// The cgroup at `path`, which must be one, or the directory of a v1 host's hierarchies with `controller` in it.
    ///
    /// # Errors
    /// [`NotFound`], if it is none.
    pub fn at(path: &Path, controller: &str) -> Result<Cgroup, NotFound> {
        let version = |path: &Path| -> Result<Option<Version>, NotFound> {
            let info = rustix::fs::statfs(path)
                .map_err(|error| NotFound::Io { path: path.to_owned(), source: error.into() })?;
            Ok(match u64::try_from(info.f_type) {
                Ok(CGROUP_V1_MAGIC) => Some(Version::V1),
                Ok(CGROUP_V2_MAGIC) => Some(Version::V2),
                _ => None,
            })
        };
        if let Some(version) = version(path)? {
            return Ok(Cgroup { version, path: path.to_owned() });
        }
        let hierarchy = path.join(controller);
        match version(&hierarchy) {
            Ok(Some(version)) => Ok(Cgroup { version, path: hierarchy }),
            Ok(None) | Err(_) => Err(NotFound::NoCgroup { path: path.to_owned() }),
        }
    }

    /// This process's own cgroup in a tree of which it may know neither its place nor its name: the one that lists its pid. A directory
    /// whose name has `pod_uid` in it (with dashes or, under systemd, underscores) is searched before all others.
    ///
    /// # Errors
    /// [`NotFound::NotListed`], if none does.
    pub fn own_below(&self, pod_uid: Option<&str>) -> Result<Cgroup, NotFound> {
        let pid = std::process::id().to_string();
        let names = pod_uid.map(|uid| [uid.to_owned(), uid.replace('-', "_")]);
        let is_pod = |name: &OsStr| {
            names.iter().flatten().any(|uid| !uid.is_empty() && name.to_string_lossy().contains(uid.as_str()))
        };
        let mut left = VecDeque::from([self.path.clone()]);
        let mut searched = 0;
        while let Some(path) = left.pop_front() {
            searched += 1;
            if searched > MOST_SEARCHED {
                break;
            }
            if fs::read_to_string(path.join("cgroup.procs")).is_ok_and(|pids| pids.lines().any(|line| line == pid)) {
                return Ok(Cgroup { version: self.version, path });
            }
            // What was removed meanwhile is not ours.
            for entry in fs::read_dir(&path).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    if is_pod(&entry.file_name()) {
                        left.push_front(entry.path());
                    } else {
                        left.push_back(entry.path());
                    }
                }
            }
        }
        Err(NotFound::NotListed { path: self.path.clone() })
    }
}
