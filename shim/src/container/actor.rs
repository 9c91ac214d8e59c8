//! A container's task. All that is known of the container is here, and changes here alone: by a command, or by the end of what a command has
//! begun.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use containerd_shim_protos::{
    events::task::{TaskCreate, TaskIO, TaskPaused, TaskResumed, TaskStart},
    protobuf::{MessageField, well_known_types::any::Any},
    types::mount::Mount,
};
use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinSet},
};
use wasmbox_cgroup::ProcessCgroups;

use super::{Command, Container, ContainerError, Reply, Setting, Snapshot, exec::Exec};
use crate::{
    compile_socket::CompileSocket,
    exits::{self, Exit},
    oom::OomReporter,
    process::{Attached, Process, State},
    runtime::RuntimeError,
    stdio::Addresses,
};

/// What follows the end of something that went on beside the task.
type Then = Box<dyn FnOnce(&mut Actor) + Send>;

pub struct Actor {
    pub(super) setting: Arc<Setting>,
    commands: mpsc::Receiver<Command>,
    /// What goes on beside the task.
    beside: JoinSet<Then>,
    pub(super) init: Process,
    pub(super) execs: BTreeMap<String, Exec>,
    /// The init process's end is held back, until those of execs are told. This ends the wait for them, which is bounded.
    pub(super) held: Option<AbortHandle>,
    pub(super) cgroup: Option<ProcessCgroups>,
    pub(super) oom: OomReporter,
    /// The last reading before the cgroup goes with the container.
    pub(super) last_stats: Option<Any>,
    /// One change of limits at a time: quotas of invocations are lifted meanwhile. Others wait.
    pub(super) is_updating: bool,
    pub(super) updates: VecDeque<(Vec<u8>, Reply<()>)>,
    /// Who asked for the deletion that goes on.
    pub(super) deletions: Vec<Reply<(u32, Exit)>>,
    /// Nobody else would remove it.
    pub(super) is_discarded: bool,
    /// How its init process had ended, once it is deleted.
    pub(super) deleted: Option<Exit>,
    _compile_socket: Option<CompileSocket>,
}

impl Actor {
    /// Makes the container and its init process, which does not run yet. Nothing is left if that fails.
    pub async fn create(
        setting: Setting,
        rootfs: Vec<Mount>,
        addresses: Addresses,
        compile_socket: Option<CompileSocket>,
    ) -> Result<(Container, Actor), ContainerError> {
        let (attached, pid, exit) = setting.create(&rootfs, &addresses).await?.take();
        let cgroup = ProcessCgroups::of(pid).map_err(|error| log::warn!("container {}: {error}", setting.id)).ok();
        let io = TaskIO {
            stdin: addresses.stdin.clone(),
            stdout: addresses.stdout.clone(),
            stderr: addresses.stderr.clone(),
            terminal: addresses.terminal,
            ..Default::default()
        };
        let created = TaskCreate {
            container_id: setting.id.clone(),
            bundle: setting.bundle.path().display().to_string(),
            rootfs,
            io: MessageField::some(io),
            pid,
            ..Default::default()
        };
        setting.events.publish(&created);
        let mut init = Process::new(addresses);
        init.pid = pid;
        init.attached = attached;
        let (container, commands) = Container::new(setting.id.clone(), setting.bundle.clone(), pid);
        let mut actor = Actor {
            oom: OomReporter::new(setting.id.clone(), cgroup.clone(), setting.events.clone()),
            setting: Arc::new(setting),
            commands,
            beside: JoinSet::new(),
            init,
            execs: BTreeMap::new(),
            held: None,
            cgroup,
            last_stats: None,
            is_updating: false,
            updates: VecDeque::new(),
            deletions: Vec::new(),
            is_discarded: false,
            deleted: None,
            _compile_socket: compile_socket,
        };
        actor.follow(String::new(), exit);
        Ok((container, actor))
    }

    /// Until the container is deleted.
    pub async fn run(&mut self) {
        while self.deleted.is_none() {
            tokio::select! {
                // What has ended is known before the next question is answered.
                biased;
                Some(ended) = self.beside.join_next() => {
                    match ended {
                        Ok(then) => then(self),
                        // Who asked is told of it by the end of the channel.
                        Err(error) if error.is_panic() => log::error!("container {}: {error}", self.setting.id),
                        Err(_) => {}
                    }
                }
                Some(command) = self.commands.recv() => self.take(command),
                else => return,
            }
        }
    }

    /// When nobody finds the container any more: tells who asked for its deletion. A call that has not ended yet goes on to its end, or its
    /// deadline, and nobody hears of it.
    pub fn finish(mut self) {
        if let Some(exit) = self.deleted {
            self.deletions.drain(..).for_each(|reply| reply.send(Ok((self.init.pid, exit))));
        }
        self.beside.detach_all();
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Start { exec, reply } if exec.is_empty() => self.start(reply),
            Command::Start { exec, reply } => self.start_exec(exec, reply),
            Command::Delete { exec, reply } if exec.is_empty() => self.delete(reply),
            Command::Delete { exec, reply } => self.delete_exec(&exec, reply),
            Command::Kill { exec, signal, all, reply } => self.kill(&exec, signal, all, reply),
            Command::AddExec { exec, addresses, spec, reply } => reply.send(self.add_exec(exec, addresses, &spec)),
            Command::Resize { exec, height, width, reply } => reply.send(self.resize(&exec, height, width)),
            Command::CloseIo { exec, stdin, reply } => reply.send(self.close_io(&exec, stdin)),
            Command::State { exec, reply } => reply.send(self.snapshot(&exec)),
            Command::Pause(reply) => self.pause(reply),
            Command::Resume(reply) => self.resume(reply),
            Command::Update { resources, reply } => self.update(resources, reply),
            Command::Pids(reply) => self.pids(reply),
            Command::Stats(reply) => reply.send(self.stats()),
        }
    }

    /// Has a call go on beside the task, which does then what follows.
    pub(super) fn beside<C: Future<Output: Send> + Send + 'static>(
        &mut self,
        call: C,
        then: impl FnOnce(&mut Actor, C::Output) + Send + 'static,
    ) -> AbortHandle {
        self.beside.spawn(async move {
            let ended = call.await;
            Box::new(move |actor: &mut Actor| then(actor, ended)) as Then
        })
    }

    /// As [`Actor::beside`], if the call could be begun; what then follows, or the error, is answered.
    pub(super) fn call<C: Future<Output: Send> + Send + 'static, T: Send + 'static>(
        &mut self,
        begun: Result<C, ContainerError>,
        reply: Reply<T>,
        then: impl FnOnce(&mut Actor, C::Output) -> Result<T, ContainerError> + Send + 'static,
    ) {
        match begun {
            Ok(call) => drop(self.beside(call, |actor, ended| reply.send(then(actor, ended)))),
            Err(error) => reply.send(Err(error)),
        }
    }

    pub(super) fn process(&mut self, exec: &str) -> Result<&mut Process, ContainerError> {
        if exec.is_empty() { Ok(&mut self.init) } else { Ok(&mut self.exec(exec)?.process) }
    }

    /// Nothing begins in what is being deleted.
    pub(super) fn stays(&self) -> Result<(), ContainerError> {
        let deleting = || ContainerError::Deleting { container: self.setting.id.clone() };
        if self.deletions.is_empty() { Ok(()) } else { Err(deleting()) }
    }

    fn start(&mut self, reply: Reply<u32>) {
        let setting = self.setting.clone();
        let begun = self.stays().and_then(|()| Ok(self.init.starting()?)).map(|()| {
            self.watch_memory();
            async move { setting.runtime.start(&setting.id, setting.bundle.path()).await }
        });
        self.call(begun, reply, |actor, started| {
            let started = actor.started(started);
            // Its end is told after its start, and never before.
            if actor.init.reaped.is_some() {
                actor.drain(String::new());
            }
            started
        });
    }

    fn started(&mut self, started: Result<(), RuntimeError>) -> Result<u32, ContainerError> {
        started.inspect_err(|_| self.init.start_failed())?;
        self.init.started()?;
        let (container_id, pid) = (self.setting.id.clone(), self.init.pid);
        self.setting.events.publish(&TaskStart { container_id, pid, ..Default::default() });
        Ok(pid)
    }

    fn kill(&mut self, exec: &str, signal: u32, all: bool, reply: Reply<()>) {
        let (pid, state) = match self.process(exec) {
            Ok(process) => (process.pid, process.state()),
            Err(error) => return reply.send(Err(error)),
        };
        // All of them, and one that is frozen, are the runtime's matter.
        if exec.is_empty() && (all || state == State::Paused) {
            let setting = self.setting.clone();
            let killed = async move { setting.runtime.kill(&setting.id, setting.bundle.path(), signal, all).await };
            return self.call(Ok(killed), reply, move |actor, killed| match killed {
                // With the last process gone, there is nothing to signal.
                Err(RuntimeError::Failed { .. }) if state == State::Stopped || actor.init.reaped.is_some() => {
                    Err(actor.finished())
                }
                killed => Ok(killed?),
            });
        }
        reply.send(match exits::numbered(signal) {
            _ if state == State::Stopped || pid == 0 => Err(self.finished()),
            None => Err(ContainerError::Signal { container: self.setting.id.clone(), signal }),
            Some(signal) if self.setting.exits.signal(pid, signal) => Ok(()),
            Some(_) => Err(self.finished()),
        });
    }

    fn finished(&self) -> ContainerError {
        ContainerError::Finished { container: self.setting.id.clone() }
    }

    fn snapshot(&mut self, exec: &str) -> Result<Snapshot, ContainerError> {
        let init = self.init.state();
        let process = self.process(exec)?;
        // With its container all that runs in it is frozen.
        let state = if (init, process.state()) == (State::Paused, State::Running) { init } else { process.state() };
        Ok(Snapshot { pid: process.pid, state, addresses: process.addresses.clone(), end: process.watch() })
    }

    fn pause(&mut self, reply: Reply<()>) {
        let setting = self.setting.clone();
        let pause = |()| async move { setting.runtime.pause(&setting.id, setting.bundle.path()).await };
        let begun = self.init.pausable().map(pause).map_err(ContainerError::from);
        self.call(begun, reply, |actor, paused| {
            paused?;
            actor.init.paused()?;
            let container_id = actor.setting.id.clone();
            actor.setting.events.publish(&TaskPaused { container_id, ..Default::default() });
            Ok(())
        });
    }

    fn resume(&mut self, reply: Reply<()>) {
        let setting = self.setting.clone();
        let resumed = async move { setting.runtime.resume(&setting.id, setting.bundle.path()).await };
        self.call(Ok(resumed), reply, |actor, resumed| {
            resumed?;
            actor.init.resumed()?;
            let container_id = actor.setting.id.clone();
            actor.setting.events.publish(&TaskResumed { container_id, ..Default::default() });
            Ok(())
        });
    }

    fn resize(&mut self, exec: &str, height: u32, width: u32) -> Result<(), ContainerError> {
        let cells = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
        let container = self.setting.id.clone();
        match &self.process(exec)?.attached {
            Attached::Console(console) => console
                .resize(cells(height), cells(width))
                .map_err(|source| ContainerError::Io { container, what: "resizing the terminal", source }),
            Attached::Files(_) | Attached::Nothing => Ok(()),
        }
    }

    fn close_io(&mut self, exec: &str, stdin: bool) -> Result<(), ContainerError> {
        match &mut self.process(exec)?.attached {
            Attached::Files(io) if stdin => io.close_stdin(),
            Attached::Console(console) if stdin => console.close_stdin(),
            Attached::Files(_) | Attached::Console(_) | Attached::Nothing => {}
        }
        Ok(())
    }
}
