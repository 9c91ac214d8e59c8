//! What a container uses, and what it may use, which changes.

use std::sync::PoisonError;

use containerd_shim_protos::protobuf::well_known_types::any::Any;
use wasmbox_cgroup::ProcessCgroups;

use super::{Container, ContainerError};
use crate::{delegation::LiftedQuotas, stats};

impl Container {
    /// `resources`: `linux.resources` of the specification, in JSON.
    pub async fn update(&self, resources: &[u8]) -> Result<(), ContainerError> {
        let _updating = self.updating.lock().await;
        let path = self.bundle.path().join("resources.json");
        std::fs::write(&path, resources).map_err(|source| ContainerError::Io {
            container: self.id.clone(),
            what: "resources",
            source,
        })?;
        let lifted = match &self.cgroup {
            Some(cgroup) => LiftedQuotas::of(cgroup.clone()).await,
            None => LiftedQuotas::default(),
        };
        let updated = self.runtime.update(&self.id, self.bundle.path(), &path).await;
        lifted.restore().await;
        Ok(updated?)
    }

    /// The pids of all processes, and the exec that one is. The init process's is among them until the container is deleted: containerd,
    /// restarted, takes a shim without processes for a leak, and the exit status would be lost with it.
    pub fn pids(&self) -> Vec<(u32, Option<String>)> {
        let processes = self.processes();
        let exec = |pid| processes.execs.iter().find(|(_, exec)| exec.process.pid == pid).map(|(id, _)| id.clone());
        let mut pids = self.cgroup.as_ref().map(ProcessCgroups::pids).unwrap_or_default();
        if !pids.contains(&processes.init.pid) {
            pids.push(processes.init.pid);
        }
        pids.into_iter().map(|pid| (pid, exec(pid))).collect()
    }

    /// What the container has used; after its end the last reading.
    pub fn stats(&self) -> Result<Any, ContainerError> {
        let last = self.last_stats.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(last) = last {
            return Ok(last);
        }
        let cgroup = self.cgroup.as_ref().ok_or_else(|| ContainerError::NoCgroup { container: self.id.clone() })?;
        stats::stats(cgroup).map_err(|source| ContainerError::Stats { container: self.id.clone(), source })
    }

    /// For who asks after the end, when the cgroup is gone.
    pub(super) fn remember_stats(&self) {
        if let Some(stats) = self.cgroup.as_ref().and_then(|cgroup| stats::stats(cgroup).ok()) {
            *self.last_stats.lock().unwrap_or_else(PoisonError::into_inner) = Some(stats);
        }
    }
}
