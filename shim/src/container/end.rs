//! The ends of a container's processes. containerd is told of one when what the process wrote was read, and of the init process's after those
//! of all execs, as by its shim for runc: nobody listens for more from a container that has ended.

use std::time::Duration;

use containerd_shim_protos::events::task::TaskExit;
use tokio::{sync::oneshot, task::AbortHandle};

use super::{Actor, SIGKILL, timestamp};
use crate::{
    exits::Exit,
    process::{Attached, Process, State},
};

/// How long the init process's end is held back for those of execs.
const HELD: Duration = Duration::from_secs(10);

impl Actor {
    /// Waits for the end of a process. The sender is dropped when the shim ends.
    pub(super) fn follow(&mut self, exec: String, exit: oneshot::Receiver<Exit>) {
        self.beside(exit, |actor, exit| drop(exit.map(|exit| actor.ended(exec, exit))));
    }

    fn ended(&mut self, exec: String, exit: Exit) {
        let Ok(process) = self.process(&exec) else { return };
        process.reaped = Some(exit);
        // Its end is told after its start, and never before.
        if process.state() != State::Starting {
            self.drain(exec);
        }
    }

    /// What it wrote is read first.
    pub(super) fn drain(&mut self, exec: String) {
        let is_init = exec.is_empty();
        if is_init {
            self.remember_stats();
            self.oom.update();
        }
        let mut attached = self.process(&exec).map_or(Attached::Nothing, Process::take_attached);
        let setting = self.setting.clone();
        let drained = async move {
            if is_init && setting.shares_pids {
                let _ = setting.runtime.kill(&setting.id, setting.bundle.path(), SIGKILL, true).await;
            }
            attached.drained().await;
            attached
        };
        self.beside(drained, move |actor, attached| actor.drained(&exec, attached));
    }

    fn drained(&mut self, exec: &str, attached: Attached) {
        let Ok(process) = self.process(exec) else { return };
        process.attached = attached;
        if exec.is_empty() {
            let time_is_up = self.setting.exits.sleep(HELD);
            self.held = Some(self.beside(time_is_up, |actor, ()| actor.tell("")));
        } else {
            self.tell(exec);
        }
        self.tell_held();
    }

    /// Tells of the init process's end, if that was held back, and no exec runs or is being started any more.
    pub(super) fn tell_held(&mut self) {
        let is_active = |process: &Process| matches!(process.state(), State::Starting | State::Running);
        if self.held.is_some() && !self.execs.values().any(|exec| is_active(&exec.process)) {
            self.tell("");
        }
    }

    /// Tells of the end of a process, once.
    fn tell(&mut self, exec: &str) {
        let Ok(process) = self.process(exec) else { return };
        if process.state() == State::Stopped {
            return;
        }
        let exit = process.exit_or_killed();
        process.stopped(exit);
        let pid = process.pid;
        if exec.is_empty() {
            self.held.take().inspect(AbortHandle::abort);
            // Others may have used more until they were killed.
            self.remember_stats();
            self.oom.finish();
        }
        let container_id = self.setting.id.clone();
        self.setting.events.publish(&TaskExit {
            id: if exec.is_empty() { container_id.clone() } else { exec.to_owned() },
            container_id,
            pid,
            exit_status: exit.status,
            exited_at: timestamp(exit.at),
            ..Default::default()
        });
    }

    /// Tells of the ends that were not told in time, of a container that is gone with all that ran in it.
    pub(super) fn tell_all(&mut self) {
        let running = self.execs.iter().filter(|(_, exec)| exec.process.state() == State::Running);
        let running: Vec<String> = running.map(|(id, _)| id.clone()).collect();
        for exec in running {
            self.tell(&exec);
        }
        self.tell("");
    }
}
