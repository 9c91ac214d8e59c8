//! The cgroups of a container, found by its init process: the same for cgroupfs and systemd, v1 and v2.

use std::{
    collections::BTreeMap,
    ffi::CString,
    fs,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::Duration,
};

use procfs::process::Process;
use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, open, openat, unlinkat},
    io::Errno,
};
use tokio::{task::spawn_blocking, time::sleep};

use crate::exits::pid;

/// Where a container's controllers are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cgroup {
    /// By controller.
    V1(BTreeMap<String, PathBuf>),
    V2(PathBuf),
}

impl Cgroup {
    /// The cgroups of `pid`, as this process sees them.
    ///
    /// # Errors
    /// If `/proc` cannot be read, or no hierarchy is mounted.
    pub fn of(pid: u32) -> anyhow::Result<Cgroup> {
        let groups = Process::new(i32::try_from(pid)?)?.cgroups()?.0;
        let mounts = Process::myself()?.mountinfo()?;
        let place = |pathname: &str, is_hierarchy: &dyn Fn(&procfs::process::MountInfo) -> bool| {
            mounts.iter().filter(|mount| is_hierarchy(mount)).find_map(|mount| {
                let below = Path::new(pathname).strip_prefix(&mount.root).ok()?;
                Some(mount.mount_point.join(below)).filter(|path| path.is_dir())
            })
        };
        let mut v1 = BTreeMap::new();
        for group in &groups {
            for controller in group.controllers.iter().filter(|name| !name.starts_with("name=")) {
                let found = place(&group.pathname, &|mount| {
                    mount.fs_type == "cgroup" && mount.super_options.contains_key(controller)
                });
                if let Some(path) = found {
                    v1.insert(controller.clone(), path);
                }
            }
        }
        // On a hybrid host the controllers are v1's.
        if v1.contains_key("memory") || v1.contains_key("cpu") {
            return Ok(Cgroup::V1(v1));
        }
        let unified = groups.iter().find(|group| group.hierarchy == 0);
        let path = unified.and_then(|group| place(&group.pathname, &|mount| mount.fs_type == "cgroup2"));
        Ok(Cgroup::V2(path.ok_or_else(|| anyhow::anyhow!("no cgroup hierarchy of process {pid} is mounted here"))?))
    }

    /// The cgroups that a spec names, as far as they are there.
    pub fn named(path: &str) -> Vec<PathBuf> {
        let Some(below) = below_root(path) else { return Vec::new() };
        let mounts = Process::myself().and_then(|own| own.mountinfo()).into_iter().flatten();
        let hierarchies = mounts.filter(|mount| mount.fs_type == "cgroup" || mount.fs_type == "cgroup2");
        hierarchies.map(|mount| mount.mount_point.join(&below)).filter(|path| path.is_dir()).collect()
    }

    /// The directory of a controller.
    pub fn directory(&self, controller: &str) -> Option<&Path> {
        match self {
            Cgroup::V1(controllers) => controllers.get(controller).map(PathBuf::as_path),
            Cgroup::V2(path) => Some(path),
        }
    }

    pub fn read(&self, controller: &str, file: &str) -> Option<String> {
        fs::read_to_string(self.directory(controller)?.join(file)).ok()
    }

    /// A file with one number; `max` is none.
    pub fn number(&self, controller: &str, file: &str) -> Option<u64> {
        self.read(controller, file)?.trim().parse().ok()
    }

    /// A file of lines `name value`.
    pub fn fields(&self, controller: &str, file: &str) -> BTreeMap<String, u64> {
        let text = self.read(controller, file).unwrap_or_default();
        let field = |line: &str| {
            let (name, value) = line.split_once(' ')?;
            Some((name.to_owned(), value.trim().parse().ok()?))
        };
        text.lines().filter_map(field).collect()
    }

    /// All processes of the container.
    pub fn pids(&self) -> Vec<u32> {
        // v1's cpu hierarchy has nested cgroups of threads: another one has all processes in one place.
        let directory = match self {
            Cgroup::V1(controllers) => {
                ["pids", "memory", "devices", "freezer"].iter().find_map(|name| controllers.get(*name)).cloned()
            }
            Cgroup::V2(path) => Some(path.clone()),
        };
        let Some(directory) = directory else { return Vec::new() };
        let mut pids = Vec::new();
        collect(&directory, &mut pids);
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    /// How many processes the kernel killed since memory was short.
    pub fn oom_kills(&self) -> u64 {
        let fields = match self {
            Cgroup::V1(_) => self.fields("memory", "memory.oom_control"),
            Cgroup::V2(_) => self.fields("memory", "memory.events"),
        };
        fields.get("oom_kill").copied().unwrap_or(0)
    }
}

/// Where the cgroup that a spec names is below the root of a hierarchy: `/PATH`, or `SLICE:PREFIX:NAME` of systemd, whose slices are nested by
/// the dashes in their names (systemd.slice(5)).
fn below_root(path: &str) -> Option<PathBuf> {
    if let Some(below) = path.strip_prefix('/') {
        return Some(below.into()).filter(|_| !below.is_empty());
    }
    let [slice, prefix, name] = path.split(':').collect::<Vec<_>>()[..] else { return None };
    let slice = slice.strip_suffix(".slice")?;
    let ends = slice.match_indices('-').map(|(end, _)| end).chain([slice.len()]);
    let mut below: PathBuf = ends.map(|end| format!("{}.slice", &slice[..end])).collect();
    below.push(format!("{prefix}-{name}.scope"));
    Some(below)
}

/// Kills what is in cgroups.
pub async fn kill(cgroups: Vec<PathBuf>) {
    let _ = spawn_blocking(move || kill_once(&cgroups)).await;
}

/// Kills what is left in cgroups, and removes them: for containers that the OCI runtime does not know, since it was killed itself. Nothing
/// bounds how many there are below.
pub async fn sweep(cgroups: Vec<PathBuf>) {
    /// The kernel drops ended processes late.
    const ATTEMPTS: u32 = 100;
    const PAUSE: Duration = Duration::from_millis(10);
    for _ in 0..ATTEMPTS {
        if !cgroups.iter().any(|cgroup| cgroup.exists()) {
            return;
        }
        let swept = cgroups.clone();
        let _ = spawn_blocking(move || sweep_once(&swept)).await;
        sleep(PAUSE).await;
    }
}

fn sweep_once(cgroups: &[PathBuf]) {
    kill_once(cgroups);
    cgroups.iter().for_each(|cgroup| remove(cgroup));
}

fn kill_once(cgroups: &[PathBuf]) {
    let mut pids = Vec::new();
    cgroups.iter().for_each(|cgroup| collect(cgroup, &mut pids));
    for pid in pids.into_iter().filter_map(pid) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

/// Those below it first.
fn remove(cgroup: &Path) {
    let _ = remove_below(cgroup);
    let _ = fs::remove_dir(cgroup);
}

/// Goes down to one without children, removes it from the one above, and so on: with one directory open at a time, and by names, since paths
/// may be longer than the kernel takes.
///
/// # Errors
/// The kernel's, for the first that cannot be removed.
pub fn remove_below(cgroup: &Path) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut names: Vec<CString> = Vec::new();
    let mut here = open(cgroup, flags, Mode::empty())?;
    loop {
        if let Some(name) = child(&here)? {
            here = openat(&here, &name, flags, Mode::empty())?;
            names.push(name);
        } else {
            let Some(name) = names.pop() else { return Ok(()) };
            here = openat(&here, c"..", flags, Mode::empty())?;
            unlinkat(&here, &name, AtFlags::REMOVEDIR)?;
        }
    }
}

fn child(directory: &OwnedFd) -> Result<Option<CString>, Errno> {
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if entry.file_type() == FileType::Directory && ![c".", c".."].contains(&entry.file_name()) {
            return Ok(Some(entry.file_name().to_owned()));
        }
    }
    Ok(None)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_both_drivers() {
        for (path, below) in [
            ("/kubepods/pod1/abc", "kubepods/pod1/abc"),
            (
                "kubepods-burstable-pod1_2.slice:cri-containerd:abc",
                "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice/cri-containerd-abc.scope",
            ),
            ("system.slice:runc:abc", "system.slice/runc-abc.scope"),
        ] {
            assert_eq!(below_root(path).as_deref(), Some(Path::new(below)), "{path}");
        }
        for path in ["", "/", "abc", "system.slice:abc", "system:runc:abc"] {
            assert_eq!(below_root(path), None, "{path:?}");
        }
    }
}
