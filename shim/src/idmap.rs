//! Mounts whose files belong to other users than on disk (mount_setattr(2), `MOUNT_ATTR_IDMAP`): with containerd's options `uidmap=` and
//! `gidmap=`, by which containers with a user namespace share layers of images with all others.

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
    process::Stdio,
    time::Duration,
};

use rustix::{
    fs::CWD,
    mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree},
    thread::{UnshareFlags, unshare_unsafe},
};
use tokio::time::timeout;

use crate::{
    environment,
    exits::{Exits, ends_with_us},
    watched::watched,
};

/// The first argument with which this binary is the process of a user namespace.
pub const ARGUMENT: &str = "hold-user-namespace";
/// For that process, which does nothing.
const DEADLINE: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum IdmapError {
    #[error("mount option {option:?}: expected CONTAINER:HOST:SIZE, several of them separated by commas")]
    Option { option: String },
    #[error("mount option {given} without {missing}")]
    Half { given: &'static str, missing: &'static str },
    #[error("a user namespace: {0}")]
    Namespace(#[source] io::Error),
    #[error("mapping users of {}: {source}; it takes Linux 5.12, and for overlays 5.19", path.display())]
    Mount { path: std::path::PathBuf, source: io::Error },
}

const UID: &str = "uidmap=";
const GID: &str = "gidmap=";

/// Users and groups of a container, and their numbers on the host, as `/proc/PID/uid_map` has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    users: String,
    groups: String,
}

impl Mapping {
    /// Takes the mapping out of a mount's options, if there is one.
    ///
    /// # Errors
    /// [`IdmapError`], naming the option.
    pub fn take(options: &mut Vec<String>) -> Result<Option<Mapping>, IdmapError> {
        let mut found = |prefix: &str| {
            let place = options.iter().position(|option| option.starts_with(prefix))?;
            Some(options.remove(place))
        };
        match (found(UID), found(GID)) {
            (None, None) => Ok(None),
            (Some(users), Some(groups)) => Ok(Some(Mapping { users: lines(&users)?, groups: lines(&groups)? })),
            (Some(_), None) => Err(IdmapError::Half { given: UID, missing: GID }),
            (None, Some(_)) => Err(IdmapError::Half { given: GID, missing: UID }),
        }
    }

    /// A user namespace with this mapping, in which nothing runs.
    ///
    /// # Errors
    /// [`IdmapError::Namespace`].
    pub async fn namespace(&self, exits: &Exits) -> Result<OwnedFd, IdmapError> {
        self.try_namespace(exits).await.map_err(IdmapError::Namespace)
    }

    async fn try_namespace(&self, exits: &Exits) -> io::Result<OwnedFd> {
        let mut command = environment::command("/proc/self/exe");
        command.arg(ARGUMENT).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        ends_with_us(&mut command);
        let (mut child, exit) = exits.spawn(&mut command)?;
        let held = async {
            let stdout = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
            let stdout = watched(stdout.into())?;
            let _ = timeout(DEADLINE, stdout.readable()).await?;
            if rustix::io::read(stdout.get_ref(), &mut [0; 1])? == 0 {
                return Err(io::Error::other("this host allows none"));
            }
            let process = format!("/proc/{}", child.id());
            fs::write(format!("{process}/uid_map"), &self.users)?;
            fs::write(format!("{process}/gid_map"), &self.groups)?;
            Ok(OwnedFd::from(fs::File::open(format!("{process}/ns/user"))?))
        };
        let namespace = held.await;
        // It ends with its input.
        drop(child.stdin.take());
        let _ = timeout(DEADLINE, exit).await;
        namespace
    }
}

/// `0:65536:65536,…` as lines of a mapping.
fn lines(option: &str) -> Result<String, IdmapError> {
    let error = || IdmapError::Option { option: option.to_owned() };
    let (_, ranges) = option.split_once('=').ok_or_else(error)?;
    let mut lines = String::new();
    for range in ranges.split(',') {
        let numbers = range.split(':').map(str::parse::<u32>).collect::<Result<Vec<_>, _>>().map_err(|_| error())?;
        let [inside, host, size] = numbers[..] else { return Err(error()) };
        lines += &format!("{inside} {host} {size}\n");
    }
    Ok(lines)
}

/// In that process: makes the namespace, says so, and waits until nobody needs it.
///
/// # Errors
/// The kernel's.
pub fn hold() -> anyhow::Result<()> {
    // SAFETY: only a new user namespace; this process has one thread, and no descriptor or directory is shared anew.
    #[allow(unsafe_code)]
    unsafe {
        unshare_unsafe(UnshareFlags::NEWUSER)?;
    }
    rustix::io::write(rustix::stdio::stdout(), b"\n")?;
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}

/// Mounts `directory` once more at `target`, with the users of `namespace`.
///
/// # Errors
/// [`IdmapError::Mount`].
pub fn mount_mapped(directory: &Path, target: &Path, namespace: BorrowedFd<'_>) -> Result<(), IdmapError> {
    let mapped = || {
        let tree = open_tree(CWD, directory, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
        map(tree.as_fd(), namespace)?;
        move_mount(&tree, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
        Ok(())
    };
    mapped().map_err(|source| IdmapError::Mount { path: directory.to_owned(), source })
}

/// mount_setattr(2), for which there is no safe function yet.
fn map(tree: BorrowedFd<'_>, namespace: BorrowedFd<'_>) -> io::Result<()> {
    let userns_fd = namespace.as_raw_fd().unsigned_abs().into();
    let attributes = libc::mount_attr { attr_set: libc::MOUNT_ATTR_IDMAP, attr_clr: 0, propagation: 0, userns_fd };
    // SAFETY: the path is a C string, the structure is the kernel's, of the size that is said; both are read during the call only.
    #[allow(unsafe_code)]
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn options_of_containerd() {
        let mut given = options(&["index=off", "uidmap=0:65536:1000,1000:1:1", "gidmap=0:70000:65536", "lowerdir=/a"]);
        let mapping = Mapping::take(&mut given).unwrap();
        let expected = Mapping { users: "0 65536 1000\n1000 1 1\n".into(), groups: "0 70000 65536\n".into() };
        assert_eq!(mapping, Some(expected));
        assert_eq!(given, options(&["index=off", "lowerdir=/a"]));
        assert_eq!(Mapping::take(&mut given).unwrap(), None);
    }

    #[test]
    fn options_that_are_not_understood() {
        for words in
            [&["uidmap=0:1:2"][..], &["gidmap=0:1:2"], &["uidmap=0:1", "gidmap=0:1:2"], &["uidmap=a:b:c", "gidmap="]]
        {
            assert!(Mapping::take(&mut options(words)).is_err(), "{words:?}");
        }
    }
}
