//! A leaf: the cgroup of one thread. All writes to the kernel's files are here.
//!
//! What `libcgroups` offers attaches whole processes and ends all that is in a nested cgroup when it is removed; so threads' leaves
//! are written by hand. The reasons behind the details:
//!
//! - A thread joins by writing `0`, which means itself. A numeric id takes a lock of the whole thread group, which after some idle time
//!   waits for an RCU grace period: 10 ms.
//! - v2: a new child of a threaded domain takes no threads until `threaded` was written to its `cgroup.type`.
//! - v1 keeps quota and period in two files, and checks their ratio against the parent's at each write: first no quota, then the
//!   period, then the quota. A quota above the parent's is `EINVAL`; with none of its own the parent's holds. v2 takes both at once, and
//!   any value.
//! - Writing a quota, even the same one, fills the leaf's budget and ends its throttling.
//! - Each leaf weighs a tenth of one of the box's own threads, which are the leaves' siblings: else those that accept connections and carry
//!   everybody's bytes would get no more of the CPU than any one function that computes.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustix::{
    fs::{AtFlags, FlockOperation, Mode, OFlags},
    io::Errno,
};

use super::{bandwidth::Bandwidth, hierarchy::Version};
use crate::invocation::QuotaLift;

/// What a step on the way to a limited thread was, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Open,
    EnableCpu,
    Create,
    MakeThreaded,
    OpenQuota,
    SetQuota,
    SetWeight,
    Join,
    Leave,
    Remove,
}

impl Step {
    fn as_str(self) -> &'static str {
        match self {
            Step::Open => "opening the cgroup",
            Step::EnableCpu => "enabling the cpu controller in",
            Step::Create => "creating the cgroup",
            Step::MakeThreaded => "making threaded",
            Step::OpenQuota => "opening the quota",
            Step::SetQuota => "setting the quota",
            Step::SetWeight => "setting the weight",
            Step::Join => "joining",
            Step::Leave => "returning to",
            Step::Remove => "removing the cgroup",
        }
    }
}

/// Which step failed, on which path, and how.
#[derive(Debug, thiserror::Error)]
#[error("{} {}: {errno}", step.as_str(), path.display())]
pub struct LeafError {
    pub step: Step,
    pub path: PathBuf,
    pub errno: Errno,
}

/// The names of leaves begin so; all that bear one are boxes' and nobody else's.
pub const PREFIX: &str = "wasmbox-";

/// The directory in which leaves are made.
#[derive(Debug)]
pub struct Root {
    pub version: Version,
    pub path: PathBuf,
    dir: OwnedFd,
}

/// One leaf. Its directory is locked as long as this process lives, so that others can tell it from one that was left behind.
#[derive(Debug)]
pub struct Leaf {
    version: Version,
    name: String,
    dir: OwnedFd,
    quota: Arc<QuotaFile>,
    /// `cpu.stat`.
    stat: OwnedFd,
    set: Option<Bandwidth>,
}

/// A leaf's quota, which other threads may lift.
#[derive(Debug)]
struct QuotaFile {
    version: Version,
    /// `cpu.max` or `cpu.cfs_quota_us`.
    file: OwnedFd,
}

impl QuotaFile {
    fn write(&self, text: &str) -> Result<(), Errno> {
        write(&self.file, text)
    }
}

impl QuotaLift for QuotaFile {
    /// The leaf is then to be told, by [`Leaf::forget`].
    fn lift(&self) {
        let unlimited = match self.version {
            Version::V1 => "-1",
            Version::V2 => "max",
        };
        if let Err(errno) = self.write(unlimited) {
            tracing::debug!("a quota cannot be lifted: {errno}");
        }
    }
}

/// Whether a quota could be set as it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Set {
    AsAsked,
    /// It is above the container's own limit, which holds instead.
    Clamped,
}

impl Root {
    /// Opens `path`, and on v2 sees to it that its children can have CPU limits.
    ///
    /// # Errors
    /// [`LeafError`], if that is not possible.
    pub fn open(version: Version, path: PathBuf) -> Result<Root, LeafError> {
        let error = |step, path: &Path| {
            let path = path.to_owned();
            move |errno| LeafError { step, path, errno }
        };
        let dir = rustix::fs::open(&path, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(error(Step::Open, &path))?;
        let root = Root { version, path, dir };
        if version == Version::V2 {
            let control = "cgroup.subtree_control";
            let enabled = read_at(&root.dir, control).map_err(error(Step::EnableCpu, &root.path.join(control)))?;
            if !enabled.split_whitespace().any(|name| name == "cpu") {
                write_at(&root.dir, control, "+cpu").map_err(error(Step::EnableCpu, &root.path.join(control)))?;
            }
        }
        Ok(root)
    }

    fn error(&self, step: Step, name: &str) -> impl FnOnce(Errno) -> LeafError {
        let path = self.path.join(name);
        move |errno| LeafError { step, path, errno }
    }

    /// Makes a leaf, with the first of `names` that no living process has: boxes in different containers may have the same process number,
    /// and share a root.
    ///
    /// # Errors
    /// [`LeafError`]; nothing is left then.
    pub fn create(&self, mut names: impl FnMut() -> String) -> Result<Leaf, LeafError> {
        loop {
            match self.create_named(&names()) {
                Err(LeafError { errno: Errno::WOULDBLOCK, .. }) => {}
                result => return result,
            }
        }
    }

    fn create_named(&self, name: &str) -> Result<Leaf, LeafError> {
        debug_assert!(name.starts_with(PREFIX));
        let made = match rustix::fs::mkdirat(&self.dir, name, Mode::from_bits_truncate(0o755)) {
            Ok(()) => true,
            // Of an earlier process with the same number, or of a living one, whose lock will tell.
            Err(Errno::EXIST) => false,
            Err(errno) => return Err(self.error(Step::Create, name)(errno)),
        };
        self.open_leaf(name).inspect_err(|_| {
            if made {
                let _ = rustix::fs::unlinkat(&self.dir, name, AtFlags::REMOVEDIR);
            }
        })
    }

    fn open_leaf(&self, name: &str) -> Result<Leaf, LeafError> {
        let dir = rustix::fs::openat(
            &self.dir,
            name,
            OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW,
            Mode::empty(),
        )
        .map_err(self.error(Step::Open, name))?;
        rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive).map_err(self.error(Step::Open, name))?;
        if self.version == Version::V2 {
            write_at(&dir, "cgroup.type", "threaded").map_err(self.error(Step::MakeThreaded, name))?;
        }
        // The defaults, and what a thread outside of a leaf weighs, are 1024 and 100.
        let (weight, tenth, quota) = match self.version {
            Version::V1 => ("cpu.shares", "102", "cpu.cfs_quota_us"),
            Version::V2 => ("cpu.weight", "10", "cpu.max"),
        };
        let path = format!("{name}/{weight}");
        write_at(&dir, weight, tenth).map_err(self.error(Step::SetWeight, &path))?;
        let path = format!("{name}/{quota}");
        let quota = open_at(&dir, quota, OFlags::WRONLY).map_err(self.error(Step::OpenQuota, &path))?;
        let path = format!("{name}/cpu.stat");
        let stat = open_at(&dir, "cpu.stat", OFlags::RDONLY).map_err(self.error(Step::OpenQuota, &path))?;
        let quota = Arc::new(QuotaFile { version: self.version, file: quota });
        Ok(Leaf { version: self.version, name: name.to_owned(), dir, quota, stat, set: None })
    }

    /// Takes the calling thread out of its leaf.
    ///
    /// # Errors
    /// [`LeafError`].
    pub fn join(&self) -> Result<(), LeafError> {
        join(self.version, &self.dir).map_err(|errno| LeafError { step: Step::Leave, path: self.path.clone(), errno })
    }

    /// Removes a leaf that no thread is in any more.
    ///
    /// # Errors
    /// [`LeafError`]: `EBUSY` as long as the kernel has not quite let go of a thread that ended.
    pub fn remove(&self, name: &str) -> Result<(), LeafError> {
        match rustix::fs::unlinkat(&self.dir, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(self.error(Step::Remove, name)(errno)),
        }
    }

    /// Removes the leaves that processes left behind that were killed; those of living ones are locked.
    pub fn remove_stale(&self) -> usize {
        let Ok(entries) = rustix::fs::Dir::read_from(&self.dir) else { return 0 };
        let stale = |name: &str| {
            let dir = open_at(&self.dir, name, OFlags::DIRECTORY).ok()?;
            rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive).ok()?;
            self.remove(name).ok()
        };
        let names = entries.flatten().filter_map(|entry| entry.file_name().to_str().ok().map(str::to_owned));
        names.filter(|name| name.starts_with(PREFIX)).filter_map(|name| stale(&name)).count()
    }
}

impl Leaf {
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What was last set; `None` if that failed, or nothing was.
    pub fn bandwidth(&self) -> Option<Bandwidth> {
        self.set
    }

    /// What others lift its quota with.
    pub fn lift(&self) -> Arc<dyn QuotaLift> {
        self.quota.clone()
    }

    /// Somebody else has set another quota.
    pub fn forget(&mut self) {
        self.set = None;
    }

    /// Puts the calling thread here.
    ///
    /// # Errors
    /// The kernel's: see cgroups(7).
    pub fn join(&self) -> Result<(), Errno> {
        join(self.version, &self.dir)
    }

    /// Sets the quota and fills the budget.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set(&mut self, bandwidth: Bandwidth) -> Result<Set, Errno> {
        let before = self.set.replace(bandwidth);
        match self.version {
            Version::V2 => self.quota.write(&bandwidth.v2()).map(|()| Set::AsAsked),
            Version::V1 => {
                if before.is_none_or(|before| before.period_us != bandwidth.period_us) {
                    self.quota.write("-1")?;
                    write_at(&self.dir, "cpu.cfs_period_us", itoa::Buffer::new().format(bandwidth.period_us))?;
                }
                let Some(quota) = bandwidth.quota_us else { return self.quota.write("-1").map(|()| Set::AsAsked) };
                match self.quota.write(itoa::Buffer::new().format(quota)) {
                    Ok(()) => Ok(Set::AsAsked),
                    Err(Errno::INVAL) => self.quota.write("-1").map(|()| Set::Clamped),
                    Err(errno) => Err(errno),
                }
            }
        }
        .inspect_err(|_| self.set = None)
    }

    /// For how long this leaf's thread was kept from running by its quota, in sum; wall-clock time.
    pub fn throttled(&self) -> Option<Duration> {
        let mut text = [0; 1024];
        let length = rustix::io::pread(&self.stat, &mut text, 0).ok()?;
        let text = std::str::from_utf8(&text[..length]).ok()?;
        let field =
            |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().parse::<u64>().ok());
        match self.version {
            Version::V1 => field("throttled_time").map(Duration::from_nanos),
            Version::V2 => field("throttled_usec").map(Duration::from_micros),
        }
    }
}

fn join(version: Version, dir: &OwnedFd) -> Result<(), Errno> {
    let file = match version {
        Version::V1 => "tasks",
        Version::V2 => "cgroup.threads",
    };
    write_at(dir, file, "0")
}

fn open_at(dir: &OwnedFd, name: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(dir, name, flags | OFlags::CLOEXEC, Mode::empty())
}

fn write_at(dir: &OwnedFd, name: &str, text: &str) -> Result<(), Errno> {
    write(&open_at(dir, name, OFlags::WRONLY)?, text)
}

fn read_at(dir: &OwnedFd, name: &str) -> Result<String, Errno> {
    let file = open_at(dir, name, OFlags::RDONLY)?;
    io::read_to_string(std::fs::File::from(file)).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

/// One write, since the kernel takes each as a whole value.
fn write(file: &impl AsFd, text: &str) -> Result<(), Errno> {
    rustix::io::pwrite(file, text.as_bytes(), 0).map(drop)
}
