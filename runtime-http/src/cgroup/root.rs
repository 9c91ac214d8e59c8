//! Where leaves are made: the first of a few places in which all of it works, tried by doing it.

use std::{fmt, io::ErrorKind, path::Path};

use rustix::io::Errno;
use wasmbox_cgroup::{Bandwidth, Cgroup, LeafError, NotFound, Root, Step, root::ProbeError};

use crate::{limits::CpuQuota, threads};

/// Where the container runtime's hook puts the subtree that is delegated to a box.
pub const DELEGATED: &str = "/run/wasmbox/cgroup";
/// Where the original's manifests mount the host's cgroups.
pub const HOST_VOLUME: &str = "/data";

/// Why there can be no leaves, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Impossible {
    #[error("{0}; {remedy}", remedy = Remedy::Other)]
    NotFound(#[from] NotFound),
    #[error("{error}; {remedy}")]
    Step { error: LeafError, remedy: Remedy },
    #[error("the probe's thread could not be started: {0}; {remedy}", remedy = threads::REMEDY)]
    Thread(std::io::Error),
}

/// What an operator can do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    ReadOnly,
    Permission,
    DomainController,
    NoController,
    Other,
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Remedy::ReadOnly => {
                "cgroups are mounted read-only here, as in most containers: run the pod with the wasmbox runtime class, which delegates \
                 a subtree at /run/wasmbox/cgroup, or name a writable one with --cgroup-root (CGROUP_ROOT)"
            }
            Remedy::Permission => {
                "this user may not write there: have the subtree and its files belong to it (on cgroup v2 also the cgroup.procs of the \
                 container's own cgroup), as the wasmbox runtime class does, or run as root"
            }
            Remedy::DomainController => {
                "threads can have cgroups of their own only below a cgroup in whose cgroup.subtree_control neither memory nor io is \
                 enabled: name another one with --cgroup-root (CGROUP_ROOT)"
            }
            Remedy::NoController => {
                "the cpu controller is not there: enable it in the parent's cgroup.subtree_control, and use a kernel with \
                 CONFIG_CFS_BANDWIDTH"
            }
            Remedy::Other => "name another cgroup with --cgroup-root (CGROUP_ROOT), or run without CPU limits: ENABLE_CGROUPS=false",
        })
    }
}

impl From<LeafError> for Impossible {
    fn from(error: LeafError) -> Self {
        let remedy = match error.errno {
            Errno::ROFS => Remedy::ReadOnly,
            Errno::ACCESS | Errno::PERM => Remedy::Permission,
            Errno::OPNOTSUPP | Errno::BUSY => Remedy::DomainController,
            Errno::NOENT if error.step != Step::Create => Remedy::NoController,
            _ => Remedy::Other,
        };
        Impossible::Step { error, remedy }
    }
}

impl From<ProbeError> for Impossible {
    fn from(error: ProbeError) -> Self {
        match error {
            ProbeError::Step(error) => error.into(),
            ProbeError::Thread(error) => Impossible::Thread(error),
        }
    }
}

/// Finds the place: `named`, or else the delegated subtree, the host's cgroups at `/data`, this process's own cgroup, whichever is there
/// first.
///
/// # Errors
/// [`NotFound`].
pub fn place(named: Option<&Path>, pod_uid: Option<&str>) -> Result<Cgroup, NotFound> {
    match named {
        Some(path) => Cgroup::at(path, "cpu"),
        None => match Cgroup::at(Path::new(DELEGATED), "cpu") {
            Ok(delegated) => Ok(delegated),
            Err(NotFound::Io { path, source }) if source.kind() != ErrorKind::NotFound => {
                Err(NotFound::Io { path, source })
            }
            Err(_) => match Cgroup::at(Path::new(HOST_VOLUME), "cpu") {
                Ok(host) => host.own_below(pod_uid),
                Err(_) => Cgroup::own("cpu"),
            },
        },
    }
}

/// Opens the [`place`]. What is a cgroup there must work: a delegated subtree that does not is not passed over in silence.
///
/// # Errors
/// [`Impossible`].
pub fn find(named: Option<&Path>, pod_uid: Option<&str>) -> Result<Root, Impossible> {
    let cgroup = place(named, pod_uid)?;
    let root = Root::open(cgroup.version, cgroup.path)?;
    root.probe(Bandwidth::of(CpuQuota::DEFAULT.millicores(), super::DEFAULT_PERIOD))?;
    Ok(root)
}
