//! CPU limits of invocations: each worker thread in a cgroup of its own, below the container's.
//!
//! The kernel divides CPU time between threads as it does between containers; so an invocation's limit holds against all others, and
//! below the container's own. Memory is limited in the sandbox, not here. Whether cgroups can be nested depends on where the box runs:
//! it is found out at the start, by doing it.
//!
//! How cgroups are found, and each write to the kernel's files, is the crate `wasmbox-cgroup`, which the shim has, too. Here is what the box
//! does with it:
//!
//! - [`root`]: chooses the cgroup to nest in, and says what to do where there is none
//! - [`mod@thread`]: what a worker does before and after an invocation; [`reaper`]: removes what was left

mod reaper;
pub mod root;
pub mod thread;

use std::{
    fmt,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use rustix::io::Errno;
use wasmbox_cgroup::{Bandwidth, Leaf, LeafError, Root, Step, Version, leaf::Set, root::PREFIX};

use self::{reaper::Reaper, root::Impossible, thread::ThreadCgroup};
use crate::{limits::CpuQuota, metrics::CgroupMetrics, threads};

/// A period in which a short function fits into one budget: see docs/operations.md.
pub const DEFAULT_PERIOD: Duration = Duration::from_millis(100);

/// Whether CPU limits are enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Enable {
    /// The box does not start without.
    True,
    /// No limits.
    False,
    /// Where it can be; a warning where not.
    Auto,
}

/// Which cgroup an invocation runs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// Its worker's, which stays.
    Pinned,
    /// One made for it and removed after it, as the original did: for comparison.
    Fresh,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CgroupSettings {
    pub enable: Enable,
    pub mode: Mode,
    pub root: Option<PathBuf>,
    pub pod_uid: Option<String>,
    pub period: Duration,
}

#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    #[error("CPU limits cannot be enforced: {0}")]
    Impossible(#[from] Impossible),
    #[error("the thread that removes cgroups could not be started: {0}; {remedy}", remedy = threads::REMEDY)]
    Thread(#[from] std::io::Error),
}

/// Makes the cgroups of workers. Dropping the last part of it removes all leaves.
#[derive(Debug, Clone)]
pub struct Cgroups {
    nested: Option<Arc<Nested>>,
}

#[derive(Debug)]
struct Nested {
    root: Arc<Root>,
    reaper: Reaper,
    mode: Mode,
    period: Duration,
    number: AtomicU64,
    clamp_reported: AtomicBool,
    metrics: CgroupMetrics,
}

impl Cgroups {
    /// Finds out what is possible.
    ///
    /// # Errors
    /// [`CgroupError`], if cgroups must be and cannot be.
    pub fn start(settings: &CgroupSettings, metrics: CgroupMetrics) -> Result<Cgroups, CgroupError> {
        let none = Cgroups { nested: None };
        if settings.enable == Enable::False {
            return Ok(none);
        }
        let root = match root::find(settings.root.as_deref(), settings.pod_uid.as_deref()) {
            Ok(root) => Arc::new(root),
            Err(error) if settings.enable == Enable::Auto => {
                tracing::warn!("Cpu-Quota is not enforced: {error}");
                return Ok(none);
            }
            Err(error) => return Err(error.into()),
        };
        let stale = root.remove_stale();
        if stale > 0 {
            tracing::info!(path = %root.path.display(), "removed {stale} cgroups that a killed box had left");
        }
        let reaper = Reaper::start(root.clone(), metrics.remove.clone())?;
        let nested = Nested {
            root,
            reaper,
            mode: settings.mode,
            period: settings.period,
            number: AtomicU64::new(0),
            clamp_reported: AtomicBool::new(false),
            metrics,
        };
        Ok(Cgroups { nested: Some(Arc::new(nested)) })
    }

    /// What a thread must do that may have been started by a worker: it leaves that worker's leaf.
    pub fn leave(&self) -> impl Fn() + Send + Sync + 'static {
        // Not all of this: such a thread may stay for ever, and leaves are removed before that.
        let root = self.nested.as_ref().map(|nested| nested.root.clone());
        move || {
            if let Some(root) = &root {
                // One that stays has that worker's limit, and keeps its leaf from being removed; both end with the thread.
                let _ = root.join();
            }
        }
    }

    pub fn are_there(&self) -> bool {
        self.nested.is_some()
    }

    /// What enforces `quota`; `None` if there are no cgroups.
    pub fn bandwidth(&self, quota: CpuQuota) -> Option<Bandwidth> {
        self.nested.as_ref().map(|nested| Bandwidth::of(quota.millicores(), nested.period))
    }

    /// For the calling thread.
    pub fn thread(&self) -> ThreadCgroup {
        ThreadCgroup::new(self.nested.clone())
    }
}

/// `none`, or for instance `v1, pinned, /sys/fs/cgroup/cpu/box`.
impl fmt::Display for Cgroups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(nested) = &self.nested else { return f.write_str("none") };
        let version = match nested.root.version {
            Version::V1 => "v1",
            Version::V2 => "v2",
        };
        let mode = match nested.mode {
            Mode::Pinned => "pinned",
            Mode::Fresh => "fresh",
        };
        write!(f, "{version}, {mode}, {}", nested.root.path.display())
    }
}

impl Nested {
    fn next_name(&self) -> String {
        format!("{PREFIX}{}-{}", std::process::id(), self.number.fetch_add(1, Ordering::Relaxed))
    }

    fn error(&self, step: Step, leaf: &Leaf, errno: Errno) -> LeafError {
        self.root.error(step, leaf.name(), errno)
    }

    fn set(&self, leaf: &mut Leaf, bandwidth: Bandwidth) -> Result<(), LeafError> {
        match leaf.set(bandwidth) {
            Ok(Set::AsAsked) => Ok(()),
            Ok(Set::Clamped) => {
                if !self.clamp_reported.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        cgroup = %self.root.path.display(),
                        "a Cpu-Quota is above the container's own CPU limit, which holds instead; this is said once"
                    );
                }
                Ok(())
            }
            Err(errno) => Err(self.error(Step::SetQuota, leaf, errno)),
        }
    }
}
