//! The shim where containerd looks for it by its name.
//!
//! A handler could name the file instead (`runtime_path`). But a containerd that starts anew has to find the shim of each container that
//! runs, and 2.3 keeps that path for a pod's sandbox alone; of the others it knows the name. What it does not find, it takes for ended, and
//! forgets. So the name counts, at a pod's start as at all others.
//!
//! containerd looks into the directory of its plugin `opt`, which it makes and puts in front of its PATH, and last beside its own binary.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    binaries::SHIM,
    dump::Dump,
    node::Node,
    replace::{self, FileError},
};

#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{} is no link: it hides the installer's shim from containerd; remove it", path.display())]
    Taken { path: PathBuf },
    #[error("containerd looks for shims in no directory of this node")]
    Nowhere,
}

/// A link to the shim: a new version of the file needs no other.
#[derive(Debug)]
pub struct Link<'a> {
    pub node: &'a Node,
    /// The file, on the node.
    pub shim: PathBuf,
}

impl Link<'_> {
    /// Puts it where it can be, if it is not there.
    ///
    /// # Errors
    /// [`LinkError`], of the last directory.
    pub fn put(&self, dump: &Dump) -> Result<(), LinkError> {
        let beside = self.node.containerd.parent().map(Path::to_owned);
        let mut result = Err(LinkError::Nowhere);
        for directory in dump.opt_programs().into_iter().chain(beside) {
            let path = directory.join(SHIM);
            result = self.put_at(&path);
            // Another is tried where this one cannot be written, such as a read-only file system.
            if let Ok(()) | Err(LinkError::Taken { .. }) = result {
                break;
            }
        }
        result
    }

    fn put_at(&self, path: &Path) -> Result<(), LinkError> {
        if path == self.shim || self.is_at(path) {
            return Ok(());
        }
        if path.exists() && !path.is_symlink() {
            return Err(LinkError::Taken { path: path.to_owned() });
        }
        if let Some(directory) = path.parent() {
            replace::make_directory(directory)?;
        }
        replace::link(path, &self.shim)?;
        eprintln!("{}: links to {}", path.display(), self.shim.display());
        Ok(())
    }

    fn is_at(&self, path: &Path) -> bool {
        fs::read_link(path).is_ok_and(|target| target == self.shim)
    }

    /// Removes it from wherever it may have been put; with a configuration that cannot be read, from where it is by default.
    ///
    /// # Errors
    /// [`LinkError::File`], if it cannot be removed.
    pub fn remove(&self, dump: Option<&Dump>) -> Result<(), LinkError> {
        let beside = self.node.containerd.parent().map(Path::to_owned);
        let directories =
            dump.and_then(Dump::opt_programs).into_iter().chain([self.node.opt.join("bin")]).chain(beside);
        for path in directories.map(|directory| directory.join(SHIM)).filter(|path| self.is_at(path)) {
            replace::remove(&path)?;
        }
        Ok(())
    }
}
