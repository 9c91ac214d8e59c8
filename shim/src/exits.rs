//! Ended children: the one place that reaps.
//!
//! The shim is the subreaper of its pod: containers' processes become its children when the OCI runtime's process, which made them, ends.
//! Nobody else may call `waitpid`, so also the OCI runtime is started through here. A process may end before its pid is known: while
//! somebody is about to learn a pid ([`Expecting`]), exits that nobody waits for are kept for him.

use std::{
    collections::HashMap,
    fmt::Debug,
    io,
    os::unix::process::CommandExt,
    pin::Pin,
    process::Command,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, set_parent_process_death_signal};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// Its exit code, or 128 and the signal that ended it.
    pub status: u32,
    pub at: SystemTime,
}

/// Who starts the OCI runtime, signals containers' processes, and knows when time is up for what is waited for: the kernel, but in tests of the
/// order in which things happen.
pub trait Kernel: Debug + Send + Sync {
    /// Starts a child; gives its number.
    fn start(&self, command: &mut Command) -> io::Result<u32>;
    /// Whether the child is there.
    fn signal(&self, pid: Pid, signal: Signal) -> bool;
    /// Ends after that time.
    fn sleep(&self, time: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

#[derive(Debug)]
struct Linux;

impl Kernel for Linux {
    fn start(&self, command: &mut Command) -> io::Result<u32> {
        command.spawn().map(|child| child.id())
    }

    fn signal(&self, pid: Pid, signal: Signal) -> bool {
        rustix::process::kill_process(pid, signal).is_ok()
    }

    fn sleep(&self, time: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(tokio::time::sleep(time))
    }
}

#[derive(Debug, Clone)]
pub struct Exits {
    state: Arc<Mutex<State>>,
    kernel: Arc<dyn Kernel>,
}

impl Default for Exits {
    fn default() -> Exits {
        Exits::of(Linux)
    }
}

#[derive(Debug, Default)]
struct State {
    waiting: HashMap<u32, oneshot::Sender<Exit>>,
    /// How many are about to learn a pid.
    expecting: usize,
    /// Exits that nobody waited for, while somebody is expecting.
    early: HashMap<u32, Exit>,
}

/// While it lives, no exit is lost.
#[derive(Debug)]
pub struct Expecting(Exits);

impl Exits {
    pub fn of(kernel: impl Kernel + 'static) -> Exits {
        Exits { state: Arc::default(), kernel: Arc::new(kernel) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be called before a process is started whose pid is learnt later.
    pub fn expect(&self) -> Expecting {
        self.state().expecting += 1;
        Expecting(self.clone())
    }

    /// Starts a child; the receiver gets its exit.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn spawn(&self, command: &mut Command) -> io::Result<(std::process::Child, oneshot::Receiver<Exit>)> {
        let expecting = self.expect();
        let child = command.spawn()?;
        let exit = expecting.of(child.id());
        Ok((child, exit))
    }

    /// As [`Exits::spawn`], of a child without streams to this process: gives its number.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(&self, command: &mut Command) -> io::Result<(u32, oneshot::Receiver<Exit>)> {
        let expecting = self.expect();
        let pid = self.kernel.start(command)?;
        Ok((pid, expecting.of(pid)))
    }

    /// Sends a signal to a child whose end is waited for. Returns whether it is still there: its number is its own until it is reaped,
    /// which is done under the same lock.
    pub fn signal(&self, number: u32, signal: Signal) -> bool {
        let state = self.state();
        let there = pid(number).filter(|_| state.waiting.contains_key(&number));
        there.is_some_and(|pid| self.kernel.signal(pid, signal))
    }

    /// Ends after that time.
    pub fn sleep(&self, time: Duration) -> impl Future<Output = ()> + Send + use<> {
        self.kernel.sleep(time)
    }

    /// Reaps until the task is ended.
    ///
    /// # Errors
    /// If the signal cannot be listened for.
    pub fn reaper(&self) -> io::Result<impl Future<Output = ()> + use<>> {
        let mut ended = signal(SignalKind::child())?;
        let exits = self.clone();
        Ok(async move {
            loop {
                exits.reap();
                ended.recv().await;
            }
        })
    }

    fn reap(&self) {
        let mut state = self.state();
        // Of all that ended before this call, whichever signals were merged.
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            let Some(status) = code(status) else { continue };
            let exit = Exit { status, at: SystemTime::now() };
            state.ended(pid.as_raw_nonzero().get().unsigned_abs(), exit);
        }
    }

    /// As if the child had been reaped.
    #[cfg(test)]
    pub fn ended(&self, pid: u32, exit: Exit) {
        self.state().ended(pid, exit);
    }
}

impl State {
    fn ended(&mut self, pid: u32, exit: Exit) {
        match self.waiting.remove(&pid) {
            // A receiver that is gone does not want it.
            Some(sender) => drop(sender.send(exit)),
            None if self.expecting > 0 => drop(self.early.insert(pid, exit)),
            // An orphan of a container's.
            None => {}
        }
    }
}

impl Expecting {
    /// The exit of `pid`, a child of this process, now or to come.
    pub fn of(&self, pid: u32) -> oneshot::Receiver<Exit> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.0.state();
        match state.early.remove(&pid) {
            Some(exit) => drop(sender.send(exit)),
            None => drop(state.waiting.insert(pid, sender)),
        }
        receiver
    }
}

impl Drop for Expecting {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.expecting -= 1;
        if state.expecting == 0 {
            state.early.clear();
        }
    }
}

fn code(status: WaitStatus) -> Option<u32> {
    let code = status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal))?;
    u32::try_from(code).ok()
}

/// The child is killed when this process ends, however it ends.
pub fn ends_with_us(command: &mut Command) {
    let with_us = || Ok(set_parent_process_death_signal(Some(Signal::KILL))?);
    // SAFETY: between fork and exec it makes one system call, which allocates nothing and takes no lock.
    #[allow(unsafe_code)]
    // The kernel's parent is the thread that forks, here the only one.
    unsafe {
        command.pre_exec(with_us)
    };
}

/// A signal by its number, real-time signals included: images name those, too, to be stopped by.
pub fn numbered(number: u32) -> Option<Signal> {
    const LAST: u32 = 64;
    // SAFETY: those that the C library keeps for itself matter to who handles them; this process sends them only.
    #[allow(unsafe_code)]
    (1..=LAST).contains(&number).then(|| unsafe { Signal::from_raw_unchecked(number.cast_signed()) })
}

/// A pid as the kernel's calls take it.
pub fn pid(number: u32) -> Option<Pid> {
    i32::try_from(number).ok().and_then(Pid::from_raw)
}
