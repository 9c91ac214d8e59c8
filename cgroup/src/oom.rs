//! Kills because memory was short. `libcgroups` does not tell of them.

use std::{
    fs::{self, File},
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use rustix::{
    event::{EventfdFlags, eventfd},
    fs::inotify,
};

use crate::process::ProcessCgroups;

#[derive(Debug, thiserror::Error)]
pub enum OomEventsError {
    #[error("no memory controller")]
    NoController,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Kernel(#[from] rustix::io::Errno),
}

/// How many processes the kernel killed since memory was short.
pub fn kills(cgroups: &ProcessCgroups) -> u64 {
    let fields = match cgroups {
        ProcessCgroups::V1(_) => cgroups.fields("memory", "memory.oom_control"),
        ProcessCgroups::V2(_) => cgroups.fields("memory", "memory.events"),
    };
    fields.get("oom_kill").copied().unwrap_or(0)
}

/// A descriptor that can be read whenever memory has run out: v1 `cgroup.event_control`, v2 changes of `memory.events`. On v1 it can also be
/// read when the cgroup is removed. Reading it does not block.
///
/// # Errors
/// The kernel's.
pub fn events(cgroups: &ProcessCgroups) -> Result<OwnedFd, OomEventsError> {
    let directory = cgroups.directory("memory").ok_or(OomEventsError::NoController)?;
    match cgroups {
        ProcessCgroups::V1(_) => {
            let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
            let control = File::open(directory.join("memory.oom_control"))?;
            let numbers = format!("{} {}", event.as_raw_fd(), control.as_raw_fd());
            fs::write(directory.join("cgroup.event_control"), numbers)?;
            Ok(event)
        }
        ProcessCgroups::V2(_) => {
            let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
            inotify::add_watch(&watch, directory.join("memory.events"), inotify::WatchFlags::MODIFY)?;
            Ok(watch)
        }
    }
}
