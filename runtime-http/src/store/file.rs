//! Files of the functions directory: found by name, identified by what `stat` says, read only when nobody writes them.
//!
//! The directory is hostile: a name may be a symlink out of it, a FIFO, a device, a file that grows for ever. So files are opened with
//! `openat2(RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS)`, must be regular, and are bounded.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime},
};

use rustix::{
    fs::{self, AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags},
    io::Errno,
};

use super::name::ModuleName;
use crate::artifacts::file_identity::{FileIdentity, SETTLED};

/// How long to wait, in all, for a file that is being written.
const PATIENCE: Duration = Duration::from_secs(2);
/// Endings a request may leave out, in the order they are tried.
const ENDINGS: [&str; 2] = [".wasm", ".wat"];

/// A module's file, and its settings' file if there is one, as they are at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileVersion {
    pub file: String,
    pub module: FileIdentity,
    pub settings: Option<FileIdentity>,
}

#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("no function {name:?}")]
    NotFound { name: String },
    #[error("{file} is not a regular file inside the functions directory")]
    NotRegular { file: String },
    #[error("{file} has {size} bytes, more than the {limit} allowed (--max-module-size)")]
    TooLarge { file: String, size: u64, limit: u64 },
    #[error("{file} is being written")]
    Unsettled { file: String },
    #[error("cannot read {file}: {source}")]
    Io { file: String, source: io::Error },
}

/// A directory of functions.
#[derive(Debug, Clone)]
pub struct FunctionsDir {
    path: PathBuf,
}

impl FunctionsDir {
    pub fn new(path: PathBuf) -> Self {
        FunctionsDir { path }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Looks `name` up: as it is, then with each of the endings. Two or three `stat` calls.
    ///
    /// # Errors
    /// [`FileError::NotFound`], also for what is no regular file, or [`FileError::Io`].
    pub fn find(&self, name: &ModuleName) -> Result<FileVersion, FileError> {
        // Settings lie beside modules; they are not modules.
        if !name.as_str().ends_with(".toml") {
            for file in Self::candidates(name) {
                if let Some(module) = self.stat(&file)? {
                    let settings = self.stat(&settings_file(&file))?;
                    return Ok(FileVersion { file, module, settings });
                }
            }
        }
        Err(FileError::NotFound { name: name.to_string() })
    }

    fn stat(&self, file: &str) -> Result<Option<FileIdentity>, FileError> {
        match fs::statat(CWD, self.path.join(file), AtFlags::empty()) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => {
                Ok(Some(FileIdentity::of(&stat)))
            }
            Ok(_) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::ACCESS) => Ok(None),
            Err(error) => Err(FileError::Io { file: file.to_owned(), source: error.into() }),
        }
    }

    /// The file as it is, if nobody is writing it, and its identity will change when somebody does: see [`FileIdentity::is_telling`].
    ///
    /// # Errors
    /// [`FileError`].
    pub fn settled(&self, file: &str, limit: u64) -> Result<Option<FileIdentity>, FileError> {
        let (opened, identity) = self.open_bounded(file, limit)?;
        let is_settled =
            unsettled_for(&identity).is_none() && identity.is_telling(&opened) && !is_open_for_writing(&opened);
        Ok(is_settled.then_some(identity))
    }

    /// Reads a whole file of at most `limit` bytes, once nobody is writing it. Blocks for at most [`PATIENCE`] and the reading.
    ///
    /// # Errors
    /// [`FileError`]; `Unsettled` if it was being written all that time.
    pub fn read(&self, file: &str, limit: u64) -> Result<(Vec<u8>, FileIdentity), FileError> {
        let io = |source: io::Error| FileError::Io { file: file.to_owned(), source };
        let give_up = Instant::now() + PATIENCE;
        loop {
            let (opened, before) = self.open_bounded(file, limit)?;
            let wait = unsettled_for(&before);
            if wait.is_none() && !is_open_for_writing(&opened) {
                let mut bytes = Vec::with_capacity(usize::try_from(before.size()).unwrap_or(0));
                let reader = File::from(opened);
                (&reader).take(limit + 1).read_to_end(&mut bytes).map_err(io)?;
                let after = FileIdentity::of_open(&reader).map_err(io)?;
                if after == before && bytes.len() as u64 == before.size() {
                    return Ok((bytes, before));
                }
            }
            if Instant::now() >= give_up {
                return Err(FileError::Unsettled { file: file.to_owned() });
            }
            thread::sleep(wait.unwrap_or(SETTLED / 4));
        }
    }

    /// A regular file of at most `limit` bytes.
    fn open_bounded(&self, file: &str, limit: u64) -> Result<(OwnedFd, FileIdentity), FileError> {
        let opened = self.open(file)?;
        let stat = fs::fstat(&opened).map_err(|error| FileError::Io { file: file.to_owned(), source: error.into() })?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(FileError::NotRegular { file: file.to_owned() });
        }
        let identity = FileIdentity::of(&stat);
        if identity.size() > limit {
            return Err(FileError::TooLarge { file: file.to_owned(), size: identity.size(), limit });
        }
        Ok((opened, identity))
    }

    fn open(&self, file: &str) -> Result<OwnedFd, FileError> {
        let io = |error: Errno| FileError::Io { file: file.to_owned(), source: error.into() };
        let directory =
            fs::open(&self.path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(io)?;
        // Without NONBLOCK, opening a FIFO would wait for its writer.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        match fs::openat2(directory, file, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS) {
            Ok(opened) => Ok(opened),
            Err(Errno::NOENT) => Err(FileError::NotFound { name: file.to_owned() }),
            Err(Errno::XDEV | Errno::LOOP | Errno::NXIO) => Err(FileError::NotRegular { file: file.to_owned() }),
            Err(error) => Err(io(error)),
        }
    }

    /// The files that `name` may mean.
    pub fn candidates(name: &ModuleName) -> impl Iterator<Item = String> {
        let has_ending = ENDINGS.iter().any(|ending| name.as_str().ends_with(ending));
        let endings: &[&str] = if has_ending { &[""] } else { &["", ".wasm", ".wat"] };
        endings.iter().map(move |ending| format!("{name}{ending}"))
    }

    /// The stems of the files among the first `most` entries that could be modules, in any order, and whether there are no further entries.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn stems(&self, most: usize) -> io::Result<(Vec<Arc<str>>, bool)> {
        let mut entries = std::fs::read_dir(&self.path)?;
        let mut stems = Vec::new();
        for entry in entries.by_ref().take(most) {
            let entry = entry?;
            let Ok(file) = entry.file_name().into_string() else { continue };
            // A link may lead to a file.
            let may_be_one = entry.file_type().is_ok_and(|kind| kind.is_file() || kind.is_symlink());
            if may_be_one && stem(&file) != file && file.parse::<ModuleName>().is_ok() {
                stems.push(stem(&file).into());
            }
        }
        Ok((stems, entries.next().is_none()))
    }

    /// The names of the files that could be modules, sorted.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn list(&self) -> io::Result<Vec<ModuleName>> {
        let mut names: Vec<ModuleName> = std::fs::read_dir(&self.path)?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok()?.parse().ok())
            .filter(|name: &ModuleName| ENDINGS.iter().any(|ending| name.as_str().ends_with(ending)))
            .collect();
        names.sort();
        Ok(names)
    }
}

/// `hello.wasm` and `hello` have their settings in `hello.toml`.
pub fn settings_file(file: &str) -> String {
    format!("{}.toml", stem(file))
}

/// The file's name without its ending: the function's name in logs and metrics.
pub fn stem(file: &str) -> &str {
    ENDINGS.iter().find_map(|ending| file.strip_suffix(ending)).filter(|stem| !stem.is_empty()).unwrap_or(file)
}

/// How long until the file's last change is [`SETTLED`] ago; `None` if it is. A change in the future (another machine's clock)
/// counts as settled: the comparison before and after reading still holds.
fn unsettled_for(identity: &FileIdentity) -> Option<Duration> {
    SETTLED.checked_sub(identity.age(SystemTime::now())?).filter(|left| !left.is_zero())
}

/// Whether somebody has the file open for writing: then, and only then, a read lease is refused with EAGAIN (fcntl(2),
/// F_SETLEASE). Where leases are not possible (other owner, network filesystem), the answer is `false`.
fn is_open_for_writing(file: &OwnedFd) -> bool {
    lease::is_refused(file)
}

mod lease {
    #![allow(unsafe_code, reason = "no safe bindings of F_SETLEASE and of ignoring a signal exist")]

    use std::{
        os::fd::{AsRawFd, OwnedFd},
        sync::Once,
    };

    pub fn is_refused(file: &OwnedFd) -> bool {
        // Whoever opens the file for writing while there is a lease waits until it is given back, which is at once; and the kernel sends
        // its holder SIGIO, which ends a process that neither handles nor ignores it.
        static IGNORED: Once = Once::new();
        // SAFETY: SIG_IGN is no function of ours, so nothing runs in a signal's context; nobody else in this process uses SIGIO.
        IGNORED.call_once(|| unsafe {
            libc::signal(libc::SIGIO, libc::SIG_IGN);
        });
        // SAFETY: F_SETLEASE takes an integer and touches no memory; the descriptor is open.
        let taken = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_RDLCK) };
        if taken == 0 {
            // SAFETY: as above.
            unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_UNLCK) };
            return false;
        }
        std::io::Error::last_os_error().raw_os_error() == Some(libc::EAGAIN)
    }
}

/// Whether `path` is on a filesystem whose answers come over a network or from another process (statfs(2), `f_type`).
pub fn is_remote(path: &Path) -> bool {
    const NFS: u64 = 0x6969;
    const CEPH: u64 = 0x00c3_6400;
    const FUSE: u64 = 0x6573_5546;
    const SMB2: u64 = 0xfe53_4d42;
    const CIFS: u64 = 0xff53_4d42;
    const NINE_P: u64 = 0x0102_1997;
    fs::statfs(path).is_ok_and(|statfs| [NFS, CEPH, FUSE, SMB2, CIFS, NINE_P].contains(&(statfs.f_type as u64)))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// The kernel sends SIGIO to whoever holds the lease that a writer breaks: without care that ends this process.
    #[test]
    fn writers_that_race_with_the_lease_end_nobody() {
        let path = std::env::temp_dir().join(format!("wasmbox-lease-{}", std::process::id()));
        std::fs::write(&path, "content").unwrap();
        let ended = AtomicBool::new(false);
        let (mut writing, mut settled) = (0, 0);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    drop(std::fs::OpenOptions::new().write(true).open(&path).unwrap());
                }
            });
            let file = OwnedFd::from(File::open(&path).unwrap());
            while writing < 1000 || settled < 1000 {
                if is_open_for_writing(&file) { writing += 1 } else { settled += 1 }
            }
            ended.store(true, Ordering::Relaxed);
        });
        std::fs::remove_file(path).unwrap();
    }
}
