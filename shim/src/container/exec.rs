//! Further processes of a container.

use std::{fs, path::PathBuf, sync::Arc, time::SystemTime};

use containerd_shim_protos::events::task::{TaskExecAdded, TaskExecStarted};
use rustix::process::Signal;
use serde_json::{Map, Value};

use super::{Actor, ContainerError, Reply, Setting, setting::Made};
use crate::{
    exits::Exit,
    process::{Attached, Prepared, Process, State},
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
    fn never_ran() -> Exit {
        Exit { status: 0, at: SystemTime::now() }
    }
}

impl Actor {
    /// A frozen container starts nothing, one that has ended neither, also if nobody has been told of that.
    fn takes_execs(&self) -> Result<(), ContainerError> {
        match if self.init.reaped.is_some() { State::Stopped } else { self.init.state() } {
            State::Created | State::Starting | State::Running => self.stays(),
            state @ (State::Paused | State::Stopped) => {
                Err(ContainerError::Exec { container: self.setting.id.clone(), state })
            }
        }
    }

    pub(super) fn exec(&mut self, exec: &str) -> Result<&mut Exec, ContainerError> {
        let missing = || ContainerError::NoProcess { container: self.setting.id.clone(), exec: exec.to_owned() };
        self.execs.get_mut(exec).ok_or_else(missing)
    }

    /// Adds a process, which does not run yet; `spec` is a `process` of the OCI specification in JSON.
    pub(super) fn add_exec(&mut self, exec: String, addresses: Addresses, spec: &[u8]) -> Result<(), ContainerError> {
        let container = || self.setting.id.clone();
        self.takes_execs()?;
        if self.execs.contains_key(&exec) {
            return Err(ContainerError::Exists { container: container(), exec });
        }
        // Ids come from containerd, which allows letters, digits, dashes, dots and underscores.
        let safe = !exec.is_empty() && exec.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if !safe {
            return Err(ContainerError::ProcessId { container: container(), exec });
        }
        let path = self.setting.bundle.path().join(format!("exec-{exec}.json"));
        let mut process: Map<String, Value> = serde_json::from_slice(spec)
            .map_err(|source| ContainerError::ProcessSpec { container: container(), source })?;
        process.insert("terminal".into(), addresses.terminal.into());
        fs::write(&path, Value::from(process).to_string()).map_err(|source| ContainerError::Io {
            container: container(),
            what: "process spec",
            source,
        })?;
        let added = TaskExecAdded { container_id: container(), exec_id: exec.clone(), ..Default::default() };
        self.execs.insert(exec, Exec { process: Process::new(addresses), spec: path });
        self.setting.events.publish(&added);
        Ok(())
    }

    pub(super) fn start_exec(&mut self, exec: String, reply: Reply<u32>) {
        let begun = self.starting_exec(&exec);
        self.call(begun, reply, move |actor, made| actor.exec_made(exec, made));
    }

    fn starting_exec(
        &mut self,
        exec: &str,
    ) -> Result<impl Future<Output = Result<Made, ContainerError>> + Send + use<>, ContainerError> {
        let (takes_execs, setting) = (self.takes_execs(), self.setting.clone());
        let Exec { process, spec } = self.exec(exec)?;
        takes_execs?;
        process.starting()?;
        Ok(make(setting, exec.to_owned(), process.addresses.clone(), spec.clone()))
    }

    fn exec_made(&mut self, exec: String, made: Result<Made, ContainerError>) -> Result<u32, ContainerError> {
        let (container, state) = (self.setting.id.clone(), self.init.state());
        let process = self.process(&exec)?;
        let made = match made {
            // Nobody waited any longer.
            Ok(_) if state == State::Stopped => Err(ContainerError::Exec { container, state }),
            made => made,
        };
        let (attached, pid, exit) = match made {
            Ok(made) => made.take(),
            Err(error) => {
                process.start_failed();
                process.release(Exec::never_ran());
                self.tell_held();
                return Err(error);
            }
        };
        process.attached = attached;
        process.pid = pid;
        process.started()?;
        if self.init.reaped.is_some() {
            // What ran in the container was killed before this did.
            self.setting.exits.signal(pid, Signal::KILL);
        }
        let (container_id, exec_id) = (self.setting.id.clone(), exec.clone());
        self.setting.events.publish(&TaskExecStarted { container_id, exec_id, pid, ..Default::default() });
        self.follow(exec, exit);
        Ok(pid)
    }

    /// Removes an ended process. Nobody finds it any more, at once; what it left in the container may go on writing for a while, also if that
    /// is deleted meanwhile.
    pub(super) fn delete_exec(&mut self, exec: &str, reply: Reply<(u32, Exit)>) {
        let (attached, pid, exit) = match self.remove_exec(exec) {
            Ok(removed) => removed,
            Err(error) => return reply.send(Err(error)),
        };
        let finished = async move {
            attached.finish().await;
            reply.send(Ok((pid, exit)));
        };
        self.beside(finished, |_, ()| ());
    }

    fn remove_exec(&mut self, exec: &str) -> Result<(Attached, u32, Exit), ContainerError> {
        let Exec { process, spec } = self.exec(exec)?;
        process.deletable()?;
        let removed = (process.take_attached(), process.pid, process.exit().unwrap_or_else(Exec::never_ran));
        let _ = fs::remove_file(spec);
        self.execs.remove(exec);
        Ok(removed)
    }
}

/// Has the OCI runtime make it.
async fn make(
    setting: Arc<Setting>,
    exec: String,
    addresses: Addresses,
    spec: PathBuf,
) -> Result<Made, ContainerError> {
    let Setting { id, bundle, runtime, exits, .. } = &*setting;
    let mut prepared = Prepared::new(&addresses, bundle, setting.stdio_owner(true)).await?;
    let process = runtime.exec(id, bundle.path(), &exec, &spec, prepared.streams()).await?;
    Ok(Made::new(process, prepared, &addresses, exits)?)
}
