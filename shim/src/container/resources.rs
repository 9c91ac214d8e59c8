//! What a container uses, and what it may use, which changes.

use std::{fs, path::Path};

use containerd_shim_protos::protobuf::well_known_types::any::Any;
use wasmbox_cgroup::ProcessCgroups;

use super::{Actor, ContainerError, Reply};
use crate::{delegation::LiftedQuotas, oom::OomWatch, stats, thread};

impl Actor {
    /// `resources`: `linux.resources` of the specification, in JSON.
    pub(super) fn update(&mut self, resources: Vec<u8>, reply: Reply<()>) {
        if self.is_updating {
            return self.updates.push_back((resources, reply));
        }
        self.is_updating = true;
        let (setting, cgroup) = (self.setting.clone(), self.cgroup.clone());
        let updated = async move {
            let path = setting.bundle.path().join("resources.json");
            let error = |source| ContainerError::Io { container: setting.id.clone(), what: "resources", source };
            fs::write(&path, resources).map_err(error)?;
            let lifted = match cgroup {
                Some(cgroup) => LiftedQuotas::of(cgroup).await,
                None => LiftedQuotas::default(),
            };
            let updated = setting.runtime.update(&setting.id, setting.bundle.path(), &path).await;
            lifted.restore().await;
            Ok(updated?)
        };
        self.call(Ok(updated), reply, |actor, updated| {
            actor.is_updating = false;
            if let Some((resources, reply)) = actor.updates.pop_front() {
                actor.update(resources, reply);
            }
            updated
        });
    }

    /// The pids of all processes, and the exec that one is. The init process's is among them until the container is deleted: containerd,
    /// restarted, takes a shim without processes for a leak, and the exit status would be lost with it. On a thread of its own: nothing bounds
    /// how many cgroups a container makes.
    pub(super) fn pids(&mut self, reply: Reply<Vec<(u32, Option<String>)>>) {
        let cgroup = self.cgroup.clone();
        let pids = async move {
            match cgroup {
                Some(cgroup) => thread::run(move || cgroup.pids()).await.unwrap_or_default(),
                None => Vec::new(),
            }
        };
        self.call(Ok(pids), reply, |actor, mut pids| {
            if !pids.contains(&actor.init.pid) {
                pids.push(actor.init.pid);
            }
            let exec = |pid| actor.execs.iter().find(|(_, exec)| exec.process.pid == pid).map(|(id, _)| id.clone());
            Ok(pids.into_iter().map(|pid| (pid, exec(pid))).collect())
        });
    }

    /// What the container has used; after its end the last reading.
    pub(super) fn stats(&self) -> Result<Any, ContainerError> {
        self.last_stats.clone().map_or_else(|| self.read_stats(), Ok)
    }

    fn read_stats(&self) -> Result<Any, ContainerError> {
        let container = || self.setting.id.clone();
        let cgroup = self.cgroup.as_ref().ok_or_else(|| ContainerError::NoCgroup { container: container() })?;
        stats::stats(cgroup).map_err(|source| ContainerError::Stats { container: container(), source })
    }

    /// What the container has used until now, for who asks after its end, when the cgroup is gone. systemd removes one at once with its last
    /// process: what is read then is nothing, and the former reading stays.
    pub(super) fn remember_stats(&mut self) {
        let stats = self.read_stats();
        // On cgroup v1 a controller may be switched off.
        let is_there = |cgroup: &ProcessCgroups| {
            ["memory", "cpu", "pids"].iter().filter_map(|name| cgroup.directory(name)).any(Path::exists)
        };
        if let Ok(stats) = stats
            && self.cgroup.as_ref().is_some_and(is_there)
        {
            self.last_stats = Some(stats);
        }
    }

    /// Tells of processes that the kernel kills because memory is short, from now on.
    pub(super) fn watch_memory(&mut self) {
        if let Some(watch) = self.oom.watch() {
            self.wait_for_oom(watch);
        }
    }

    fn wait_for_oom(&mut self, watch: OomWatch) {
        let event = async move { watch.event().await.map(|()| watch) };
        let waits = self.beside(event, |actor, watch| {
            if let Ok(watch) = watch
                && actor.oom.is_watched()
            {
                actor.oom.update();
                actor.wait_for_oom(watch);
            }
        });
        self.oom.watched_by(Some(waits));
    }
}
