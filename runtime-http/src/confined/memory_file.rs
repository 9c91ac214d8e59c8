//! Files in memory by which two processes exchange bytes: written by one, then sealed, so that the other may map them.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::{AsFd, BorrowedFd},
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{MemfdFlags, SealFlags},
    io::Errno,
};

use crate::artifacts::mapping::Mapping;

/// How long the kernel may use pages of a file for work of its own, such as moving them: it does not seal it then, and has waited for 150 ms itself
/// (`memfd_wait_for_pins` in mm/memfd.c).
const IN_USE: Duration = Duration::from_secs(5);
const BETWEEN_TRIES: Duration = Duration::from_millis(20);

/// One that can still be written.
pub struct MemoryFile(File);

/// One that nobody can change any more, whoever has it open.
pub struct Sealed {
    file: File,
    length: u64,
}

impl MemoryFile {
    /// # Errors
    /// The kernel's.
    pub fn new(name: &str) -> io::Result<MemoryFile> {
        let file = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        Ok(MemoryFile(file.into()))
    }

    pub fn file(&mut self) -> &mut File {
        &mut self.0
    }

    /// One with this content.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub fn containing(name: &str, content: &[u8]) -> io::Result<Sealed> {
        let mut file = MemoryFile::new(name)?;
        file.file().write_all(content)?;
        file.seal()
    }

    /// For a child, which writes it.
    ///
    /// # Errors
    /// If there are no more descriptors.
    pub fn stdio(&self) -> io::Result<Stdio> {
        self.0.try_clone().map(Stdio::from)
    }

    /// Blocks while the kernel uses pages of it.
    ///
    /// # Errors
    /// If somebody has it mapped for writing.
    pub fn seal(self) -> io::Result<Sealed> {
        let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
        let until = Instant::now() + IN_USE;
        loop {
            match rustix::fs::fcntl_add_seals(&self.0, seals) {
                Err(Errno::BUSY) if Instant::now() < until => thread::sleep(BETWEEN_TRIES),
                result => break result?,
            }
        }
        Sealed::of(self.0)
    }
}

impl Sealed {
    /// One that another process made.
    ///
    /// # Errors
    /// If it is none, or not sealed.
    pub fn received(file: BorrowedFd<'_>) -> io::Result<Sealed> {
        let seals = rustix::fs::fcntl_get_seals(file)?;
        if !seals.contains(SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK) {
            return Err(io::Error::other("it is not sealed"));
        }
        Sealed::of(file.try_clone_to_owned()?.into())
    }

    fn of(file: File) -> io::Result<Sealed> {
        let length = file.metadata()?.len();
        Ok(Sealed { file, length })
    }

    /// Bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// # Errors
    /// If it is empty, or cannot be mapped.
    pub fn map(&self) -> io::Result<Mapping> {
        Mapping::new(&self.file, self.length)
    }

    /// Another descriptor of it.
    ///
    /// # Errors
    /// If there are no more descriptors.
    pub fn file(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// For a child, which reads it.
    ///
    /// # Errors
    /// If there are no more descriptors.
    pub fn stdio(&self) -> io::Result<Stdio> {
        Ok(self.file.as_fd().try_clone_to_owned()?.into())
    }
}
