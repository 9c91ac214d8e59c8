//! The `createRuntime` hook of a WasmBox: delegates one subtree of cgroups to the container, `<container cgroup>/box`, writable at
//! `/run/wasmbox/cgroup`. Nothing else of the cgroup filesystem becomes writable: the container cannot change its own limits.
//!
//! The OCI runtime calls it on the host, when the container's cgroup, namespaces and mounts exist and its process does not run yet. Only
//! then: an existing threaded child would make the runtime's own creation fail.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, chown},
    path::{Path, PathBuf},
};

use anyhow::Context;
use rustix::{
    fs::{CWD, Mode, OFlags},
    mount::{MoveMountFlags, OpenTreeFlags},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};
use serde::Deserialize;
use wasmbox_oci::Spec;

use crate::{bundle::Bundle, cgroup::Cgroup};

/// The first argument with which this binary is the hook.
pub const ARGUMENT: &str = "delegate-cgroup";
/// The name of the subtree.
const NAME: &str = "box";
/// Where the container sees it.
const TARGET: &str = "run/wasmbox/cgroup";

/// The state that the runtime writes to a hook's standard input (OCI runtime specification).
#[derive(Debug, Deserialize)]
struct State {
    pid: u32,
    bundle: PathBuf,
}

pub fn delegate() -> anyhow::Result<()> {
    let state: State = serde_json::from_reader(io::stdin()).context("the container's state on standard input")?;
    let bundle = Bundle::new(state.bundle);
    let spec = Spec::parse(&bundle.read_config()?)?;
    let root = spec.root_path().map_or_else(|| bundle.rootfs(), |root| bundle.path().join(root));
    let (uid, gid) = spec.user();
    let cgroup = Cgroup::of(state.pid)?;
    let container = cgroup.directory("cpu").context("the container has no cgroup of the cpu controller")?;
    let subtree = make(&cgroup, container).with_context(|| container.join(NAME).display().to_string())?;
    if uid != 0 {
        own(&cgroup, container, &subtree, uid, gid)?;
    }
    mount(state.pid, &subtree, &root)
}

/// Makes the subtree, in which threads' cgroups with CPU limits can be made.
fn make(cgroup: &Cgroup, container: &Path) -> anyhow::Result<PathBuf> {
    let subtree = container.join(NAME);
    fs::DirBuilder::new().mode(0o755).recursive(true).create(&subtree)?;
    if let Cgroup::V2(_) = cgroup {
        fs::write(container.join("cgroup.subtree_control"), "+cpu").context("enabling the cpu controller")?;
        fs::write(subtree.join("cgroup.type"), "threaded").context("making it threaded")?;
        fs::write(subtree.join("cgroup.subtree_control"), "+cpu").context("enabling the cpu controller in it")?;
    }
    Ok(subtree)
}

/// CPU limits of a box's workers, lifted until [`LiftedQuotas::restore`]: on v1 the kernel refuses to lower a container's limit below one
/// that is nested in it. The container's own holds meanwhile.
pub struct LiftedQuotas(Vec<(PathBuf, String)>);

const NO_QUOTA: &str = "-1";

impl LiftedQuotas {
    pub fn of(cgroup: &Cgroup) -> LiftedQuotas {
        let Cgroup::V1(_) = cgroup else { return LiftedQuotas(Vec::new()) };
        let Some(container) = cgroup.directory("cpu") else { return LiftedQuotas(Vec::new()) };
        let leaves = fs::read_dir(container.join(NAME)).into_iter().flatten().flatten();
        let quotas = leaves.filter_map(|leaf| {
            let path = leaf.path().join("cpu.cfs_quota_us");
            let quota = fs::read_to_string(&path).ok().filter(|quota| quota.trim() != NO_QUOTA)?;
            // A worker may have retired, and its leaf with it.
            fs::write(&path, NO_QUOTA).ok().map(|()| (path, quota))
        });
        LiftedQuotas(quotas.collect())
    }

    /// Those that the box has not set anew. One above the container's new limit is refused: that limit holds instead.
    pub fn restore(self) {
        for (path, quota) in self.0 {
            if fs::read_to_string(&path).is_ok_and(|now| now.trim() == NO_QUOTA) {
                let _ = fs::write(path, quota.trim());
            }
        }
    }
}

/// Gives it to the container's user: directory and files, except those that would undo its limits, which it has none of.
fn own(cgroup: &Cgroup, container: &Path, subtree: &Path, uid: u32, gid: u32) -> anyhow::Result<()> {
    let give = |path: &Path| chown(path, Some(uid), Some(gid)).with_context(|| path.display().to_string());
    give(subtree)?;
    for entry in fs::read_dir(subtree)? {
        give(&entry?.path())?;
    }
    if let Cgroup::V2(_) = cgroup {
        // To move a thread, the kernel asks for write permission on the nearest common ancestor's.
        give(&container.join("cgroup.procs"))?;
    }
    Ok(())
}

/// Binds the subtree in the container's mount namespace.
fn mount(pid: u32, subtree: &Path, root: &Path) -> anyhow::Result<()> {
    // As a detached copy, made here, since the path means nothing in the other namespace.
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = rustix::mount::open_tree(CWD, subtree, flags).context("open_tree")?;
    let namespace = rustix::fs::open(format!("/proc/{pid}/ns/mnt"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), Some(LinkNameSpaceType::Mount))
        .context("entering the container's mount namespace")?;
    let target = root.join(TARGET);
    fs::create_dir_all(&target).with_context(|| target.display().to_string())?;
    rustix::mount::move_mount(&tree, "", CWD, &target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .with_context(|| format!("mounting at {}", target.display()))?;
    let flags = rustix::mount::MountFlags::BIND
        | rustix::mount::MountFlags::NOSUID
        | rustix::mount::MountFlags::NODEV
        | rustix::mount::MountFlags::NOEXEC;
    rustix::mount::mount_remount(&target, flags, "").with_context(|| format!("remounting {}", target.display()))
}
