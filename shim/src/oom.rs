//! Tells when the kernel kills a process of a container because its memory limit is reached.

use std::os::fd::OwnedFd;

use containerd_shim_protos::events::task::TaskOOM;
use rustix::io::Errno;
use tokio::{
    io::{Interest, unix::AsyncFd},
    task::AbortHandle,
};
use wasmbox_cgroup::{
    ProcessCgroups,
    oom::{self, OomEventsError},
};

use crate::{events::Events, watched::watched};

/// Tells containerd of kills in one container, each once.
#[derive(Debug)]
pub struct OomReporter {
    container: String,
    cgroup: Option<ProcessCgroups>,
    events: Events,
    /// How many kills were told of.
    kills: u64,
    /// What waits for the next. By this alone it ends: the kernel does not tell it that the cgroup is gone, and gives a user few of the files
    /// that it waits on.
    waits: Option<AbortHandle>,
}

impl OomReporter {
    pub fn new(container: String, cgroup: Option<ProcessCgroups>, events: Events) -> OomReporter {
        OomReporter { container, cgroup, events, kills: 0, waits: None }
    }

    /// What to wait for.
    pub fn watch(&self) -> Option<OomWatch> {
        let unwatched = |error| log::warn!("container {}: out of memory is not watched for: {error:#}", self.container);
        OomWatch::new(self.cgroup.as_ref()?).map_err(unwatched).ok()
    }

    pub fn is_watched(&self) -> bool {
        self.waits.is_some()
    }

    pub fn watched_by(&mut self, waits: Option<AbortHandle>) {
        let former = std::mem::replace(&mut self.waits, waits);
        former.inspect(AbortHandle::abort);
    }

    /// Tells of kills that were not told of.
    pub fn update(&mut self) {
        let kills = self.cgroup.as_ref().map_or(0, oom::kills);
        let told = std::mem::replace(&mut self.kills, kills);
        if kills > told {
            self.events.publish(&TaskOOM { container_id: self.container.clone(), ..Default::default() });
        }
    }

    /// For the last time: the container has ended.
    pub fn finish(&mut self) {
        self.watched_by(None);
        self.update();
    }
}

impl Drop for OomReporter {
    fn drop(&mut self) {
        self.watched_by(None);
    }
}

/// Wakes whenever the container has run out of memory.
#[derive(Debug)]
pub struct OomWatch {
    file: AsyncFd<OwnedFd>,
}

impl OomWatch {
    /// # Errors
    /// The kernel's.
    fn new(cgroup: &ProcessCgroups) -> Result<OomWatch, OomEventsError> {
        Ok(OomWatch { file: watched(oom::events(cgroup)?)? })
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
