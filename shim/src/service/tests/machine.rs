//! A kernel and an OCI runtime for one container and one further process of it. Each call of the runtime goes on until the test ends it.

use std::{
    fs, io,
    mem::MaybeUninit,
    os::{fd::AsFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    pin::Pin,
    process::Command,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, SystemTime},
};

use rustix::{
    net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg},
    process::{Pid, Signal},
};
use tokio::sync::oneshot;

use crate::exits::{Exit, Exits, Kernel};

/// The kernel gives none so high.
const FIRST_PID: u32 = 5_000_000;
/// Of processes that end by themselves.
pub const STATUS: u32 = 7;
const KILLED: u32 = 137;

/// How a call of the OCI runtime ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Success,
    Failure,
    /// The process that it made has ended, too, before the call has.
    EndsAtOnce,
}

/// A call that has not ended.
#[derive(Debug, Clone)]
pub struct Call {
    pid: u32,
    pub name: String,
    pid_file: Option<PathBuf>,
    /// Where the terminal goes, of a process that has one.
    console: Option<PathBuf>,
    /// What the runtime keeps of the container.
    state: PathBuf,
    force: bool,
}

/// A container's process.
#[derive(Debug, Clone, Copy)]
pub struct Child {
    pid: u32,
    pub killed: bool,
    pub ended: Option<u32>,
}

#[derive(Debug, Default)]
pub struct World {
    pids: u32,
    pub calls: Vec<Call>,
    pub init: Option<Child>,
    pub exec: Option<Child>,
    /// Of the exec, from which the shim reads until it is closed here.
    pub terminal: Option<UnixStream>,
    /// Whether the pid namespace has others, too: then the exec does not end with the init process.
    pub shares_pids: bool,
    /// What the shim waits for no longer when time is up.
    timers: Vec<oneshot::Sender<()>>,
    started: bool,
    /// What the shim must not have asked for.
    pub mistakes: Vec<String>,
}

#[derive(Debug, Clone, Default)]
pub struct Machine(Arc<Mutex<World>>);

impl World {
    pub fn runs(child: Option<Child>) -> bool {
        child.is_some_and(|child| child.ended.is_none())
    }

    pub fn status(child: Option<Child>) -> Option<u32> {
        child.and_then(|child| child.ended)
    }

    /// How many timers run.
    pub fn timers(&mut self) -> usize {
        self.timers.retain(|timer| !timer.is_closed());
        self.timers.len()
    }

    fn make(&mut self) -> Child {
        self.pids += 1;
        Child { pid: FIRST_PID + self.pids, killed: false, ended: None }
    }
}

impl Kernel for Machine {
    fn start(&self, command: &mut Command) -> io::Result<u32> {
        const NAMES: [&str; 5] = ["create", "start", "exec", "kill", "delete"];
        let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
        let after = |flag: &str| words.iter().skip_while(|word| *word != flag).nth(1).map(PathBuf::from);
        let name = words.iter().find(|word| NAMES.contains(&word.as_str())).expect("a call that is made here").clone();
        let state = after("--root").expect("a root").join(words.last().expect("a name"));
        let mut world = self.world();
        let pid = world.make().pid;
        let force = words.iter().any(|word| word == "--force");
        let init = world.init;
        if name == "start" && world.started || name == "delete" && !force && World::runs(init) {
            world.mistakes.push(format!("{name} is called, {init:?}"));
        }
        let (pid_file, console) = (after("--pid-file"), after("--console-socket"));
        world.calls.push(Call { pid, name, pid_file, console, state, force });
        Ok(pid)
    }

    fn signal(&self, pid: Pid, signal: Signal) -> bool {
        let mut world = self.world();
        let World { init, exec, .. } = &mut *world;
        let pid = pid.as_raw_nonzero().get().unsigned_abs();
        let children = [init, exec].into_iter().flatten();
        let child = children.into_iter().find(|child| child.pid == pid && child.ended.is_none());
        child.map(|child| child.killed |= signal == Signal::KILL).is_some()
    }

    fn sleep(&self, _: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let (timer, time_is_up) = oneshot::channel();
        self.world().timers.push(timer);
        Box::pin(async move { drop(time_is_up.await) })
    }
}

impl Machine {
    pub fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }

    /// How the call may end: the runtime can exec only in what runs, and always deletes in the end.
    pub fn outcomes(&self, call: usize) -> &'static [Outcome] {
        let world = self.world();
        match world.calls[call].name.as_str() {
            "create" => &[Outcome::Success, Outcome::EndsAtOnce, Outcome::Failure],
            "exec" if World::runs(world.init) || world.shares_pids => {
                &[Outcome::Success, Outcome::EndsAtOnce, Outcome::Failure]
            }
            "exec" => &[Outcome::EndsAtOnce, Outcome::Failure],
            _ => &[Outcome::Success, Outcome::Failure],
        }
    }

    /// Ends a call.
    pub fn end_call(&self, exits: &Exits, call: usize, outcome: Outcome) {
        let call = self.world().calls.remove(call);
        if outcome != Outcome::Failure {
            self.effect(exits, &call, outcome);
        }
        tell(exits, call.pid, u32::from(outcome == Outcome::Failure));
    }

    fn effect(&self, exits: &Exits, call: &Call, outcome: Outcome) {
        let mut world = self.world();
        if let Some(pid_file) = &call.pid_file {
            let child = world.make();
            fs::write(pid_file, child.pid.to_string()).unwrap();
            let is_init = call.name == "create";
            *(if is_init { &mut world.init } else { &mut world.exec }) = Some(child);
            if let Some(console) = &call.console {
                world.terminal = Some(send_terminal(console));
            }
            if is_init {
                fs::create_dir_all(&call.state).unwrap();
            }
            drop(world);
            if outcome == Outcome::EndsAtOnce {
                if is_init { self.end_init(exits) } else { self.end_exec(exits) }
            }
        } else if call.name == "start" {
            world.started = true;
        } else if ["kill", "delete"].contains(&call.name.as_str()) {
            // All that is there yet.
            world.exec.iter_mut().for_each(|exec| exec.killed = true);
            drop(world);
            self.end_exec(exits);
            if call.force {
                self.end_init(exits);
            }
            if call.name == "delete" {
                let _ = fs::remove_dir(&call.state);
            }
        }
    }

    pub fn time_is_up(&self, timer: usize) {
        let timer = self.world().timers.remove(timer);
        timer.send(()).expect("the shim waits for it");
    }

    pub fn end_exec(&self, exits: &Exits) {
        let mut world = self.world();
        let ended = end(&mut world.exec);
        drop(world);
        ended.inspect(|(pid, status)| tell(exits, *pid, *status));
    }

    /// The kernel ends a namespace's other processes first.
    pub fn end_init(&self, exits: &Exits) {
        if !self.world().shares_pids {
            self.end_exec(exits);
        }
        let mut world = self.world();
        let ended = end(&mut world.init);
        drop(world);
        ended.inspect(|(pid, status)| tell(exits, *pid, *status));
    }
}

/// As the OCI runtime sends a terminal, of which nothing is wanted here but its end.
fn send_terminal(console: &Path) -> UnixStream {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let stream = UnixStream::connect(console).unwrap();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let theirs = [theirs.as_fd()];
    assert!(control.push(SendAncillaryMessage::ScmRights(&theirs)));
    sendmsg(&stream, &[io::IoSlice::new(b"terminal")], &mut control, SendFlags::empty()).unwrap();
    ours
}

fn end(child: &mut Option<Child>) -> Option<(u32, u32)> {
    let child = child.as_mut().filter(|child| child.ended.is_none())?;
    let status = if child.killed { KILLED } else { STATUS };
    child.ended = Some(status);
    Some((child.pid, status))
}

fn tell(exits: &Exits, pid: u32, status: u32) {
    exits.ended(pid, Exit { status, at: SystemTime::now() });
}
