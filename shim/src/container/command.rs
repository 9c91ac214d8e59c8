//! What a container's task is asked: each call of containerd that concerns a container is one of these.

use containerd_shim_protos::protobuf::well_known_types::any::Any;
use tokio::sync::{oneshot, watch};

use super::ContainerError;
use crate::{exits::Exit, process::State, stdio::Addresses};

/// Where the answer goes. Who asked may be gone; what was asked for is done all the same.
#[derive(Debug)]
pub struct Reply<T>(pub oneshot::Sender<Result<T, ContainerError>>);

impl<T> Reply<T> {
    pub fn send(self, answer: Result<T, ContainerError>) {
        drop(self.0.send(answer));
    }

    /// Whether who asked is still there.
    pub fn is_wanted(&self) -> bool {
        !self.0.is_closed()
    }
}

/// An `exec` that is empty is the container's first process, its init process. What comes of each is said where the task does it.
#[derive(Debug)]
pub enum Command {
    Start { exec: String, reply: Reply<u32> },
    Delete { exec: String, reply: Reply<(u32, Exit)> },
    Kill { exec: String, signal: u32, all: bool, reply: Reply<()> },
    AddExec { exec: String, addresses: Addresses, spec: Vec<u8>, reply: Reply<()> },
    Resize { exec: String, height: u32, width: u32, reply: Reply<()> },
    CloseIo { exec: String, stdin: bool, reply: Reply<()> },
    State { exec: String, reply: Reply<Snapshot> },
    Pause(Reply<()>),
    Resume(Reply<()>),
    Update { resources: Vec<u8>, reply: Reply<()> },
    Pids(Reply<Vec<(u32, Option<String>)>>),
    Stats(Reply<Any>),
}

/// What is known of a process.
#[derive(Debug)]
pub struct Snapshot {
    pub pid: u32,
    pub state: State,
    pub addresses: Addresses,
    /// Its end, now or to come. One that is deleted without having ended has none.
    pub end: watch::Receiver<Option<Exit>>,
}
