//! Passes on what a process writes: from a pipe of the shim's to containerd's fifo. The kernel moves it (splice(2)); nothing is copied here.
//!
//! For further processes of a container: what one of them leaves running in the container may hold its output open for ever, and
//! containerd reads a fifo until nobody can write to it, so what is left must have none of containerd's. And for the standard error of all:
//! what the OCI runtime writes to it of a process that it cannot make is no output of the process's, and is discarded with the pipe.

use std::{io, os::fd::OwnedFd, sync::Arc, time::Duration};

use rustix::{
    io::{Errno, ioctl_fionread},
    pipe::{PipeFlags, SpliceFlags, pipe_with, splice},
};
use tokio::{io::unix::AsyncFd, task::JoinHandle, time::timeout};

use crate::{
    fifo::{has_reader, until_read, write_only},
    watched::watched,
};

/// How long what an ended process left may go on writing, once it is deleted; as containerd's shim for runc has it.
const GRACE: Duration = Duration::from_secs(2);
/// The most that is moved at once: as much as a pipe holds.
const MOST: usize = 64 << 10;

type WatchedFd = Arc<AsyncFd<OwnedFd>>;

/// Both ends of a pipe that does not lead on yet. Dropping it discards what was written to it.
#[derive(Debug)]
pub struct Unstarted {
    pipe: OwnedFd,
    fifo: OwnedFd,
}

impl Unstarted {
    /// To `fifo`, which is open for reading and writing. Returns the process's end, too.
    ///
    /// # Errors
    /// If no pipe can be made.
    pub fn new(fifo: OwnedFd) -> io::Result<(OwnedFd, Unstarted)> {
        let (pipe, end) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&pipe, true)?;
        Ok((end, Unstarted { pipe, fifo }))
    }

    /// # Errors
    /// If the descriptors cannot be watched.
    pub fn start(self) -> io::Result<Relay> {
        let pipe = Arc::new(watched(self.pipe)?);
        let fifo = Arc::new(watched(self.fifo)?);
        let task = tokio::spawn(relay(pipe.clone(), fifo.clone()));
        Ok(Relay { ends: Some((pipe, fifo)), task })
    }
}

/// A pipe that leads on. It ends when nobody can write to it any more, or when this is dropped.
#[derive(Debug)]
pub struct Relay {
    /// Until the process has ended and what it wrote was read: then the fifo is closed as soon as the pipe ends.
    ends: Option<(WatchedFd, WatchedFd)>,
    task: JoinHandle<()>,
}

impl Relay {
    /// When what the ended process wrote has been read; not for ever.
    pub async fn drained(&mut self) {
        let Some((pipe, former)) = self.ends.take() else { return };
        self.task.abort();
        let _ = (&mut self.task).await;
        let Ok(fifo) = write_only(former.get_ref()).and_then(watched).map(Arc::new) else { return };
        drop(former);
        self.task = tokio::spawn(relay(pipe.clone(), fifo.clone()));
        let unread = || {
            let written = |file: &WatchedFd| ioctl_fionread(file.get_ref()).unwrap_or(0);
            if has_reader(fifo.get_ref()) { written(&pipe) + written(&fifo) } else { 0 }
        };
        until_read(unread).await;
    }

    /// When nobody can write any more, or after a grace.
    pub async fn finish(mut self) {
        let _ = timeout(GRACE, &mut self.task).await;
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn relay(pipe: WatchedFd, fifo: WatchedFd) {
    loop {
        let (Ok(mut readable), Ok(mut writable)) = (pipe.readable().await, fifo.writable().await) else { return };
        match splice(pipe.get_ref(), None, fifo.get_ref(), None, MOST, SpliceFlags::NONBLOCK | SpliceFlags::MOVE) {
            // Nobody can write any more.
            Ok(0) => return,
            Ok(_) => {}
            // Either the pipe is empty, or the fifo is full.
            Err(Errno::AGAIN) if ioctl_fionread(pipe.get_ref()) == Ok(0) => readable.clear_ready(),
            Err(Errno::AGAIN) => writable.clear_ready(),
            // Nobody can read any more.
            Err(_) => return,
        }
    }
}
