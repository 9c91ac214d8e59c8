//! What tells one content of a file from another without reading it.

use std::{
    fs::File,
    io,
    os::fd::AsFd,
    time::{Duration, SystemTime},
};

use rustix::fs;

/// A file that was changed less than this ago may be half-written, or changed again with the same times: the clock of those has ticks of some milliseconds.
pub const SETTLED: Duration = Duration::from_millis(100);

/// What changes whenever a file's content does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileIdentity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileIdentity {
    pub fn of(stat: &fs::Stat) -> Self {
        FileIdentity {
            device: stat.st_dev,
            inode: stat.st_ino,
            size: stat.st_size.unsigned_abs(),
            modified: (stat.st_mtime, stat.st_mtime_nsec as i64),
            changed: (stat.st_ctime, stat.st_ctime_nsec as i64),
        }
    }

    /// # Errors
    /// fstat(2)'s.
    pub fn of_open(file: &File) -> io::Result<Self> {
        Ok(Self::of(&fs::fstat(file)?))
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    /// How long its content has been what it is.
    pub fn age(&self, now: SystemTime) -> Option<Duration> {
        now.duration_since(time(self.modified)?).ok()
    }

    /// Whether `file`, which has it, cannot become another content and keep it: its last change is some ticks of the kernel's clock ago, and its file system is one
    /// whose times are the kernel's own. Elsewhere they are what a server says, or what was written into an image.
    pub fn is_telling(&self, file: impl AsFd) -> bool {
        const EXT4: u64 = 0xef53;
        const XFS: u64 = 0x5846_5342;
        const BTRFS: u64 = 0x9123_683e;
        const TMPFS: u64 = 0x0102_1994;
        let is_old = time(self.changed)
            .and_then(|changed| SystemTime::now().duration_since(changed).ok())
            .is_some_and(|age| age >= SETTLED);
        is_old && fs::fstatfs(file).is_ok_and(|statfs| [EXT4, XFS, BTRFS, TMPFS].contains(&(statfs.f_type as u64)))
    }

    /// In bytes.
    pub const BYTES: usize = 56;

    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let Self { device, inode, size, modified, changed } = self;
        let signed = [modified.0, modified.1, changed.0, changed.1].map(i64::cast_unsigned);
        let mut bytes = [0; Self::BYTES];
        for (into, number) in bytes.chunks_exact_mut(8).zip([device, inode, size].into_iter().chain(signed)) {
            into.copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    /// Of [`Self::to_bytes`].
    pub fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        let number = |index: usize| u64::from_le_bytes(std::array::from_fn(|byte| bytes[index * 8 + byte]));
        let signed = |index| number(index).cast_signed();
        FileIdentity {
            device: number(0),
            inode: number(1),
            size: number(2),
            modified: (signed(3), signed(4)),
            changed: (signed(5), signed(6)),
        }
    }

    /// Of the file, whatever its content is.
    pub fn inode_bytes(&self) -> [u8; 16] {
        (u128::from(self.device) << 64 | u128::from(self.inode)).to_le_bytes()
    }
}

fn time((seconds, nanoseconds): (i64, i64)) -> Option<SystemTime> {
    let since = Duration::new(u64::try_from(seconds).ok()?, u32::try_from(nanoseconds).ok()?);
    SystemTime::UNIX_EPOCH.checked_add(since)
}

#[cfg(test)]
impl FileIdentity {
    /// For tests: one of many that differ.
    pub fn numbered(inode: u64) -> FileIdentity {
        FileIdentity { device: 0, inode, size: 0, modified: (0, 0), changed: (0, 0) }
    }

    pub fn number(&self) -> u64 {
        self.inode
    }
}
