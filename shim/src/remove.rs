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
    socket::Address,
};

/// containerd waits 5 s for `delete` before it kills it.
const DEADLINE: u64 = 3;

pub fn remove(flags: &Flags) -> anyhow::Result<()> {
    let directory = if flags.bundle.is_empty() { env::current_dir()? } else { flags.bundle.clone().into() };
    let bundle = Bundle::new(directory);
    let address = bundle.read_address().map(|address| Address::parse(&address));
    let is_dead = address.as_ref().is_none_or(Address::remove_dead);
    // From 2.3 on, containerd calls this for a pod's sandbox, and not for its other containers.
    let others = if is_dead { bundle.noted() } else { Vec::new() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let exits = Exits::default();
        let reaper = tokio::spawn(exits.reaper()?);
        // At once: each may take as long as there is time for all.
        let all = [(flags.id.clone(), bundle.clone())].into_iter().chain(others);
        let removals: Vec<_> = all
            .map(|(id, bundle)| {
                let (namespace, exits) = (flags.namespace.clone(), exits.clone());
                tokio::spawn(async move { remove_container(&namespace, &id, &bundle, &exits).await })
            })
            .collect();
        for removal in removals {
            let _ = removal.await;
        }
        reaper.abort();
        anyhow::Ok(())
    })?;
    if !is_dead && let Some(address) = &address {
        // `start` may have had the socket, too, for a last moment.
        address.remove_dead();
    }
    let response = DeleteResponse {
        pid: bundle.read_init_pid().unwrap_or(0),
        exit_status: 128 + SIGKILL,
        exited_at: timestamp(SystemTime::now()),
        ..Default::default()
    };
    stdout().write_all(&response.write_to_bytes()?)?;
    Ok(())
}

async fn remove_container(namespace: &str, id: &str, bundle: &Bundle, exits: &Exits) {
    // As they were when it was created; such that were understood then.
    let any = bundle.read_options().and_then(|bytes| Any::parse_from_bytes(&bytes).ok());
    let mut options = any.as_ref().and_then(|any| Options::from_any(any).ok()).unwrap_or_default();
    options.runtime_timeout = Some(options.runtime_timeout.unwrap_or(DEADLINE).min(DEADLINE));
    let _ = std::fs::remove_file(compile_socket::path(bundle.path()));
    if let Err(error) = Runtime::new(&options, namespace, exits.clone()).remove(id, bundle).await {
        // containerd logs it. Whatever it is, the rest is done.
        eprintln!("containerd-shim-wasmbox-v1: {error}");
    }
}
