//! `delete`: containerd's call when a shim is gone without having cleaned up, and after the last call of each container. It removes what a
//! container left: processes, cgroups, mounts.

use std::{
    env,
    io::{Write, stdout},
    time::SystemTime,
};

use containerd_shim::Flags;
use containerd_shim_protos::{
    api::DeleteResponse,
    protobuf::{Message, well_known_types::any::Any},
};

use crate::{
    bundle::Bundle,
    compile_socket,
    container::{SIGKILL, timestamp},
    exits::Exits,
    options::Options,
    runtime::Runtime,
};

pub fn remove(flags: &Flags) -> anyhow::Result<()> {
    let directory = if flags.bundle.is_empty() { env::current_dir()? } else { flags.bundle.clone().into() };
    let bundle = Bundle::new(directory);
    // As they were when it was created; such that were understood then.
    let any = bundle.read_options().and_then(|bytes| Any::parse_from_bytes(&bytes).ok());
    let options = any.as_ref().and_then(|any| Options::from_any(any).ok()).unwrap_or_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let exits = Exits::default();
        let reaper = tokio::spawn(exits.reaper()?);
        let oci = Runtime::new(&options, &flags.namespace, exits);
        if let Err(error) = oci.delete(&flags.id, bundle.path(), true).await {
            // Mostly there is nothing left; whatever it is, the rest is done.
            log::debug!("{error}");
        }
        reaper.abort();
        anyhow::Ok(())
    })?;
    bundle.unmount();
    let _ = std::fs::remove_file(compile_socket::path(bundle.path()));
    let response =
        DeleteResponse { exit_status: 128 + SIGKILL, exited_at: timestamp(SystemTime::now()), ..Default::default() };
    stdout().write_all(&response.write_to_bytes()?)?;
    Ok(())
}
