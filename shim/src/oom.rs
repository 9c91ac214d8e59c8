//! Tells when the kernel kills a process of a container because its memory limit is reached.

use std::os::fd::OwnedFd;

use rustix::{
    event::{EventfdFlags, eventfd},
    fs::inotify,
    io::Errno,
};
use tokio::io::{Interest, unix::AsyncFd};

use crate::{cgroup::Cgroup, watched::watched};

/// Wakes whenever the container has run out of memory: v1 `cgroup.event_control`, v2 changes of `memory.events`.
#[derive(Debug)]
pub struct OomWatch {
    file: AsyncFd<OwnedFd>,
}

impl OomWatch {
    /// # Errors
    /// The kernel's.
    pub fn new(cgroup: &Cgroup) -> anyhow::Result<OomWatch> {
        let directory = cgroup.directory("memory").ok_or_else(|| anyhow::anyhow!("no memory controller"))?;
        let file = match cgroup {
            Cgroup::V1(_) => {
                let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
                let control = std::fs::File::open(directory.join("memory.oom_control"))?;
                let numbers = format!(
                    "{} {}",
                    std::os::fd::AsRawFd::as_raw_fd(&event),
                    std::os::fd::AsRawFd::as_raw_fd(&control)
                );
                std::fs::write(directory.join("cgroup.event_control"), numbers)?;
                event
            }
            Cgroup::V2(_) => {
                let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
                inotify::add_watch(&watch, directory.join("memory.events"), inotify::WatchFlags::MODIFY)?;
                watch
            }
        };
        Ok(OomWatch { file: watched(file)? })
    }

    /// Returns after the next event; on v1 also when the cgroup is removed.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn event(&self) -> std::io::Result<()> {
        let mut buffer = [0; 4096];
        self.file
            .async_io(Interest::READABLE, |file| match rustix::io::read(file, &mut buffer) {
                Ok(_) => Ok(()),
                Err(Errno::AGAIN) => Err(std::io::ErrorKind::WouldBlock.into()),
                Err(errno) => Err(errno.into()),
            })
            .await
    }
}
