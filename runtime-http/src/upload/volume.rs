//! The directory of functions as uploads use it: beside the functions, a directory of the box's own that is never served.
//!
//! ```text
//! hello.wasm  hello.toml                                          what serves
//! .wasmbox/lock                                                   locked while a function is changed
//!   uploads/ID/lock  version/                                     what arrives; locked until that has ended
//!   history/hello/00000003-ETAG/hello.wasm  hello.toml            an earlier version, or the one that serves
//! ```
//!
//! Several boxes may have the same directory: the locks are those of files (flock(2)), and go with whoever holds them.

use std::{
    collections::HashSet,
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant, SystemTime},
};

use rustix::{
    fs::{self, AtFlags, FileType, Mode, OFlags},
    io::Errno,
};

use super::{UploadError, beneath};
use crate::store::file::{FunctionsDir, stem};

/// No module's name starts with a dot.
const PRIVATE: &str = ".wasmbox";
const LOCK: &str = "lock";
/// How long a change waits for others'.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(10);

/// Where functions are.
#[derive(Debug, Clone)]
pub struct Volume(PathBuf);

/// The directories, open.
pub struct Opened {
    pub root: OwnedFd,
    private: OwnedFd,
    uploads: OwnedFd,
    pub history: OwnedFd,
}

/// Nobody else changes functions until this is dropped.
pub struct Locked {
    opened: Opened,
    _lock: File,
}

impl std::ops::Deref for Locked {
    type Target = Opened;

    fn deref(&self) -> &Opened {
        &self.opened
    }
}

/// What makes an error of a step one of an upload.
pub fn failed<E: Into<io::Error>>(step: &'static str) -> impl Fn(E) -> UploadError {
    move |error| {
        let source = error.into();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => UploadError::DiskFull { step },
            _ => UploadError::Io { step, source },
        }
    }
}

impl Volume {
    pub fn new(path: PathBuf) -> Volume {
        Volume(path)
    }

    /// The directory, as the store reads one.
    pub fn functions(&self) -> FunctionsDir {
        FunctionsDir::new(self.0.clone())
    }

    /// Makes what is not there yet.
    ///
    /// # Errors
    /// [`UploadError::Io`]
    pub fn open(&self) -> Result<Opened, UploadError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = fs::open(&self.0, flags, Mode::empty()).map_err(failed("opening the functions directory"))?;
        let make = |at: &OwnedFd, name| beneath::made(at, name).map_err(failed("making a directory for uploads"));
        let private = make(&root, PRIVATE)?;
        let (uploads, history) = (make(&private, "uploads")?, make(&private, "history")?);
        Ok(Opened { root, private, uploads, history })
    }

    /// Opens it, as soon as nobody else changes functions. Blocks, for a while.
    ///
    /// # Errors
    /// [`UploadError::Busy`] if others take too long.
    pub fn lock(&self) -> Result<Locked, UploadError> {
        let opened = self.open()?;
        let give_up = Instant::now() + PATIENCE;
        loop {
            match beneath::lock(&opened.private, LOCK, true).map_err(failed("locking the functions"))? {
                Some(lock) => return Ok(Locked { opened, _lock: lock }),
                None if Instant::now() < give_up => thread::sleep(LOOK),
                None => return Err(UploadError::Busy),
            }
        }
    }

    /// Removes what uploads have left that ended with their box. Gives how many.
    ///
    /// # Errors
    /// [`UploadError::Io`]
    pub fn sweep(&self) -> Result<usize, UploadError> {
        let step = "removing unfinished uploads";
        let opened = self.open()?;
        let mut removed = 0;
        for name in beneath::names(&opened.uploads).map_err(failed(step))? {
            let own = beneath::directory(&opened.uploads, &name);
            if let Ok(Ok(None)) = own.map(|own| beneath::lock(&own, LOCK, false)) {
                // It goes on, in another box.
                continue;
            }
            beneath::remove(&opened.uploads, &name).map_err(failed(step))?;
            removed += 1;
        }
        Ok(removed)
    }
}

impl Opened {
    /// The names of the functions in the directory, also of those that have settings alone, each once, sorted.
    ///
    /// # Errors
    /// [`UploadError::Io`]
    pub fn functions(&self) -> Result<Vec<String>, UploadError> {
        let mut names: Vec<String> = beneath::names(&self.root)
            .map_err(failed("listing the functions"))?
            .into_iter()
            .filter(|file| !file.starts_with('.'))
            .map(|file| file.strip_suffix(".toml").unwrap_or(stem(&file)).to_owned())
            .collect();
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    /// How many functions have a history.
    ///
    /// # Errors
    /// [`UploadError::Io`]
    pub fn histories(&self) -> Result<usize, UploadError> {
        Ok(beneath::names(&self.history).map_err(failed("listing the histories"))?.len())
    }

    /// The bytes of all functions, settings and earlier versions. What several names have in common counts once.
    ///
    /// # Errors
    /// [`UploadError::Io`]
    pub fn used(&self) -> Result<u64, UploadError> {
        let mut used = Used::default();
        let step = failed("counting the bytes of all functions");
        used.add(&self.root).map_err(&step)?;
        for name in beneath::names(&self.history).map_err(&step)? {
            let Ok(of_name) = beneath::directory(&self.history, &name) else { continue };
            for version in beneath::names(&of_name).map_err(&step)? {
                if let Ok(version) = beneath::directory(&of_name, &version) {
                    used.add(&version).map_err(&step)?;
                }
            }
        }
        Ok(used.bytes)
    }

    /// A new place for what arrives.
    ///
    /// # Errors
    /// [`UploadError`]
    pub fn stage(&self) -> Result<Staging, UploadError> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let step = failed("making a directory for an upload");
        let uploads = self.uploads.try_clone().map_err(failed("another descriptor"))?;
        for _ in 0..8 {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
            let name = format!("{now:x}-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
            match fs::mkdirat(&uploads, &name, Mode::RWXU) {
                Ok(()) => {}
                Err(Errno::EXIST) => continue,
                Err(errno) => return Err(step(errno.into())),
            }
            let made = beneath::directory(&uploads, &name).and_then(|own| {
                let lock = beneath::lock(&own, LOCK, true)?;
                let version = lock.is_some().then(|| beneath::made(&own, VERSION)).transpose()?;
                Ok((own, lock, version))
            });
            match made {
                Ok((own, Some(lock), Some(version))) => {
                    return Ok(Staging { uploads, name, own, version, lock: Some(lock) });
                }
                // Another box that starts just now takes it for one that was left, and removes it.
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    let _ = beneath::remove(&uploads, &name);
                    return Err(step(error));
                }
            }
        }
        Err(UploadError::Busy)
    }
}

#[derive(Default)]
struct Used {
    bytes: u64,
    seen: HashSet<(u64, u64)>,
}

impl Used {
    fn add(&mut self, directory: &OwnedFd) -> io::Result<()> {
        for name in beneath::names(directory)? {
            let Ok(stat) = fs::statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
            if is_file && self.seen.insert((stat.st_dev, stat.st_ino)) {
                self.bytes = self.bytes.saturating_add(stat.st_size.unsigned_abs());
            }
        }
        Ok(())
    }
}

/// The directory that becomes a version.
pub const VERSION: &str = "version";

/// Where an upload arrives; removed when this is dropped.
pub struct Staging {
    uploads: OwnedFd,
    name: String,
    pub own: OwnedFd,
    pub version: OwnedFd,
    lock: Option<File>,
}

impl Staging {
    /// The directory that becomes a version, as the store reads one: whatever becomes of its name.
    pub fn functions(&self) -> FunctionsDir {
        FunctionsDir::new(format!("/proc/self/fd/{}", self.version.as_fd().as_raw_fd()).into())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // Network file systems keep a file that is open, and its directory.
        self.lock = None;
        if let Err(error) = beneath::remove(&self.uploads, &self.name) {
            tracing::warn!("an upload's directory cannot be removed: {error}; it is removed at the next start");
        }
    }
}
