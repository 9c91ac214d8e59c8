//! A file that is there whole or not at all: written beside its place under another name, and renamed.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    time::SystemTime,
};

use rustix::{
    fs::{CWD, RenameFlags, renameat_with},
    io::Errno,
};

use super::RegistryError;

/// A name beside `target` that nothing has. No function is called so, so no box serves it.
fn temporary(target: &Path) -> PathBuf {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
    target.with_file_name(format!(".{name}.{}-{now}.part", std::process::id()))
}

/// A file on its way to its place. Dropping it removes what was written.
pub struct Landing {
    target: PathBuf,
    temporary: PathBuf,
    file: File,
}

impl Landing {
    /// # Errors
    /// [`RegistryError::File`]
    pub fn new(target: &Path) -> Result<Landing, RegistryError> {
        let temporary = temporary(target);
        let file = OpenOptions::new().write(true).create_new(true).open(&temporary);
        let file = file.map_err(|source| RegistryError::File { path: target.to_owned(), source })?;
        Ok(Landing { target: target.to_owned(), temporary, file })
    }

    /// # Errors
    /// [`RegistryError::File`]
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), RegistryError> {
        self.file.write_all(bytes).map_err(|source| self.failed(source))
    }

    /// Puts it in its place; with `force` in that of what is there.
    ///
    /// # Errors
    /// [`RegistryError::Exists`] without `force`, else [`RegistryError::File`].
    pub fn place(self, force: bool) -> Result<(), RegistryError> {
        self.file.sync_all().map_err(|source| self.failed(source))?;
        if force {
            return fs::rename(&self.temporary, &self.target).map_err(|source| self.failed(source));
        }
        let renamed = renameat_with(CWD, &self.temporary, CWD, &self.target, RenameFlags::NOREPLACE);
        let placed = match renamed {
            // NFS has no such renaming; and a link never takes the place of a file either.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => fs::hard_link(&self.temporary, &self.target),
            renamed => renamed.map_err(io::Error::from),
        };
        match placed {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(RegistryError::Exists { path: self.target.clone() })
            }
            placed => placed.map_err(|source| self.failed(source)),
        }
    }

    fn failed(&self, source: io::Error) -> RegistryError {
        RegistryError::File { path: self.target.clone(), source }
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        // After a rename it is gone already.
        let _ = fs::remove_file(&self.temporary);
    }
}

/// A file that is out of its place until another is there for good. Dropping it puts it back.
pub struct Aside {
    target: PathBuf,
    /// Where it is.
    temporary: PathBuf,
}

impl Aside {
    /// `None` if there is no such file.
    ///
    /// # Errors
    /// [`RegistryError::File`], also if it is a directory.
    pub fn take(target: &Path) -> Result<Option<Aside>, RegistryError> {
        let failed = |source| RegistryError::File { path: target.to_owned(), source };
        let temporary = temporary(target);
        let taken = match fs::symlink_metadata(target) {
            Ok(metadata) if metadata.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
            Ok(_) => fs::rename(target, &temporary),
            Err(error) => Err(error),
        };
        match taken {
            Ok(()) => Ok(Some(Aside { target: target.to_owned(), temporary })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// For good.
    pub fn discard(self) {
        // Then there is nothing to put back.
        let _ = fs::remove_file(&self.temporary);
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        let _ = fs::rename(&self.temporary, &self.target);
    }
}
