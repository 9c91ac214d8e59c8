//! Files that are replaced whole: written beside, synced, renamed. Owner and mode stay.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, ErrorKind, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt, chown, symlink},
    path::{Path, PathBuf},
};

#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub struct FileError {
    path: PathBuf,
    source: io::Error,
}

/// Where something is written before it counts. Not `.toml`: no import takes it.
fn beside(path: &Path) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(".wasmbox-new");
    path.into()
}

fn at<T>(path: &Path, result: io::Result<T>) -> Result<T, FileError> {
    result.map_err(|source| FileError { path: path.to_owned(), source })
}

/// What is in the file; nothing, if there is none.
///
/// # Errors
/// [`FileError`], if it cannot be read.
pub fn read(path: &Path) -> Result<Option<String>, FileError> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        result => at(path, result).map(Some),
    }
}

/// Whether both have the same bytes. Of large files a small part is in memory at a time.
///
/// # Errors
/// What one of them could not be read for.
pub fn is_same(one: impl Read, other: impl Read) -> io::Result<bool> {
    let (mut one, mut other) = (BufReader::new(one), BufReader::new(other));
    loop {
        let (left, right) = (one.fill_buf()?, other.fill_buf()?);
        let length = left.len().min(right.len());
        if length == 0 {
            return Ok(left.is_empty() && right.is_empty());
        }
        if left[..length] != right[..length] {
            return Ok(false);
        }
        one.consume(length);
        other.consume(length);
    }
}

/// The file's text beside it, to look at before it counts. Goes when it is dropped.
#[derive(Debug)]
pub struct Draft {
    path: PathBuf,
    target: PathBuf,
}

impl Draft {
    /// # Errors
    /// [`FileError`], if it cannot be written.
    pub fn write(target: &Path, mut content: impl Read, mode: u32) -> Result<Draft, FileError> {
        // A link stays one.
        let target = fs::canonicalize(target).unwrap_or_else(|_| target.to_owned());
        let path = beside(&target);
        let draft = Draft { path: path.clone(), target };
        // One that was left by a crash.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return at(&path, Err(error)),
            _ => {}
        }
        let old = fs::metadata(&draft.target).ok();
        let mode = old.as_ref().map_or(mode, |old| old.mode() & 0o7777);
        let mut file = at(&path, OpenOptions::new().write(true).create_new(true).mode(mode).open(&path))?;
        // The umask does not apply.
        at(&path, fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode)))?;
        if let Some(old) = old {
            at(&path, chown(&path, Some(old.uid()), Some(old.gid())))?;
        }
        at(&path, io::copy(&mut content, &mut file))?;
        at(&path, file.sync_all())?;
        Ok(draft)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// It counts from now on.
    ///
    /// # Errors
    /// [`FileError`], if it cannot be renamed.
    pub fn commit(self) -> Result<(), FileError> {
        at(&self.target, fs::rename(&self.path, &self.target))?;
        sync_directory_of(&self.target)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // After `commit` it is not there.
        let _ = fs::remove_file(&self.path);
    }
}

/// A link at `path`, in one step, whatever other link is there.
///
/// # Errors
/// [`FileError`]
pub fn link(path: &Path, target: &Path) -> Result<(), FileError> {
    let new = beside(path);
    // One that was left by a crash.
    remove(&new)?;
    at(&new, symlink(target, &new))?;
    at(path, fs::rename(&new, path))?;
    sync_directory_of(path)
}

/// # Errors
/// [`FileError`], if it is there and cannot be removed.
pub fn remove(path: &Path) -> Result<(), FileError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => {
            at(path, result)?;
            sync_directory_of(path)
        }
    }
}

/// # Errors
/// [`FileError`]
pub fn make_directory(path: &Path) -> Result<(), FileError> {
    at(path, fs::create_dir_all(path))
}

fn sync_directory_of(path: &Path) -> Result<(), FileError> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    at(directory, File::open(directory).and_then(|directory| directory.sync_all()))
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::is_same;

    /// Gives its bytes in pieces of this length.
    struct Pieces<'a>(&'a [u8], usize);

    impl io::Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = self.1.min(buffer.len());
            io::Read::read(&mut self.0, &mut buffer[..length])
        }
    }

    #[test]
    fn files_are_compared_in_pieces() {
        let long = vec![7; 100_000];
        let mut other = long.clone();
        other[99_999] = 8;
        let same = |one: &[u8], other: &[u8]| is_same(Pieces(one, 1000), Pieces(other, 333)).expect("no file");
        assert!(same(&[], &[]));
        assert!(same(&long, &long));
        assert!(!same(&long, &other));
        assert!(!same(&long, &long[1..]));
        assert!(!same(&long[1..], &long));
        assert!(!same(&[], &long));
    }
}
