//! Further processes of a container.

use std::{path::PathBuf, sync::Arc, time::SystemTime};

use containerd_shim_protos::events::task::{TaskExecAdded, TaskExecStarted};
use rustix::process::Signal;
use serde_json::Value;

use super::{Container, ContainerError};
use crate::{
    exits::Exit,
    process::{Prepared, Process, State},
    stdio::Addresses,
};

/// A process beside the container's first one.
pub struct Exec {
    pub process: Process,
    /// A file with its `process` of the OCI specification.
    pub spec: PathBuf,
}

impl Exec {
    /// The exit of one that never ran.
    pub fn never_ran() -> Exit {
        Exit { status: 0, at: SystemTime::now() }
    }
}

impl Container {
    /// Adds a process, which does not run yet; `spec` is a `process` of the OCI specification in JSON.
    pub fn exec(&self, exec: &str, addresses: Addresses, spec: &[u8]) -> Result<(), ContainerError> {
        let container = || self.id.clone();
        let mut processes = self.processes();
        self.takes_execs(processes.init.state())?;
        if processes.execs.contains_key(exec) {
            return Err(ContainerError::Exists { container: container(), exec: exec.to_owned() });
        }
        // Ids come from containerd, which allows letters, digits, dashes, dots and underscores.
        let safe = !exec.is_empty() && exec.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if !safe {
            return Err(ContainerError::ProcessId { container: container(), exec: exec.to_owned() });
        }
        let path = self.bundle.path().join(format!("exec-{exec}.json"));
        let mut process: Value = serde_json::from_slice(spec)
            .map_err(|source| ContainerError::ProcessSpec { container: container(), source })?;
        process["terminal"] = addresses.terminal.into();
        std::fs::write(&path, process.to_string()).map_err(|source| ContainerError::Io {
            container: container(),
            what: "process spec",
            source,
        })?;
        processes.execs.insert(exec.to_owned(), Exec { process: Process::new(addresses), spec: path });
        drop(processes);
        let event = TaskExecAdded { container_id: container(), exec_id: exec.to_owned(), ..Default::default() };
        self.events.publish(&event);
        Ok(())
    }

    /// A frozen container starts nothing, and one that has ended neither.
    fn takes_execs(&self, state: State) -> Result<(), ContainerError> {
        match state {
            State::Created | State::Starting | State::Running => Ok(()),
            State::Paused | State::Stopped => Err(ContainerError::Exec { container: self.id.clone(), state }),
        }
    }

    pub(super) async fn start_exec(self: &Arc<Self>, exec: &str) -> Result<u32, ContainerError> {
        let (addresses, spec) = {
            let mut processes = self.processes();
            let state = processes.init.state();
            let missing = || ContainerError::NoProcess { container: self.id.clone(), exec: exec.to_owned() };
            let Exec { process, spec } = processes.execs.get_mut(exec).ok_or_else(missing)?;
            self.takes_execs(state)?;
            process.starting()?;
            (process.addresses.clone(), spec.clone())
        };
        let made = async {
            let mut prepared = Prepared::new(&addresses, &self.bundle, self.stdio_owner(true)).await?;
            let (pid, exit) = self.runtime.exec(&self.id, self.bundle.path(), exec, &spec, prepared.streams()).await?;
            let attached = prepared.attach(&addresses).inspect_err(|_| {
                let _ = self.exits.signal(pid, Signal::KILL);
            })?;
            Ok::<_, ContainerError>((attached, pid, exit))
        };
        let made = made.await;
        let (pid, exit) = {
            let mut processes = self.processes();
            let process = processes.get(&self.id, exec)?;
            let (attached, pid, exit) = made.inspect_err(|_| {
                process.start_failed();
                process.release(Exec::never_ran());
            })?;
            process.attached = attached;
            process.pid = pid;
            process.started()?;
            (pid, exit)
        };
        let event =
            TaskExecStarted { container_id: self.id.clone(), exec_id: exec.to_owned(), pid, ..Default::default() };
        self.events.publish(&event);
        self.follow(exec.to_owned(), pid, exit);
        Ok(pid)
    }
}
