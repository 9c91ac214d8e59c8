//! What of a container never changes; its task shares it with what goes on beside it.

use containerd_shim_protos::types::mount::Mount;
use tokio::sync::oneshot;

use super::ContainerError;
use crate::{
    bundle::Bundle,
    events::Events,
    exits::{Exit, Exits},
    process::{Attached, Prepared},
    rootfs,
    runtime::Runtime,
    stdio::{Addresses, StdioOwner},
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

/// A process as the OCI runtime has made it: its streams, its number and its end.
pub type Made = (Attached, u32, oneshot::Receiver<Exit>);

impl Setting {
    /// Makes the container and its init process, which does not run yet. Nothing is left if that fails.
    pub async fn create(&self, rootfs: &[Mount], addresses: &Addresses) -> Result<Made, ContainerError> {
        if let Err(source) = rootfs::mount(&self.bundle, rootfs, &self.exits).await {
            self.bundle.unmount();
            return Err(ContainerError::Rootfs { container: self.id.clone(), source });
        }
        let made = async {
            let mut prepared = Prepared::new(addresses, &self.bundle, self.stdio_owner(false)).await?;
            let (pid, exit) = self.runtime.create(&self.id, self.bundle.path(), prepared.streams()).await?;
            Ok((prepared.attach(addresses)?, pid, exit))
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
