//! The cgroup in which leaves are made: making and removing them, and trying once whether all of it works.

use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use rustix::{
    fs::{AtFlags, FlockOperation, Mode, OFlags},
    io::Errno,
};

use crate::{
    bandwidth::Bandwidth,
    hierarchy::Version,
    leaf::{Leaf, join, open_at, read_at, write_at},
    step::{LeafError, Step},
};

/// The names of leaves begin so; all that bear one are leaves and nothing else.
pub const PREFIX: &str = "wasmbox-";

/// The directory in which leaves are made.
#[derive(Debug)]
pub struct Root {
    pub version: Version,
    pub path: PathBuf,
    dir: OwnedFd,
}

/// Why limits of threads do not work here.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error(transparent)]
    Step(#[from] LeafError),
    #[error("the probe's thread could not be started: {0}")]
    Thread(std::io::Error),
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

    /// What went wrong in the leaf, or its file, `name`.
    pub fn error(&self, step: Step, name: &str, errno: Errno) -> LeafError {
        LeafError { step, path: self.path.join(name), errno }
    }

    /// Makes a leaf, with the first of `names` that no living process has: processes in different containers may have the same number,
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
            Err(errno) => return Err(self.error(Step::Create, name, errno)),
        };
        Leaf::open(self.version, &self.dir, name)
            .map_err(|(step, path, errno)| self.error(step, &path, errno))
            .inspect_err(|_| {
                if made {
                    let _ = rustix::fs::unlinkat(&self.dir, name, AtFlags::REMOVEDIR);
                }
            })
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
            Err(errno) => Err(self.error(Step::Remove, name, errno)),
        }
    }

    /// Removes a leaf that its thread has left: the kernel lets go of an ended one a little late.
    ///
    /// # Errors
    /// [`LeafError`], after about two seconds.
    pub fn remove_patiently(&self, name: &str) -> Result<(), LeafError> {
        let mut pause = Duration::from_micros(100);
        loop {
            match self.remove(name) {
                Err(LeafError { errno: Errno::BUSY, .. }) if pause < Duration::from_secs(1) => {
                    thread::sleep(pause);
                    pause *= 2;
                }
                result => return result,
            }
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

    /// Does all that is done for a thread, on one of its own, whose end also ends its stay in the leaf.
    ///
    /// # Errors
    /// [`ProbeError`]: the first step that does not work.
    pub fn probe(&self, bandwidth: Bandwidth) -> Result<(), ProbeError> {
        let mut number = 0;
        let mut leaf = self.create(|| {
            number += 1;
            format!("{PREFIX}{}-probe-{number}", std::process::id())
        })?;
        let name = leaf.name().to_owned();
        let tried = thread::scope(|scope| {
            let attempt = || {
                leaf.set(bandwidth).map_err(|errno| self.error(Step::SetQuota, &name, errno))?;
                leaf.join().map_err(|errno| self.error(Step::Join, &name, errno))?;
                self.join()
            };
            let thread = thread::Builder::new().name("cgroup-probe".into()).spawn_scoped(scope, attempt);
            match thread.map(thread::ScopedJoinHandle::join) {
                Ok(Ok(result)) => result.map_err(ProbeError::from),
                Ok(Err(panic)) => std::panic::resume_unwind(panic),
                Err(error) => Err(ProbeError::Thread(error)),
            }
        });
        let removed = self.remove_patiently(&name);
        tried?;
        Ok(removed?)
    }
}
