//! The end of a process's record, and of a container.

use std::time::{Duration, SystemTime};

use rustix::process::Signal;
use tokio::time::timeout;

use super::{Container, ContainerError, SIGKILL, exec::Exec};
use crate::{delegation, exits::Exit, process::State, runtime::RuntimeError};

/// How long the end of a killed process may take to be told.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

impl Container {
    /// Removes an ended process; of the init process, the whole container. Who asks again gets the same answer.
    pub async fn delete(&self, exec: &str) -> Result<(u32, Exit), ContainerError> {
        let (pid, state) = {
            let mut processes = self.processes();
            let process = processes.get(&self.id, exec)?;
            process.deletable()?;
            (process.pid, process.state())
        };
        // One that was never started is a process already. Its end is told before its deletion, as always.
        if state == State::Created && self.exits.signal(pid, Signal::KILL) {
            let mut end = self.watch(exec)?;
            let _ = timeout(KILL_TIMEOUT, end.wait_for(Option::is_some)).await;
        }
        let (exit, attached) = {
            let mut processes = self.processes();
            let process = processes.get(&self.id, exec)?;
            let never = if exec.is_empty() { Self::never_started() } else { Exec::never_ran() };
            (process.exit().unwrap_or(never), process.take_attached())
        };
        attached.finish().await;
        if exec.is_empty() {
            if let Some(cgroup) = &self.cgroup {
                delegation::clear(cgroup.clone()).await;
            }
            match self.runtime.delete(&self.id, self.bundle.path(), state == State::Created).await {
                // It is gone already: a delete that was interrupted is repeated.
                Err(RuntimeError::Failed { .. }) if !self.runtime.knows(&self.id) => {}
                result => result?,
            }
            {
                let mut processes = self.processes();
                processes.init.stopped(exit);
                // Nothing more is told of them, should a call of the runtime for one still go on.
                processes.execs.clear();
            }
            self.bundle.unmount();
        } else if let Some(exec) = self.processes().execs.remove(exec) {
            let _ = std::fs::remove_file(exec.spec);
        }
        Ok((pid, exit))
    }

    /// The exit of an init process that was made, and never started.
    fn never_started() -> Exit {
        Exit { status: 128 + SIGKILL, at: SystemTime::now() }
    }

    /// Undoes the creation, whatever has become of it.
    pub async fn discard(&self) {
        let deleted = self.delete("").await;
        if deleted.is_err() {
            let _ = self.runtime.remove(&self.id, &self.bundle).await;
        }
    }
}
