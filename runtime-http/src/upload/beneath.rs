//! Files below a directory that others can write, too: no name leads out of it, and nothing but regular files is read.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, OwnedFd},
};

use rustix::{
    fs::{self, AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, ResolveFlags, Stat},
    io::Errno,
};

/// As the store resolves names of functions, which may be links inside their directory.
pub const SERVED: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS);
/// In directories of the box's own no link is followed.
pub const OWN: ResolveFlags = SERVED.union(ResolveFlags::NO_SYMLINKS);

/// The most names of one directory that are looked at.
pub const MOST_NAMES: usize = 200_000;
/// How deep a tree is removed; the box's own are not as deep.
const DEPTH: usize = 4;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// # Errors
/// The kernel's: if it is no directory, or a link is on the way.
pub fn directory(at: impl AsFd, name: &str) -> io::Result<OwnedFd> {
    Ok(fs::openat2(at, name, DIRECTORY, Mode::empty(), OWN)?)
}

/// The same, made if it is not there.
///
/// # Errors
/// The kernel's.
pub fn made(at: impl AsFd, name: &str) -> io::Result<OwnedFd> {
    match fs::mkdirat(&at, name, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => directory(at, name),
        Err(errno) => Err(errno.into()),
    }
}

/// A file that is locked until it is closed (flock(2)), made if it is not there; `None` if somebody else has the lock. It is open for writing, which network file
/// systems ask for.
///
/// # Errors
/// The kernel's.
pub fn lock(at: impl AsFd, name: &str, make: bool) -> io::Result<Option<File>> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let flags = if make { flags | OFlags::CREATE } else { flags };
    let mode = if make { Mode::RUSR | Mode::WUSR } else { Mode::empty() };
    let file = File::from(fs::openat2(at, name, flags, mode, OWN)?);
    match fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// A regular file to be read; `None` if there is none of that name.
///
/// # Errors
/// The kernel's.
pub fn file(at: impl AsFd, name: &str, resolve: ResolveFlags) -> io::Result<Option<(File, Stat)>> {
    // Without NONBLOCK, opening a FIFO would wait for its writer.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let opened = match fs::openat2(at, name, flags, Mode::empty(), resolve) {
        Ok(opened) => opened,
        Err(Errno::NOENT | Errno::XDEV | Errno::LOOP | Errno::NXIO) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    let stat = fs::fstat(&opened)?;
    let is_regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    Ok(is_regular.then(|| (File::from(opened), stat)))
}

/// A new file.
///
/// # Errors
/// The kernel's, also if there is one.
pub fn create(at: impl AsFd, name: &str) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    Ok(File::from(fs::openat2(at, name, flags, Mode::from_raw_mode(0o644), OWN)?))
}

/// A new file with that content, on disk when this returns.
///
/// # Errors
/// The kernel's.
pub fn write(at: impl AsFd, name: &str, content: &[u8]) -> io::Result<()> {
    let mut file = create(at, name)?;
    file.write_all(content)?;
    file.sync_all()
}

/// The same content under another name: the same file, or where that is not possible, a copy of at most `limit` bytes.
///
/// # Errors
/// The kernel's, also if there is a file of the new name.
pub fn link(from: impl AsFd, name: &str, to: impl AsFd, new: &str, limit: u64) -> io::Result<()> {
    let Some((source, stat)) = file(&from, name, OWN)? else { return Err(Errno::NOENT.into()) };
    match fs::linkat(&from, name, &to, new, AtFlags::empty()) {
        Ok(()) => {
            let linked = fs::statat(&to, new, AtFlags::SYMLINK_NOFOLLOW)?;
            if (linked.st_dev, linked.st_ino) == (stat.st_dev, stat.st_ino) {
                return Ok(());
            }
            // Somebody else has put another there meanwhile.
            fs::unlinkat(&to, new, AtFlags::empty())?;
        }
        // Links are not possible everywhere, nor to files of others (proc_sys_fs(5), protected_hardlinks).
        Err(Errno::PERM | Errno::MLINK | Errno::OPNOTSUPP | Errno::XDEV | Errno::NOSYS | Errno::ACCESS) => {}
        Err(errno) => return Err(errno.into()),
    }
    copy(&source, to, new, limit)
}

/// A copy of what can be read of `source`, on disk when this returns.
///
/// # Errors
/// The kernel's, or that it is larger than `limit`.
pub fn copy(source: &File, to: impl AsFd, new: &str, limit: u64) -> io::Result<()> {
    let mut target = create(to, new)?;
    if io::copy(&mut source.take(limit + 1), &mut target)? > limit {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    target.sync_all()
}

/// The names in a directory that are text.
///
/// # Errors
/// The kernel's, or that there are too many.
pub fn names(directory: impl AsFd) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if let Ok(name) = entry.file_name().to_str()
            && ![".", ".."].contains(&name)
        {
            if names.len() >= MOST_NAMES {
                return Err(io::Error::other(format!("a directory has more than {MOST_NAMES} names")));
            }
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// Removes a file, or a directory with what is in it. It is not there afterwards, or was not.
///
/// # Errors
/// The kernel's.
pub fn remove(at: impl AsFd, name: &str) -> io::Result<()> {
    remove_tree(at.as_fd(), name, DEPTH)
}

fn remove_tree(at: std::os::fd::BorrowedFd<'_>, name: &str, depth: usize) -> io::Result<()> {
    match fs::unlinkat(at, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) if depth > 0 => {}
        Err(errno) => return Err(errno.into()),
    }
    let own = directory(at, name)?;
    for entry in names(&own)? {
        remove_tree(own.as_fd(), &entry, depth - 1)?;
    }
    match fs::unlinkat(at, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// The whole of a file of at most `limit` bytes; `None` if it has more.
///
/// # Errors
/// The kernel's.
pub fn content(file: &File, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= limit).then_some(bytes))
}
