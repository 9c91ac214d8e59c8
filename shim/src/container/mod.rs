//! A container and its processes: what each Task call does to it.
//!
//! One lock guards its processes, and is never held while the OCI runtime is called: a call that hangs holds up no signal and no question.
//! That the end of the init process is told after its start, and never before, is another lock's matter. Every call has a deadline.

mod error;
mod exec;
mod removal;
mod resources;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::SystemTime,
};

use containerd_shim_protos::{
    events::task::{TaskCreate, TaskExit, TaskIO, TaskPaused, TaskResumed, TaskStart},
    protobuf::{
        MessageField,
        well_known_types::{any::Any, timestamp::Timestamp},
    },
    types::mount::Mount,
};
use tokio::sync::{oneshot, watch};
use wasmbox_cgroup::ProcessCgroups;

pub use self::error::ContainerError;
use self::exec::Exec;
use crate::{
    bundle::Bundle,
    compile_socket::CompileSocket,
    events::Events,
    exits::{self, Exit, Exits},
    oom::OomReporter,
    process::{Attached, Prepared, Process, State},
    rootfs,
    runtime::{Runtime, RuntimeError},
    stdio::{Addresses, StdioOwner},
};

/// The signal that cannot be refused.
pub const SIGKILL: u32 = 9;

/// What a new container is made of.
pub struct Request {
    pub id: String,
    pub bundle: Bundle,
    pub rootfs: Vec<Mount>,
    pub addresses: Addresses,
}

/// How a container is run.
pub struct Setting {
    pub namespace: String,
    pub runtime: Runtime,
    pub exits: Exits,
    pub events: Events,
    /// Whether others share its pid namespace: then its processes do not end with the first one.
    pub shares_pids: bool,
    /// Whose its streams are, by the host's numbers.
    pub io_owner: (u32, u32),
    /// As long as the container is there.
    pub compile_socket: Option<CompileSocket>,
}

pub struct Container {
    pub id: String,
    pub bundle: Bundle,
    namespace: String,
    runtime: Runtime,
    exits: Exits,
    events: Events,
    shares_pids: bool,
    io_owner: (u32, u32),
    _compile_socket: Option<CompileSocket>,
    cgroup: Option<ProcessCgroups>,
    processes: Mutex<Processes>,
    /// Held while the init process is started, and while its end is told.
    order: tokio::sync::Mutex<()>,
    /// One change of limits at a time: quotas of invocations are lifted meanwhile.
    updating: tokio::sync::Mutex<()>,
    /// The last reading before the cgroup goes with the container.
    last_stats: Mutex<Option<Any>>,
    oom: OomReporter,
}

struct Processes {
    init: Process,
    execs: BTreeMap<String, Exec>,
}

impl Processes {
    fn get(&mut self, container: &str, exec: &str) -> Result<&mut Process, ContainerError> {
        if exec.is_empty() {
            return Ok(&mut self.init);
        }
        let missing = || ContainerError::NoProcess { container: container.to_owned(), exec: exec.to_owned() };
        self.execs.get_mut(exec).map(|exec| &mut exec.process).ok_or_else(missing)
    }
}

/// What is known of a process, for the answers.
pub struct Snapshot {
    pub pid: u32,
    pub state: State,
    pub addresses: Addresses,
    pub exit: Option<Exit>,
}

pub fn timestamp(time: SystemTime) -> MessageField<Timestamp> {
    MessageField::some(Timestamp::from(time))
}

impl Container {
    /// Makes the container and its init process, which does not run yet. Nothing is left if that fails.
    pub async fn create(request: Request, setting: Setting) -> Result<Arc<Container>, ContainerError> {
        let Request { id, bundle, rootfs, addresses } = request;
        let Setting { namespace, runtime, exits, events, shares_pids, io_owner, compile_socket } = setting;
        if let Err(source) = rootfs::mount(&bundle, &rootfs, &exits).await {
            bundle.unmount();
            return Err(ContainerError::Rootfs { container: id, source });
        }
        let made = async {
            let owner = StdioOwner { exits: &exits, namespace: &namespace, id: &id, user: io_owner, is_exec: false };
            let mut prepared = Prepared::new(&addresses, &bundle, owner).await?;
            let (pid, exit) = runtime.create(&id, bundle.path(), prepared.streams()).await?;
            let attached = prepared.attach(&addresses)?;
            Ok((attached, pid, exit))
        };
        let (attached, pid, exit) = match made.await {
            Ok(made) => made,
            Err(error) => {
                let _ = runtime.remove(&id, &bundle).await;
                return Err(error);
            }
        };
        let cgroup = ProcessCgroups::of(pid).map_err(|error| log::warn!("container {id}: {error}")).ok();
        let mut init = Process::new(addresses.clone());
        init.pid = pid;
        init.attached = attached;
        let container = Arc::new(Container {
            id: id.clone(),
            bundle: bundle.clone(),
            namespace,
            runtime,
            exits,
            events: events.clone(),
            shares_pids,
            io_owner,
            _compile_socket: compile_socket,
            oom: OomReporter::new(id.clone(), cgroup.clone(), events.clone()),
            cgroup,
            processes: Mutex::new(Processes { init, execs: BTreeMap::new() }),
            order: tokio::sync::Mutex::default(),
            updating: tokio::sync::Mutex::default(),
            last_stats: Mutex::default(),
        });
        let io = TaskIO {
            stdin: addresses.stdin,
            stdout: addresses.stdout,
            stderr: addresses.stderr,
            terminal: addresses.terminal,
            ..Default::default()
        };
        events.publish(&TaskCreate {
            container_id: id,
            bundle: bundle.path().display().to_string(),
            rootfs,
            io: MessageField::some(io),
            pid,
            ..Default::default()
        });
        container.follow(String::new(), pid, exit);
        Ok(container)
    }

    /// Of its streams.
    fn stdio_owner(&self, is_exec: bool) -> StdioOwner<'_> {
        StdioOwner { exits: &self.exits, namespace: &self.namespace, id: &self.id, user: self.io_owner, is_exec }
    }

    fn processes(&self) -> MutexGuard<'_, Processes> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the end of a process in a task that does not keep the container.
    fn follow(self: &Arc<Self>, exec: String, pid: u32, exit: oneshot::Receiver<Exit>) {
        let container: Weak<Container> = Arc::downgrade(self);
        tokio::spawn(async move {
            // The sender is dropped when the shim ends.
            let Ok(exit) = exit.await else { return };
            if let Some(container) = container.upgrade() {
                container.ended(&exec, pid, exit).await;
            }
        });
    }

    async fn ended(&self, exec: &str, pid: u32, exit: Exit) {
        let _order = if exec.is_empty() { Some(self.order.lock().await) } else { None };
        if exec.is_empty() {
            if self.shares_pids {
                let _ = self.runtime.kill(&self.id, self.bundle.path(), SIGKILL, true).await;
            }
            self.remember_stats();
            self.oom.finish();
        }
        let attached = self.processes().get(&self.id, exec).ok().map(Process::take_attached);
        let mut attached = attached.unwrap_or(Attached::Nothing);
        attached.drained().await;
        {
            let mut processes = self.processes();
            // The container was deleted with it.
            let Ok(process) = processes.get(&self.id, exec) else { return };
            process.attached = attached;
            process.stopped(exit);
        }
        let id = if exec.is_empty() { self.id.clone() } else { exec.to_owned() };
        self.events.publish(&TaskExit {
            container_id: self.id.clone(),
            id,
            pid,
            exit_status: exit.status,
            exited_at: timestamp(exit.at),
            ..Default::default()
        });
    }

    pub async fn start(self: &Arc<Self>, exec: &str) -> Result<u32, ContainerError> {
        if exec.is_empty() { self.start_init().await } else { self.start_exec(exec).await }
    }

    async fn start_init(self: &Arc<Self>) -> Result<u32, ContainerError> {
        let _order = self.order.lock().await;
        self.processes().init.starting()?;
        self.oom.watch();
        if let Err(error) = self.runtime.start(&self.id, self.bundle.path()).await {
            self.processes().init.start_failed();
            return Err(error.into());
        }
        let pid = {
            let init = &mut self.processes().init;
            init.started()?;
            init.pid
        };
        self.events.publish(&TaskStart { container_id: self.id.clone(), pid, ..Default::default() });
        Ok(pid)
    }

    pub async fn kill(&self, exec: &str, signal: u32, all: bool) -> Result<(), ContainerError> {
        let (pid, state) = {
            let mut processes = self.processes();
            let process = processes.get(&self.id, exec)?;
            (process.pid, process.state())
        };
        let finished = || ContainerError::Finished { container: self.id.clone() };
        if state == State::Stopped && !all || pid == 0 {
            return Err(finished());
        }
        // All of them, and one that is frozen, are the runtime's matter.
        if exec.is_empty() && (all || state == State::Paused) {
            return match self.runtime.kill(&self.id, self.bundle.path(), signal, all).await {
                // With the last process gone, there is nothing to signal.
                Err(RuntimeError::Failed { .. }) if state == State::Stopped => Err(finished()),
                result => Ok(result?),
            };
        }
        let unknown = || ContainerError::Signal { container: self.id.clone(), signal };
        let signal = exits::numbered(signal).ok_or_else(unknown)?;
        if self.exits.signal(pid, signal) { Ok(()) } else { Err(finished()) }
    }

    pub fn snapshot(&self, exec: &str) -> Result<Snapshot, ContainerError> {
        let mut processes = self.processes();
        let init = processes.init.state();
        let process = processes.get(&self.id, exec)?;
        // With its container all that runs in it is frozen.
        let state = if (init, process.state()) == (State::Paused, State::Running) { init } else { process.state() };
        Ok(Snapshot { pid: process.pid, state, addresses: process.addresses.clone(), exit: process.exit() })
    }

    /// Follows the end of a process.
    pub fn watch(&self, exec: &str) -> Result<watch::Receiver<Option<Exit>>, ContainerError> {
        Ok(self.processes().get(&self.id, exec)?.watch())
    }

    pub async fn pause(&self) -> Result<(), ContainerError> {
        self.processes().init.pausable()?;
        self.runtime.pause(&self.id, self.bundle.path()).await?;
        self.processes().init.paused()?;
        self.events.publish(&TaskPaused { container_id: self.id.clone(), ..Default::default() });
        Ok(())
    }

    pub async fn resume(&self) -> Result<(), ContainerError> {
        self.runtime.resume(&self.id, self.bundle.path()).await?;
        self.processes().init.resumed()?;
        self.events.publish(&TaskResumed { container_id: self.id.clone(), ..Default::default() });
        Ok(())
    }

    pub fn resize(&self, exec: &str, height: u32, width: u32) -> Result<(), ContainerError> {
        let cells = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
        if let Attached::Console(console) = &self.processes().get(&self.id, exec)?.attached {
            console.resize(cells(height), cells(width)).map_err(|source| ContainerError::Io {
                container: self.id.clone(),
                what: "resizing the terminal",
                source,
            })?;
        }
        Ok(())
    }

    pub fn close_stdin(&self, exec: &str) -> Result<(), ContainerError> {
        match &mut self.processes().get(&self.id, exec)?.attached {
            Attached::Files(io) => io.close_stdin(),
            Attached::Console(console) => console.close_stdin(),
            Attached::Nothing => {}
        }
        Ok(())
    }
}
