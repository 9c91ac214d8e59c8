//! Tells when the kernel kills a process of a container because its memory limit is reached.

use std::{
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError},
};

use containerd_shim_protos::events::task::TaskOOM;
use rustix::io::Errno;
use tokio::{
    io::{Interest, unix::AsyncFd},
    task::JoinHandle,
};
use wasmbox_cgroup::{
    ProcessCgroups,
    oom::{self, OomEventsError},
};

use crate::{events::Events, watched::watched};

/// Tells containerd of kills in one container, each once.
#[derive(Debug)]
pub struct OomReporter {
    told: Arc<Told>,
    /// By this task alone: the kernel does not tell it that the cgroup is gone, and gives a user few of the files that it waits on.
    watch: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Told {
    container: String,
    cgroup: Option<ProcessCgroups>,
    events: Events,
    /// How many kills were told of.
    kills: Mutex<u64>,
}

impl OomReporter {
    pub fn new(container: String, cgroup: Option<ProcessCgroups>, events: Events) -> OomReporter {
        let told = Told { container, cgroup, events, kills: Mutex::default() };
        OomReporter { told: Arc::new(told), watch: Mutex::default() }
    }

    /// From now on.
    pub fn watch(&self) {
        let Some(cgroup) = &self.told.cgroup else { return };
        let watch = match OomWatch::new(cgroup) {
            Ok(watch) => watch,
            Err(error) => {
                return log::warn!("container {}: out of memory is not watched for: {error:#}", self.told.container);
            }
        };
        let told = self.told.clone();
        let task = tokio::spawn(async move {
            while watch.event().await.is_ok() {
                told.update();
            }
        });
        self.watch_by(Some(task));
    }

    fn watch_by(&self, task: Option<JoinHandle<()>>) {
        let former = std::mem::replace(&mut *self.watch.lock().unwrap_or_else(PoisonError::into_inner), task);
        former.inspect(JoinHandle::abort);
    }

    /// For the last time: the container has ended.
    pub fn finish(&self) {
        self.watch_by(None);
        self.told.update();
    }
}

impl Drop for OomReporter {
    fn drop(&mut self) {
        self.watch_by(None);
    }
}

impl Told {
    /// Tells of kills that were not told of.
    fn update(&self) {
        let kills = self.cgroup.as_ref().map_or(0, oom::kills);
        let told = std::mem::replace(&mut *self.kills.lock().unwrap_or_else(PoisonError::into_inner), kills);
        if kills > told {
            self.events.publish(&TaskOOM { container_id: self.container.clone(), ..Default::default() });
        }
    }
}

/// Wakes whenever the container has run out of memory.
#[derive(Debug)]
struct OomWatch {
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
    async fn event(&self) -> std::io::Result<()> {
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
