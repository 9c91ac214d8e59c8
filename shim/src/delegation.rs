//! The `createRuntime` hook of a WasmBox: delegates one subtree of cgroups to the container, `<container cgroup>/box`, writable at
//! `/run/wasmbox/cgroup`. Nothing else of the cgroup filesystem becomes writable: the container cannot change its own limits.
//!
//! The OCI runtime calls it on the host, when the container's cgroup, namespaces and mounts exist and its process does not run yet. Only
//! then: an existing threaded child would make the runtime's own creation fail.

use std::{
    fs, io,
    os::{
        fd::{AsFd, AsRawFd},
        unix::fs::{DirBuilderExt, chown},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags, fstatfs, open, openat2},
    mount::{MountFlags, MoveMountFlags, OpenTreeFlags, mount_remount, move_mount, open_tree},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};
use serde::Deserialize;
use tokio::time::sleep;
use wasmbox_cgroup::{ProcessCgroups, tree::remove_below};
use wasmbox_oci::Spec;

use crate::{bundle::Bundle, thread};

/// The first argument with which this binary is the hook.
pub const ARGUMENT: &str = "delegate-cgroup";
/// The name of the subtree.
const NAME: &str = "box";
/// On v2, how many cgroups there may be below the container's, and how deep: the subtree, and one for each worker. The kernel's memory for
/// them counts for nobody.
const MOST: &str = "8192";
const DEPTH: &str = "2";
/// `f_type` of statfs(2).
const TMPFS: i64 = 0x0102_1994;

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
    let (uid, gid) = spec.host_user();
    let cgroup = ProcessCgroups::of(state.pid)?;
    let container = cgroup.directory("cpu").context("the container has no cgroup of the cpu controller")?;
    let subtree = make(&cgroup, container).with_context(|| container.join(NAME).display().to_string())?;
    if uid != 0 {
        own(&cgroup, container, &subtree, uid, gid)?;
    }
    mount(state.pid, &subtree, &root)
}

/// Makes the subtree, in which threads' cgroups with CPU limits can be made.
fn make(cgroup: &ProcessCgroups, container: &Path) -> anyhow::Result<PathBuf> {
    let subtree = container.join(NAME);
    fs::DirBuilder::new().mode(0o755).recursive(true).create(&subtree)?;
    if let ProcessCgroups::V2(_) = cgroup {
        fs::write(container.join("cgroup.max.descendants"), MOST).context("bounding their number")?;
        fs::write(container.join("cgroup.max.depth"), DEPTH).context("bounding their depth")?;
        fs::write(container.join("cgroup.subtree_control"), "+cpu").context("enabling the cpu controller")?;
        fs::write(subtree.join("cgroup.type"), "threaded").context("making it threaded")?;
        fs::write(subtree.join("cgroup.subtree_control"), "+cpu").context("enabling the cpu controller in it")?;
    }
    Ok(subtree)
}

/// CPU limits of a box's workers, lifted until [`LiftedQuotas::restore`]: on v1 the kernel refuses to lower a container's limit below one
/// that is nested in it. The container's own holds meanwhile.
#[derive(Debug, Default)]
pub struct LiftedQuotas(Vec<(PathBuf, String)>);

const NO_QUOTA: &str = "-1";

impl LiftedQuotas {
    /// On a thread of its own: a box may have made any number of them.
    pub async fn of(cgroup: ProcessCgroups) -> LiftedQuotas {
        let Some(subtree) = subtree(&cgroup).filter(|_| matches!(cgroup, ProcessCgroups::V1(_))) else {
            return LiftedQuotas::default();
        };
        thread::run(move || LiftedQuotas::below(&subtree)).await.unwrap_or_default()
    }

    fn below(subtree: &Path) -> LiftedQuotas {
        let leaves = fs::read_dir(subtree).into_iter().flatten().flatten();
        let quotas = leaves.filter_map(|leaf| {
            let path = leaf.path().join("cpu.cfs_quota_us");
            let quota = fs::read_to_string(&path).ok().filter(|quota| quota.trim() != NO_QUOTA)?;
            // A worker may have retired, and its leaf with it.
            fs::write(&path, NO_QUOTA).ok().map(|()| (path, quota))
        });
        LiftedQuotas(quotas.collect())
    }

    /// Those that the box has not set anew. One above the container's new limit is refused: that limit holds instead.
    pub async fn restore(self) {
        if self.0.is_empty() {
            return;
        }
        let restored = thread::run(move || {
            for (path, quota) in self.0 {
                if fs::read_to_string(&path).is_ok_and(|now| now.trim() == NO_QUOTA) {
                    let _ = fs::write(path, quota.trim());
                }
            }
        });
        let _ = restored.await;
    }
}

/// A box's subtree, if there is one.
fn subtree(cgroup: &ProcessCgroups) -> Option<PathBuf> {
    Some(cgroup.directory("cpu")?.join(NAME)).filter(|subtree| subtree.exists())
}

/// Gives it to the container's user: directory and files, except those that would undo its limits, which it has none of.
fn own(cgroup: &ProcessCgroups, container: &Path, subtree: &Path, uid: u32, gid: u32) -> anyhow::Result<()> {
    let give = |path: &Path| chown(path, Some(uid), Some(gid)).with_context(|| path.display().to_string());
    give(subtree)?;
    for entry in fs::read_dir(subtree)? {
        give(&entry?.path())?;
    }
    if let ProcessCgroups::V2(_) = cgroup {
        // To move a thread, the kernel asks for write permission on the nearest common ancestor's.
        give(&container.join("cgroup.procs"))?;
    }
    Ok(())
}

/// Binds the subtree in the container's mount namespace, over the tmpfs that the spec asks for there.
fn mount(pid: u32, subtree: &Path, root: &Path) -> anyhow::Result<()> {
    // As a detached copy, made here, since the path means nothing in the other namespace.
    let tree = open_tree(CWD, subtree, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)
        .context("open_tree")?;
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let namespace = open(format!("/proc/{pid}/ns/mnt"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount))
        .context("entering the container's mount namespace")?;
    // `/` is still the host's. Symlinks of the image, and of what is mounted in it, lead nowhere else than for the OCI runtime: what is
    // there must be what that has just mounted.
    let root = open(root, directory, Mode::empty()).with_context(|| root.display().to_string())?;
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let place = || openat2(&root, wasmbox_oci::CGROUP.trim_start_matches('/'), directory, Mode::empty(), inside);
    let target = place().context(wasmbox_oci::CGROUP)?;
    let kind = fstatfs(&target)?.f_type;
    anyhow::ensure!(kind == TMPFS, "{}: no tmpfs is mounted there (f_type {kind:#x})", wasmbox_oci::CGROUP);
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(&tree, "", &target, "", flags).with_context(|| format!("mounting at {}", wasmbox_oci::CGROUP))?;
    // The mount itself, by the descriptor with which it came.
    let mounted = format!("/proc/self/fd/{}", tree.as_raw_fd());
    let flags = MountFlags::BIND | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount_remount(&mounted, flags, "").with_context(|| format!("remounting {}", wasmbox_oci::CGROUP))
}

/// Removes what a container that has ended made in its subtree. On v1 nothing bounds how many there are, and how deep: paths may be longer
/// than the kernel takes, with which the OCI runtime would fail.
pub async fn clear(cgroup: ProcessCgroups) {
    /// The kernel drops ended processes late.
    const ATTEMPTS: u32 = 50;
    const PAUSE: Duration = Duration::from_millis(10);
    let Some(subtree) = subtree(&cgroup) else { return };
    for _ in 0..ATTEMPTS {
        let below = subtree.clone();
        let removed = thread::run(move || remove_below(&below)).await;
        if !subtree.exists() || matches!(removed, Some(Ok(()))) {
            return;
        }
        sleep(PAUSE).await;
    }
    log::warn!("{}: not all cgroups below could be removed", subtree.display());
}
