//! One process of a container, from its creation to its end. Its state changes by the methods here alone.

use std::time::SystemTime;

use tokio::sync::watch;

use crate::{
    bundle::Bundle,
    console::{Console, ConsoleOutput, ConsoleSocket},
    exits::Exit,
    runtime::Streams,
    stdio::{Addresses, ContainerIo, StdioError, StdioFds, StdioOwner},
};

/// The status of what SIGKILL ends.
const KILLED: u32 = 128 + 9;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Created,
    /// The OCI runtime is being called to start it.
    Starting,
    Running,
    Paused,
    Stopped,
}

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            State::Created => "created",
            State::Starting => "being started",
            State::Running => "running",
            State::Paused => "paused",
            State::Stopped => "stopped",
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("cannot {action} a process that is {}", state.as_str())]
pub struct IllegalTransition {
    action: &'static str,
    state: State,
}

/// Where a process's streams lead.
#[derive(Debug)]
pub enum Attached {
    Files(ContainerIo),
    Console(Console),
    Nothing,
}

impl Attached {
    /// When what the ended process wrote has been read; not for ever.
    pub async fn drained(&mut self) {
        match self {
            Attached::Files(io) => io.drained().await,
            Attached::Console(console) => console.drained().await,
            Attached::Nothing => {}
        }
    }

    /// Closes all; what still writes has some time for it.
    pub async fn finish(self) {
        match self {
            Attached::Files(io) => io.finish().await,
            Attached::Console(console) => console.finish().await,
            Attached::Nothing => {}
        }
    }
}

/// What a process needs to be started with, and keeps afterwards.
#[derive(Debug)]
pub enum Prepared {
    Files { fds: StdioFds, io: ContainerIo },
    Console { socket: ConsoleSocket, output: ConsoleOutput },
}

impl Prepared {
    /// # Errors
    /// [`StdioError`], naming the stream.
    pub async fn new(addresses: &Addresses, bundle: &Bundle, owner: StdioOwner<'_>) -> Result<Prepared, StdioError> {
        if addresses.terminal {
            let output = ConsoleOutput::open(&addresses.stdout, owner).await?;
            return Ok(Prepared::Console {
                socket: ConsoleSocket::new(bundle.path()).map_err(StdioError::Terminal)?,
                output,
            });
        }
        let (fds, io) = addresses.open(owner).await?;
        Ok(Prepared::Files { fds, io })
    }

    /// For the OCI runtime's call, once.
    pub fn streams(&mut self) -> Streams<'_> {
        match self {
            Prepared::Files { fds, .. } => {
                let StdioFds { stdin, stdout, stderr } = std::mem::take(fds);
                Streams::Files { stdin, stdout, stderr }
            }
            Prepared::Console { socket, .. } => Streams::Console(socket.path()),
        }
    }

    /// After that call.
    ///
    /// # Errors
    /// [`StdioError`], if there is no terminal, or it cannot be connected.
    pub fn attach(self, addresses: &Addresses) -> Result<Attached, StdioError> {
        Ok(match self {
            Prepared::Files { mut io, .. } => {
                io.start()?;
                Attached::Files(io)
            }
            Prepared::Console { socket, output } => {
                let master = socket.receive().map_err(StdioError::Terminal)?;
                Attached::Console(Console::start(master, &addresses.stdin, output)?)
            }
        })
    }
}

#[derive(Debug)]
pub struct Process {
    /// 0 before it has one.
    pub pid: u32,
    pub addresses: Addresses,
    pub attached: Attached,
    /// How it has ended, as soon as that is known. It is not [`Process::stopped`] until others are told of that.
    pub reaped: Option<Exit>,
    state: State,
    ended: watch::Sender<Option<Exit>>,
}

impl Process {
    pub fn new(addresses: Addresses) -> Process {
        Process {
            pid: 0,
            addresses,
            attached: Attached::Nothing,
            reaped: None,
            state: State::Created,
            ended: watch::Sender::new(None),
        }
    }

    pub fn state(&self) -> State {
        self.state
    }

    pub fn exit(&self) -> Option<Exit> {
        *self.ended.borrow()
    }

    /// How it has ended. One of whose end nothing is known was killed with its container, now.
    pub fn exit_or_killed(&mut self) -> Exit {
        *self.reaped.get_or_insert_with(|| Exit { status: KILLED, at: SystemTime::now() })
    }

    /// Follows the exit without holding the process.
    pub fn watch(&self) -> watch::Receiver<Option<Exit>> {
        self.ended.subscribe()
    }

    fn change(&mut self, action: &'static str, from: &[State], to: State) -> Result<(), IllegalTransition> {
        if !from.contains(&self.state) {
            return Err(IllegalTransition { action, state: self.state });
        }
        self.state = to;
        Ok(())
    }

    /// Nobody else can start it now.
    pub fn starting(&mut self) -> Result<(), IllegalTransition> {
        if self.reaped.is_some() {
            return Err(IllegalTransition { action: "start", state: State::Stopped });
        }
        self.change("start", &[State::Created], State::Starting)
    }

    pub fn started(&mut self) -> Result<(), IllegalTransition> {
        self.change("start", &[State::Starting], State::Running)
    }

    /// It can be tried again, or deleted.
    pub fn start_failed(&mut self) {
        if self.state == State::Starting {
            self.state = State::Created;
        }
    }

    /// Whether it can be paused.
    pub fn pausable(&self) -> Result<(), IllegalTransition> {
        if self.state == State::Running {
            Ok(())
        } else {
            Err(IllegalTransition { action: "pause", state: self.state })
        }
    }

    pub fn paused(&mut self) -> Result<(), IllegalTransition> {
        self.change("pause", &[State::Running], State::Paused)
    }

    pub fn resumed(&mut self) -> Result<(), IllegalTransition> {
        self.change("resume", &[State::Paused], State::Running)
    }

    /// Whether it can be deleted: it was never started, or has ended.
    pub fn deletable(&self) -> Result<(), IllegalTransition> {
        match self.state {
            State::Created | State::Stopped => Ok(()),
            State::Starting | State::Running | State::Paused => {
                Err(IllegalTransition { action: "delete", state: self.state })
            }
        }
    }

    /// So that the end of its streams can be waited for.
    pub fn take_attached(&mut self) -> Attached {
        std::mem::replace(&mut self.attached, Attached::Nothing)
    }

    /// It will not begin, as far as those know who wait for its end now.
    pub fn release(&mut self, exit: Exit) {
        std::mem::take(&mut self.ended).send_replace(Some(exit));
    }

    /// It has ended; the first exit counts.
    pub fn stopped(&mut self, exit: Exit) {
        self.state = State::Stopped;
        self.ended.send_if_modified(|known| {
            let first = known.is_none();
            known.get_or_insert(exit);
            first
        });
    }
}

#[cfg(test)]
mod tests;
