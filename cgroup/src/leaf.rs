//! A leaf: the cgroup of one thread.
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
//! - Each leaf weighs a tenth of one of its process's other threads, which are the leaves' siblings: else those that accept connections and
//!   carry everybody's bytes would get no more of the CPU than any one function that computes.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use rustix::{
    fs::{FlockOperation, Mode, OFlags},
    io::Errno,
};

use crate::{bandwidth::Bandwidth, file::field, hierarchy::Version, step::Step};

/// One leaf. Its directory is locked as long as this process lives, so that others can tell it from one that was left behind.
#[derive(Debug)]
pub struct Leaf {
    version: Version,
    name: String,
    dir: OwnedFd,
    quota: Arc<LeafQuota>,
    /// `cpu.stat`.
    stat: OwnedFd,
    set: Option<Bandwidth>,
}

/// A leaf's quota, which other threads may lift.
#[derive(Debug)]
pub struct LeafQuota {
    version: Version,
    /// `cpu.max` or `cpu.cfs_quota_us`.
    file: OwnedFd,
}

impl LeafQuota {
    fn write(&self, text: &str) -> Result<(), Errno> {
        write(&self.file, text)
    }

    /// No quota any more. The leaf is then to be told, by [`Leaf::forget`].
    ///
    /// # Errors
    /// The kernel's.
    pub fn lift(&self) -> Result<(), Errno> {
        self.write(match self.version {
            Version::V1 => "-1",
            Version::V2 => "max",
        })
    }
}

/// Whether a quota could be set as it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Set {
    AsAsked,
    /// It is above the container's own limit, which holds instead.
    Clamped,
}

impl Leaf {
    /// Opens the directory `name` in `root`, which is there, and makes it ready for a thread. An error comes with the step, and with the file's
    /// path below `root`.
    pub(crate) fn open(version: Version, root: &OwnedFd, name: &str) -> Result<Leaf, (Step, String, Errno)> {
        let error = |step, path: &str| {
            let path = path.to_owned();
            move |errno| (step, path, errno)
        };
        let dir = rustix::fs::openat(
            root,
            name,
            OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW,
            Mode::empty(),
        )
        .map_err(error(Step::Open, name))?;
        rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive).map_err(error(Step::Open, name))?;
        if version == Version::V2 {
            write_at(&dir, "cgroup.type", "threaded").map_err(error(Step::MakeThreaded, name))?;
        }
        // The defaults, and what a thread outside of a leaf weighs, are 1024 and 100.
        let (weight, tenth, quota) = match version {
            Version::V1 => ("cpu.shares", "102", "cpu.cfs_quota_us"),
            Version::V2 => ("cpu.weight", "10", "cpu.max"),
        };
        write_at(&dir, weight, tenth).map_err(error(Step::SetWeight, &format!("{name}/{weight}")))?;
        let path = format!("{name}/{quota}");
        let quota = open_at(&dir, quota, OFlags::WRONLY).map_err(error(Step::OpenQuota, &path))?;
        let path = format!("{name}/cpu.stat");
        let stat = open_at(&dir, "cpu.stat", OFlags::RDONLY).map_err(error(Step::OpenQuota, &path))?;
        let quota = Arc::new(LeafQuota { version, file: quota });
        Ok(Leaf { version, name: name.to_owned(), dir, quota, stat, set: None })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// What was last set; `None` if that failed, or nothing was.
    #[inline]
    pub fn bandwidth(&self) -> Option<Bandwidth> {
        self.set
    }

    /// What others lift its quota with.
    pub fn quota(&self) -> Arc<LeafQuota> {
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
        match self.version {
            Version::V1 => field(text, "throttled_time").map(Duration::from_nanos),
            Version::V2 => field(text, "throttled_usec").map(Duration::from_micros),
        }
    }
}

/// Puts the calling thread into the cgroup `dir`.
pub(crate) fn join(version: Version, dir: &OwnedFd) -> Result<(), Errno> {
    let file = match version {
        Version::V1 => "tasks",
        Version::V2 => "cgroup.threads",
    };
    write_at(dir, file, "0")
}

pub(crate) fn open_at(dir: &OwnedFd, name: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(dir, name, flags | OFlags::CLOEXEC, Mode::empty())
}

pub(crate) fn write_at(dir: &OwnedFd, name: &str, text: &str) -> Result<(), Errno> {
    write(&open_at(dir, name, OFlags::WRONLY)?, text)
}

pub(crate) fn read_at(dir: &OwnedFd, name: &str) -> Result<String, Errno> {
    let file = open_at(dir, name, OFlags::RDONLY)?;
    io::read_to_string(std::fs::File::from(file)).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

/// One write, since the kernel takes each as a whole value.
fn write(file: &impl AsFd, text: &str) -> Result<(), Errno> {
    rustix::io::pwrite(file, text.as_bytes(), 0).map(drop)
}
