//! The directory of an AOT cache: whether code in it can be trusted, which is native and runs with all rights of the box. So nobody else may
//! write it.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use rustix::fs::StatVfsMountFlags;

#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    #[error("cache directory {path}: {reason}; choose another with --cache-dir, or none with --cache-dir=none")]
    Unsafe { path: PathBuf, reason: String },
    #[error("cache directory {path}: {source}; choose another with --cache-dir, or none with --cache-dir=none")]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "the node's cache {path}: {reason}; name another with --node-cache-dir, or none with --node-cache-dir=none"
    )]
    UnsafeNode { path: PathBuf, reason: String },
}

/// Checks that `directory` is one, this user's, and writable by nobody else.
///
/// # Errors
/// [`CacheError::Unsafe`] if it is not, [`CacheError::Io`] if it cannot be looked at.
pub fn check_directory(directory: &Path) -> Result<(), CacheError> {
    let metadata =
        fs::symlink_metadata(directory).map_err(|source| CacheError::Io { path: directory.to_owned(), source })?;
    let user = rustix::process::geteuid().as_raw();
    let unsafe_because = |reason: String| Err(CacheError::Unsafe { path: directory.to_owned(), reason });
    if !metadata.is_dir() {
        return unsafe_because("is not a directory".into());
    }
    if metadata.uid() != user {
        return unsafe_because(format!("belongs to user {}, not to user {user}", metadata.uid()));
    }
    if metadata.mode() & 0o022 != 0 {
        return unsafe_because(format!(
            "has mode {:o}: others may write native code into it",
            metadata.mode() & 0o7777
        ));
    }
    Ok(())
}

/// Checks that `directory` is the node's cache as a box must see it: root's, and on a read-only mount, so that not even a box's root can write
/// it.
///
/// # Errors
/// [`CacheError::UnsafeNode`] if it is not.
pub fn check_mapped_directory(directory: &Path) -> Result<(), CacheError> {
    let unsafe_because = |reason: String| CacheError::UnsafeNode { path: directory.to_owned(), reason };
    let metadata = fs::symlink_metadata(directory).map_err(|error| unsafe_because(error.to_string()))?;
    let mount = rustix::fs::statvfs(directory).map_err(|error| unsafe_because(error.to_string()))?;
    if !metadata.is_dir() {
        return Err(unsafe_because("is not a directory".into()));
    }
    if !is_root(metadata.uid()) {
        return Err(unsafe_because(format!("belongs to user {}, not to root", metadata.uid())));
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(unsafe_because(format!("has mode {:o}: others may write into it", metadata.mode() & 0o7777)));
    }
    if !mount.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Err(unsafe_because("is not mounted read-only: it could be written from here".into()));
    }
    Ok(())
}

/// In a user namespace the node's root is nobody that it knows: its files seem to belong to the overflow user (user_namespaces(7)).
pub(super) fn is_root(uid: u32) -> bool {
    const OVERFLOW: u32 = 65534;
    let all_users = |map: String| map.split_whitespace().eq(["0", "0", "4294967295"]);
    uid == 0 || uid == OVERFLOW && fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| !all_users(map))
}
