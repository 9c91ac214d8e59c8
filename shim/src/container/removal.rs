//! The end of a container.

use std::time::Duration;

use containerd_shim_protos::events::task::TaskDelete;
use rustix::process::Signal;
use tokio::sync::oneshot;

use super::{Actor, Reply, timestamp};
use crate::{delegation, exits::Exit, process::State, runtime::RuntimeError};

/// How long the end of a killed process may take to be told.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

impl Actor {
    /// Removes an ended container. Who asks while it is being removed is answered with who asked first.
    pub(super) fn delete(&mut self, reply: Reply<(u32, Exit)>) {
        if let Err(error) = self.init.deletable() {
            return reply.send(Err(error.into()));
        }
        self.deletions.push(reply);
        if self.deletions.len() > 1 {
            return;
        }
        if self.init.state() == State::Stopped {
            return self.remove(false);
        }
        // One that was never started is a process already. Its end is told before its deletion, as always.
        self.setting.exits.signal(self.init.pid, Signal::KILL);
        let (mut end, time_is_up) = (self.init.watch(), self.setting.exits.sleep(KILL_TIMEOUT));
        let told = async move { drop(end.wait_for(Option::is_some).await) };
        let waited = async move {
            tokio::select! {
                () = told => {}
                () = time_is_up => {}
            }
        };
        self.beside(waited, |actor, ()| actor.remove(true));
    }

    /// Undoes the creation, whatever becomes of it: nobody has heard of the container.
    pub fn discard(&mut self) {
        self.is_discarded = true;
        self.delete(Reply(oneshot::channel().0));
    }

    /// With `force` it is killed first.
    fn remove(&mut self, force: bool) {
        let (setting, cgroup, is_discarded) = (self.setting.clone(), self.cgroup.clone(), self.is_discarded);
        let attached = self.init.take_attached();
        let removed = async move {
            attached.finish().await;
            if let Some(cgroup) = cgroup {
                delegation::clear(cgroup).await;
            }
            match setting.runtime.delete(&setting.id, setting.bundle.path(), force).await {
                // It is gone already: a delete that was interrupted is repeated.
                Err(RuntimeError::Failed { .. }) if !setting.runtime.knows(&setting.id) => Ok(()),
                // Nobody will ask again.
                Err(_) if is_discarded => {
                    let _ = setting.runtime.remove(&setting.id, &setting.bundle).await;
                    Ok(())
                }
                deleted => deleted,
            }
        };
        self.beside(removed, Actor::removed);
    }

    fn removed(&mut self, removed: Result<(), RuntimeError>) {
        if let Err(error) = removed {
            let mut asked = std::mem::take(&mut self.deletions).into_iter();
            if let Some(first) = asked.next() {
                first.send(Err(error.into()));
            }
            // For others it is tried again, should they still be there.
            return asked.filter(Reply::is_wanted).for_each(|reply| self.delete(reply));
        }
        self.tell_all();
        self.setting.bundle.unmount();
        let exit = self.init.exit_or_killed();
        self.setting.events.publish(&TaskDelete {
            container_id: self.setting.id.clone(),
            pid: self.init.pid,
            exit_status: exit.status,
            exited_at: timestamp(exit.at),
            ..Default::default()
        });
        self.deleted = Some(exit);
    }
}
