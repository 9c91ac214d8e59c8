//! Locks that all processes of a node's compile service share. Each is one byte of a file: the kernel gives it back with the process that
//! holds it, however that ends, and nothing has to be tidied up.
//!
//! The files are no boxes' business: whoever can open a file can lock it.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use crate::artifacts::cache_directory::{CacheError, check_directory};

/// A private directory of lock files.
pub struct Locks(PathBuf);

/// A lock that is held.
#[derive(Debug)]
pub struct Held {
    _file: File,
}

impl Locks {
    /// Makes the directory, with mode 0700, unless it is there.
    ///
    /// # Errors
    /// If it cannot be made, or others may write it.
    pub fn open(directory: &Path) -> Result<Locks, CacheError> {
        let io = |source| CacheError::Io { path: directory.to_owned(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(io)?;
        check_directory(directory)?;
        Ok(Locks(directory.to_owned()))
    }

    /// Locks byte `number` of the file `name`, unless somebody holds it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn try_take(&self, name: &str, number: u64) -> io::Result<Option<Held>> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(self.0.join(name))?;
        Ok(byte::try_lock(&file, number)?.then_some(Held { _file: file }))
    }
}

mod byte {
    #![allow(unsafe_code, reason = "no safe binding of F_OFD_SETLK for a range exists")]

    use std::{fs::File, io, os::fd::AsRawFd};

    /// Whether the byte is locked now, for this open file.
    pub fn try_lock(file: &File, number: u64) -> io::Result<bool> {
        // Offsets are signed, and so is the one behind the byte.
        let start = (number & (u64::MAX >> 2)) as libc::off_t;
        let lock = libc::flock {
            l_type: libc::F_WRLCK as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: start,
            l_len: 1,
            l_pid: 0,
        };
        // SAFETY: the descriptor is open, and the kernel only reads `lock` (fcntl(2), F_OFD_SETLK).
        match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) } {
            0 => Ok(true),
            _ => match io::Error::last_os_error() {
                error if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
                error => Err(error),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_is_held_by_one_until_it_is_dropped() {
        let directory = std::env::temp_dir().join(format!("wasmbox-locks-{}", std::process::id()));
        let locks = Locks::open(&directory).unwrap();
        let first = locks.try_take("keys", u64::MAX).unwrap().unwrap();
        assert!(locks.try_take("keys", u64::MAX).unwrap().is_none());
        // Other bytes and other files are other locks.
        assert!(locks.try_take("keys", 1).unwrap().is_some());
        assert!(locks.try_take("slots", u64::MAX).unwrap().is_some());
        drop(first);
        assert!(locks.try_take("keys", u64::MAX).unwrap().is_some());
        fs::remove_dir_all(directory).unwrap();
    }
}
