//! The socket on which a pod's shim serves.

use std::{
    fs, io,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

/// Where containerd's shims have their sockets: a short path, since the kernel allows 107 bytes.
const DIRECTORY: &str = "/run/containerd/s";
const SCHEME: &str = "unix://";

/// `unix:///run/containerd/s/…`: the same for all containers of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address(PathBuf);

/// Whether the group has a shim already.
pub enum Bound {
    Served,
    Ours(UnixListener),
}

impl Address {
    /// Unique for a containerd (by its own address), a namespace and a group of containers.
    pub fn of(directory: Option<&str>, containerd: &str, namespace: &str, group: &str) -> Address {
        let directory = directory.filter(|directory| !directory.is_empty()).unwrap_or(DIRECTORY);
        // As containerd's own shims: the hash of the joined path.
        let digest = Sha256::digest(format!("{containerd}/{namespace}/{group}"));
        let name: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Address(Path::new(directory).join(name))
    }

    pub fn parse(text: &str) -> Address {
        Address(text.trim().strip_prefix(SCHEME).unwrap_or(text.trim()).into())
    }

    /// Binds the socket, unless somebody serves there; one that nobody serves is replaced.
    pub fn bind(&self) -> io::Result<Bound> {
        let _locked = self.lock()?;
        match UnixListener::bind(&self.0) {
            Ok(listener) => Ok(Bound::Ours(listener)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                if UnixStream::connect(&self.0).is_ok() {
                    return Ok(Bound::Served);
                }
                fs::remove_file(&self.0)?;
                UnixListener::bind(&self.0).map(Bound::Ours)
            }
            Err(error) => Err(error),
        }
    }

    /// Removes the socket, if nobody serves there. Returns whether that is so.
    pub fn remove_dead(&self) -> bool {
        if !self.0.exists() {
            return true;
        }
        let Ok(_locked) = self.lock() else { return false };
        let is_dead = UnixStream::connect(&self.0).is_err();
        if is_dead {
            self.remove();
        }
        is_dead
    }

    /// Against others who find at the same time that nobody serves there: one would remove the socket that the other has just bound.
    fn lock(&self) -> io::Result<fs::File> {
        let directory = self.0.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(directory)?;
        let locked = fs::File::open(directory)?;
        locked.lock()?;
        Ok(locked)
    }

    /// Removes the socket, on which this process serves.
    pub fn give_up(&self) {
        let _locked = self.lock();
        self.remove();
    }

    /// Removes the socket, if it is there.
    pub fn remove(&self) {
        let _ = fs::remove_file(&self.0);
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{SCHEME}{}", self.0.display())
    }
}
