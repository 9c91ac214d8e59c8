//! What of a container never changes; its task shares it with what goes on beside it.

use containerd_shim_protos::types::mount::Mount;
use rustix::process::Signal;
use tokio::sync::oneshot;

use super::ContainerError;
use crate::{
    bundle::Bundle,
    events::Events,
    exits::{Exit, Exits},
    process::{Attached, Prepared},
    rootfs,
    runtime::Runtime,
    stdio::{Addresses, StdioError, StdioOwner},
};

#[derive(Debug)]
pub struct Setting {
    pub id: String,
    pub bundle: Bundle,
    pub namespace: String,
    pub runtime: Runtime,
    pub exits: Exits,
    pub events: Events,
    /// Whether others share its pid namespace: then its processes do not end with the first one.
    pub shares_pids: bool,
    /// Whose its streams are, by the host's numbers.
    pub io_owner: (u32, u32),
}

/// A process as the OCI runtime has made it. One that is not taken is killed: nobody would hear of it, nor of its end.
#[derive(Debug)]
pub struct Made {
    attached: Attached,
    exit: oneshot::Receiver<Exit>,
    process: KilledOnDrop,
}

impl Made {
    /// # Errors
    /// If it cannot be attached to.
    pub fn new(
        (pid, exit): (u32, oneshot::Receiver<Exit>),
        prepared: Prepared,
        addresses: &Addresses,
        exits: &Exits,
    ) -> Result<Made, StdioError> {
        let process = KilledOnDrop { pid, exits: exits.clone(), is_taken: false };
        Ok(Made { attached: prepared.attach(addresses)?, exit, process })
    }

    /// Its streams, its number and its end.
    pub fn take(self) -> (Attached, u32, oneshot::Receiver<Exit>) {
        let Made { attached, exit, mut process } = self;
        process.is_taken = true;
        (attached, process.pid, exit)
    }
}

#[derive(Debug)]
struct KilledOnDrop {
    pid: u32,
    exits: Exits,
    is_taken: bool,
}

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        if !self.is_taken {
            self.exits.signal(self.pid, Signal::KILL);
        }
    }
}

impl Setting {
    /// Makes the container and its init process, which does not run yet. Nothing is left if that fails.
    pub async fn create(&self, rootfs: &[Mount], addresses: &Addresses) -> Result<Made, ContainerError> {
        if let Err(source) = rootfs::mount(&self.bundle, rootfs, &self.exits).await {
            self.bundle.unmount();
            return Err(ContainerError::Rootfs { container: self.id.clone(), source });
        }
        let made = async {
            let mut prepared = Prepared::new(addresses, &self.bundle, self.stdio_owner(false)).await?;
            let process = self.runtime.create(&self.id, self.bundle.path(), prepared.streams()).await?;
            Ok(Made::new(process, prepared, addresses, &self.exits)?)
        };
        let made = made.await;
        if made.is_err() {
            let _ = self.runtime.remove(&self.id, &self.bundle).await;
        }
        made
    }

    pub fn stdio_owner(&self, is_exec: bool) -> StdioOwner<'_> {
        StdioOwner { exits: &self.exits, namespace: &self.namespace, id: &self.id, user: self.io_owner, is_exec }
    }
}
