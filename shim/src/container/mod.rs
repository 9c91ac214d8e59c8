//! A container and its processes: what each Task call does to it.
//!
//! One task has all that is known of a container ([`actor`]). It takes commands ([`command`]), one after the other, and never waits: what takes
//! time, calls of the OCI runtime above all, goes on beside it, and comes back to it when it has ended, as the ends of processes do. So a call
//! that hangs holds up no signal and no question, and containerd is told of things in the order in which the task took note of them.
//!
//! The [pod](crate::pod) has the task: it begins with the container's creation, and ends with its deletion. Who then still asks is told that
//! there is no such container.
//!
//! - [`exec`], [`removal`], [`resources`]: what the task does for these commands; [`end`]: how it tells of the ends of processes

mod actor;
mod command;
mod end;
mod error;
mod exec;
mod removal;
mod resources;
mod setting;

use std::time::SystemTime;

use containerd_shim_protos::protobuf::{MessageField, well_known_types::timestamp::Timestamp};
use tokio::sync::{mpsc, oneshot};

pub use self::{
    actor::Actor,
    command::{Command, Reply, Snapshot},
    error::ContainerError,
    setting::Setting,
};
use crate::bundle::Bundle;

/// The signal that cannot be refused.
pub const SIGKILL: u32 = 9;
/// How many commands wait for the task at most, which takes each at once; who has more waits.
const WAITING: usize = 16;

/// A container, for those who ask.
#[derive(Debug)]
pub struct Container {
    id: String,
    pub bundle: Bundle,
    /// The init process's.
    pub pid: u32,
    commands: mpsc::Sender<Command>,
}

impl Container {
    /// For the container's task: what is asked comes out of the receiver.
    fn new(id: String, bundle: Bundle, pid: u32) -> (Container, mpsc::Receiver<Command>) {
        let (commands, asked) = mpsc::channel(WAITING);
        (Container { id, bundle, pid, commands }, asked)
    }

    /// # Errors
    /// [`ContainerError::Deleted`], if the task has ended, and what the task answers.
    pub async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, ContainerError> {
        let (reply, answer) = oneshot::channel();
        // A task that has ended drops the command, and with it the reply.
        let _ = self.commands.send(command(Reply(reply))).await;
        answer.await.unwrap_or_else(|_| {
            let container = self.id.clone();
            Err(if self.commands.is_closed() {
                ContainerError::Deleted { container }
            } else {
                ContainerError::Unanswered { container }
            })
        })
    }

    pub async fn snapshot(&self, exec: &str) -> Result<Snapshot, ContainerError> {
        self.ask(|reply| Command::State { exec: exec.to_owned(), reply }).await
    }
}

pub fn timestamp(time: SystemTime) -> MessageField<Timestamp> {
    MessageField::some(Timestamp::from(time))
}
