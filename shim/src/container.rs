//! A container and its processes: what each Task call does to it.
//!
//! One lock guards its processes, and is never held while the OCI runtime is called: a call that hangs holds up no signal and no question.
//! That the end of the init process is told after its start, and never before, is another lock's matter. Every call has a deadline.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, SystemTime},
};

use containerd_shim_protos::{
    events::task::{
        TaskCreate, TaskExecAdded, TaskExecStarted, TaskExit, TaskIO, TaskOOM, TaskPaused, TaskResumed, TaskStart,
    },
    protobuf::{
        MessageField,
        well_known_types::{any::Any, timestamp::Timestamp},
    },
    types::mount::Mount,
};
use rustix::process::Signal;
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
    time::timeout,
};

use crate::{
    bundle::Bundle,
    cgroup::Cgroup,
    compile_socket::CompileSocket,
    delegation::{self, LiftedQuotas},
    events::Events,
    exits::{self, Exit, Exits},
    oom::OomWatch,
    process::{Attached, IllegalTransition, Prepared, Process, State},
    runtime::{Runtime, RuntimeError},
    stats,
    stdio::{Addresses, StdioError},
};

/// The signal that cannot be refused.
pub const SIGKILL: u32 = 9;
/// The status of a process that was never started: as if killed.
const NEVER_STARTED: u32 = 128 + SIGKILL;
/// How long the end of a killed process may take to be told.
const KILLED: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    #[error("container {container}: no process {exec}")]
    NoProcess { container: String, exec: String },
    #[error("container {container}: process {exec} exists already")]
    Exists { container: String, exec: String },
    #[error("container {container}: process already finished")]
    Finished { container: String },
    #[error(transparent)]
    Transition(#[from] IllegalTransition),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error(transparent)]
    Stdio(#[from] StdioError),
    #[error("container {container}: {what}: {source}")]
    Io { container: String, what: &'static str, source: std::io::Error },
    #[error("container {container}: {reason}")]
    Other { container: String, reason: String },
}

/// What a new container is made of.
pub struct Request {
    pub id: String,
    pub bundle: Bundle,
    pub rootfs: Vec<Mount>,
    pub addresses: Addresses,
}

pub struct Container {
    pub id: String,
    pub bundle: Bundle,
    namespace: String,
    runtime: Runtime,
    exits: Exits,
    events: Events,
    /// Whether others share its pid namespace: then its processes do not end with the first one.
    shares_pids: bool,
    /// As long as the container is there.
    _compile_socket: Option<CompileSocket>,
    cgroup: Option<Cgroup>,
    processes: Mutex<Processes>,
    /// Held while the init process is started, and while its end is told.
    order: tokio::sync::Mutex<()>,
    /// One change of limits at a time: quotas of invocations are lifted meanwhile.
    updating: tokio::sync::Mutex<()>,
    /// The last reading before the cgroup goes with the container.
    last_stats: Mutex<Option<Any>>,
    oom_watch: Mutex<Option<JoinHandle<()>>>,
    reported_oom_kills: Mutex<u64>,
}

struct Processes {
    init: Process,
    execs: BTreeMap<String, Exec>,
}

struct Exec {
    process: Process,
    spec: PathBuf,
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
    pub async fn create(
        request: Request,
        namespace: &str,
        runtime: Runtime,
        exits: Exits,
        events: Events,
        shares_pids: bool,
        compile_socket: Option<CompileSocket>,
    ) -> Result<Arc<Container>, ContainerError> {
        let Request { id, bundle, rootfs, addresses } = request;
        let mounted = mount(&bundle, &rootfs).map_err(|reason| ContainerError::Other { container: id.clone(), reason });
        if let Err(error) = mounted {
            bundle.unmount();
            return Err(error);
        }
        let made = async {
            let mut prepared = Prepared::new(&addresses, &exits, &bundle, namespace, &id).await?;
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
        let cgroup = Cgroup::of(pid).map_err(|error| log::warn!("container {id}: {error}")).ok();
        let mut init = Process::new(addresses.clone());
        init.pid = pid;
        init.attached = attached;
        let container = Arc::new(Container {
            id: id.clone(),
            bundle: bundle.clone(),
            namespace: namespace.to_owned(),
            runtime,
            exits,
            events: events.clone(),
            shares_pids,
            _compile_socket: compile_socket,
            cgroup,
            processes: Mutex::new(Processes { init, execs: BTreeMap::new() }),
            order: tokio::sync::Mutex::default(),
            updating: tokio::sync::Mutex::default(),
            last_stats: Mutex::default(),
            oom_watch: Mutex::default(),
            reported_oom_kills: Mutex::default(),
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
            self.watch_for_oom_by(None);
            self.report_oom();
        }
        let attached = self.processes().get(&self.id, exec).ok().map(Process::take_attached);
        let logger = match attached {
            Some(attached) => attached.drained().await,
            None => None,
        };
        if let Ok(process) = self.processes().get(&self.id, exec) {
            process.logger = logger;
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
        self.watch_oom();
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

    async fn start_exec(self: &Arc<Self>, exec: &str) -> Result<u32, ContainerError> {
        let (addresses, spec) = {
            let mut processes = self.processes();
            if processes.init.state() != State::Running {
                return Err(ContainerError::Finished { container: self.id.clone() });
            }
            let missing = || ContainerError::NoProcess { container: self.id.clone(), exec: exec.to_owned() };
            let Exec { process, spec } = processes.execs.get_mut(exec).ok_or_else(missing)?;
            process.starting()?;
            (process.addresses.clone(), spec.clone())
        };
        let made = async {
            let mut prepared = Prepared::new(&addresses, &self.exits, &self.bundle, &self.namespace, &self.id).await?;
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
            // Who waits for the end of one that never began waits no longer.
            let never = Exit { status: NEVER_STARTED, at: SystemTime::now() };
            let (attached, pid, exit) = made.inspect_err(|_| process.stopped(never))?;
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

    /// Adds a process, which does not run yet; `spec` is a `process` of the OCI specification in JSON.
    pub fn exec(&self, exec: &str, addresses: Addresses, spec: &[u8]) -> Result<(), ContainerError> {
        let mut processes = self.processes();
        if processes.execs.contains_key(exec) {
            return Err(ContainerError::Exists { container: self.id.clone(), exec: exec.to_owned() });
        }
        // Ids come from containerd, which allows letters, digits, dashes, dots and underscores.
        let safe = !exec.is_empty() && exec.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if !safe {
            let reason = format!("process id {exec:?}: expected letters, digits, dashes, dots and underscores");
            return Err(ContainerError::Other { container: self.id.clone(), reason });
        }
        let path = self.bundle.path().join(format!("exec-{exec}.json"));
        let mut process: serde_json::Value = serde_json::from_slice(spec).map_err(|error| ContainerError::Other {
            container: self.id.clone(),
            reason: format!("process spec: {error}"),
        })?;
        process["terminal"] = addresses.terminal.into();
        std::fs::write(&path, process.to_string()).map_err(|source| ContainerError::Io {
            container: self.id.clone(),
            what: "process spec",
            source,
        })?;
        processes.execs.insert(exec.to_owned(), Exec { process: Process::new(addresses), spec: path });
        drop(processes);
        let event = TaskExecAdded { container_id: self.id.clone(), exec_id: exec.to_owned(), ..Default::default() };
        self.events.publish(&event);
        Ok(())
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
        let signal = exits::numbered(signal).ok_or_else(|| ContainerError::Other {
            container: self.id.clone(),
            reason: format!("signal {signal}: unknown"),
        })?;
        if self.exits.signal(pid, signal) { Ok(()) } else { Err(finished()) }
    }

    pub fn snapshot(&self, exec: &str) -> Result<Snapshot, ContainerError> {
        let mut processes = self.processes();
        let process = processes.get(&self.id, exec)?;
        Ok(Snapshot {
            pid: process.pid,
            state: process.state(),
            addresses: process.addresses.clone(),
            exit: process.exit(),
        })
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
            Attached::Files(kept) => kept.close_stdin(),
            Attached::Console(console) => console.close_stdin(),
            Attached::Nothing => {}
        }
        Ok(())
    }

    /// `resources`: `linux.resources` of the specification, in JSON.
    pub async fn update(&self, resources: &[u8]) -> Result<(), ContainerError> {
        let _updating = self.updating.lock().await;
        let path = self.bundle.path().join("resources.json");
        std::fs::write(&path, resources).map_err(|source| ContainerError::Io {
            container: self.id.clone(),
            what: "resources",
            source,
        })?;
        let lifted = self.cgroup.as_ref().map(LiftedQuotas::of);
        let updated = self.runtime.update(&self.id, self.bundle.path(), &path).await;
        if let Some(lifted) = lifted {
            lifted.restore();
        }
        Ok(updated?)
    }

    /// The pids of all processes, and the exec that one is. The init process's is among them until the container is deleted: containerd,
    /// restarted, takes a shim without processes for a leak, and the exit status would be lost with it.
    pub fn pids(&self) -> Vec<(u32, Option<String>)> {
        let processes = self.processes();
        let exec = |pid| processes.execs.iter().find(|(_, exec)| exec.process.pid == pid).map(|(id, _)| id.clone());
        let mut pids = self.cgroup.as_ref().map(Cgroup::pids).unwrap_or_default();
        if !pids.contains(&processes.init.pid) {
            pids.push(processes.init.pid);
        }
        pids.into_iter().map(|pid| (pid, exec(pid))).collect()
    }

    /// What the container has used; after its end the last reading.
    pub fn stats(&self) -> Result<Any, ContainerError> {
        let last = self.last_stats.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let error = |reason: String| ContainerError::Other { container: self.id.clone(), reason };
        match last {
            Some(last) => Ok(last),
            None => {
                let cgroup = self.cgroup.as_ref().ok_or_else(|| error("its cgroup was not found".into()))?;
                stats::stats(cgroup).map_err(|source| error(source.to_string()))
            }
        }
    }

    fn remember_stats(&self) {
        if let Some(stats) = self.cgroup.as_ref().and_then(|cgroup| stats::stats(cgroup).ok()) {
            *self.last_stats.lock().unwrap_or_else(PoisonError::into_inner) = Some(stats);
        }
    }

    fn watch_oom(self: &Arc<Self>) {
        let Some(cgroup) = &self.cgroup else { return };
        let watch = match OomWatch::new(cgroup) {
            Ok(watch) => watch,
            Err(error) => return log::warn!("container {}: out of memory is not watched for: {error:#}", self.id),
        };
        let container = Arc::downgrade(self);
        let task = tokio::spawn(async move {
            while watch.event().await.is_ok() {
                let Some(container) = container.upgrade() else { return };
                container.report_oom();
            }
        });
        self.watch_for_oom_by(Some(task));
    }

    /// By this task alone. The kernel does not tell it that the cgroup is gone, and gives a user few of the files that it waits on.
    fn watch_for_oom_by(&self, task: Option<JoinHandle<()>>) {
        let former = std::mem::replace(&mut *self.oom_watch.lock().unwrap_or_else(PoisonError::into_inner), task);
        if let Some(former) = former {
            former.abort();
        }
    }

    /// Tells of kills that were not told of.
    fn report_oom(&self) {
        let kills = self.cgroup.as_ref().map_or(0, Cgroup::oom_kills);
        let reported =
            std::mem::replace(&mut *self.reported_oom_kills.lock().unwrap_or_else(PoisonError::into_inner), kills);
        if kills > reported {
            self.events.publish(&TaskOOM { container_id: self.id.clone(), ..Default::default() });
        }
    }

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
            let _ = timeout(KILLED, end.wait_for(Option::is_some)).await;
        }
        let never = Exit { status: NEVER_STARTED, at: SystemTime::now() };
        let (exit, logger) = {
            let mut processes = self.processes();
            let process = processes.get(&self.id, exec)?;
            (process.exit().unwrap_or(never), process.logger.take())
        };
        if let Some(logger) = logger {
            logger.finish().await;
        }
        if exec.is_empty() {
            self.cgroup.as_ref().inspect(|cgroup| delegation::clear(cgroup));
            match self.runtime.delete(&self.id, self.bundle.path(), state == State::Created).await {
                // It is gone already: a delete that was interrupted is repeated.
                Err(RuntimeError::Failed { message, .. }) if message.contains("does not exist") => {}
                result => result?,
            }
            self.processes().init.stopped(exit);
            self.bundle.unmount();
        } else if let Some(exec) = self.processes().execs.remove(exec) {
            let _ = std::fs::remove_file(exec.spec);
        }
        Ok((pid, exit))
    }

    /// Undoes the creation, whatever has become of it.
    pub async fn discard(&self) {
        let deleted = self.delete("").await;
        if deleted.is_err() {
            let _ = self.runtime.remove(&self.id, &self.bundle).await;
        }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.watch_for_oom_by(None);
    }
}

fn mount(bundle: &Bundle, mounts: &[Mount]) -> Result<(), String> {
    let rootfs = bundle.rootfs();
    if !mounts.is_empty() {
        std::fs::create_dir_all(&rootfs).map_err(|error| format!("{}: {error}", rootfs.display()))?;
    }
    for mount in mounts {
        fn text(text: &str) -> Option<&str> {
            (!text.is_empty()).then_some(text)
        }
        containerd_shim::mount::mount_rootfs(text(&mount.type_), text(&mount.source), &mount.options, &rootfs)
            .map_err(|error| format!("mounting the root filesystem at {}: {error}", rootfs.display()))?;
    }
    Ok(())
}
