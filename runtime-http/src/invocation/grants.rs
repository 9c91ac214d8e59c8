//! What the operator and the function's settings open to a guest beyond computing.

use std::{
    fmt, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::outbound_grant::OutboundGrant;

#[derive(Debug, Default)]
pub struct Grants {
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    pub preopens: Vec<Preopen>,
    pub outbound: Vec<OutboundGrant>,
}

/// A directory of the host that the guest sees.
#[derive(Debug, Clone)]
pub struct Preopen {
    pub directory: HostDirectory,
    /// Where the guest sees it.
    pub guest: String,
    pub writable: bool,
}

/// Opened anew for each invocation.
#[derive(Debug, Clone)]
pub enum HostDirectory {
    /// Named on the command line, by who runs the guest.
    Named(PathBuf),
    /// Named by a function's settings.
    Below { root: Arc<PreopenRoot>, path: PathBuf },
}

/// A directory of the operator's, below which functions' settings may grant directories. It stays what it was when the box started, whatever
/// becomes of its name.
#[derive(Debug)]
pub struct PreopenRoot {
    path: PathBuf,
    directory: OwnedFd,
}

impl PreopenRoot {
    /// # Errors
    /// If `path`, which must be canonical, is no directory.
    pub fn open(path: PathBuf) -> io::Result<PreopenRoot> {
        let directory = rustix::fs::open(&path, DIRECTORY, Mode::empty())?;
        Ok(PreopenRoot { path, directory })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

impl HostDirectory {
    /// Opens it (`O_PATH`). Below a root no symlink is followed on the way: guests can make some there.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open(&self) -> io::Result<OwnedFd> {
        let opened = match self {
            HostDirectory::Named(path) => rustix::fs::open(path, DIRECTORY, Mode::empty()),
            HostDirectory::Below { root, path } => {
                let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
                let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
                rustix::fs::openat2(&root.directory, path, DIRECTORY, Mode::empty(), resolve)
            }
        };
        Ok(opened?)
    }
}

impl fmt::Display for HostDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostDirectory::Named(path) => path.display().fmt(f),
            HostDirectory::Below { root, path } => root.path.join(path).display().fmt(f),
        }
    }
}
