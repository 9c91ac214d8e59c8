//! Removing cgroups with what is below them.
//!
//! `libcgroups`' managers remove one directory, and only if none is below it; what a container has nested is theirs to fail with.

use std::{ffi::CString, fs, os::fd::OwnedFd, path::Path};

use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, open, openat, unlinkat},
    io::Errno,
};

/// Removes a cgroup, those below it first; as far as that can be.
pub fn remove(cgroup: &Path) {
    let _ = remove_below(cgroup);
    let _ = fs::remove_dir(cgroup);
}

/// Goes down to one without children, removes it from the one above, and so on: with one directory open at a time, and by names, since paths
/// may be longer than the kernel takes.
///
/// # Errors
/// The kernel's, for the first that cannot be removed.
pub fn remove_below(cgroup: &Path) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut names: Vec<CString> = Vec::new();
    let mut here = open(cgroup, flags, Mode::empty())?;
    loop {
        if let Some(name) = child(&here)? {
            here = openat(&here, &name, flags, Mode::empty())?;
            names.push(name);
        } else {
            let Some(name) = names.pop() else { return Ok(()) };
            here = openat(&here, c"..", flags, Mode::empty())?;
            unlinkat(&here, &name, AtFlags::REMOVEDIR)?;
        }
    }
}

fn child(directory: &OwnedFd) -> Result<Option<CString>, Errno> {
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if entry.file_type() == FileType::Directory && ![c".", c".."].contains(&entry.file_name()) {
            return Ok(Some(entry.file_name().to_owned()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_below_are_removed_though_their_paths_are_longer_than_the_kernel_takes() {
        let top = std::env::temp_dir().join(format!("wasmbox-cgroup-tree-{}", std::process::id()));
        fs::create_dir_all(top.join("beside/it")).unwrap();
        let name = CString::new("n".repeat(200)).unwrap();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut here = open(&top, flags, Mode::empty()).unwrap();
        for _ in 0..50 {
            rustix::fs::mkdirat(&here, &name, Mode::RWXU).unwrap();
            here = openat(&here, &name, flags, Mode::empty()).unwrap();
        }
        assert_eq!(remove_below(&top), Ok(()));
        assert_eq!(fs::read_dir(&top).unwrap().count(), 0);
        remove(&top);
        assert!(!top.exists());
        assert_eq!(remove_below(&top), Err(Errno::NOENT));
    }
}
