//! The long-lived process of a pod.

use std::{
    env,
    os::{
        fd::{FromRawFd, OwnedFd},
        unix::net::UnixListener,
    },
    sync::Arc,
};

use anyhow::Context;
use containerd_shim::Flags;
use containerd_shim_protos::{
    shim_async::{Task, create_task},
    ttrpc::r#async::{Server, Service as Methods, transport::Listener},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::Notify,
};

use crate::{
    bundle::Bundle,
    events::Events,
    exits::Exits,
    logging,
    pod::Pod,
    service::Service,
    socket::{self, Address},
    start::TTRPC_ADDRESS,
};

/// The variable with the number of the inherited listening socket.
pub const SOCKET_FD: &str = "WASMBOX_SHIM_SOCKET_FD";
/// The service's names: of containerd 1.x, and of 2.x.
const V3: &str = "containerd.task.v3.Task";
const V2: &str = "containerd.task.v2.Task";

pub fn serve(flags: Flags) -> anyhow::Result<()> {
    anyhow::ensure!(!flags.socket.is_empty(), "containerd calls this binary with start or delete; see docs/shim.md");
    logging::start(flags.debug);
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).context("becoming the subreaper")?;
    let listener = inherited()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(until_shutdown(flags, listener));
    if let Err(error) = &result {
        log::error!("{error:#}");
    }
    result
}

/// The socket that `start` bound.
fn inherited() -> anyhow::Result<UnixListener> {
    let number: i32 = env::var(SOCKET_FD).with_context(|| format!("the variable {SOCKET_FD}"))?.parse()?;
    anyhow::ensure!(number > 2, "{SOCKET_FD}={number} is no inherited socket");
    // SAFETY: `start` left exactly this descriptor open for this process, and nothing else here knows its number.
    #[allow(unsafe_code)]
    let socket = unsafe { OwnedFd::from_raw_fd(number) };
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
    let listener = socket.into();
    socket::take_over(&listener).context("the socket")?;
    Ok(listener)
}

async fn until_shutdown(flags: Flags, listener: UnixListener) -> anyhow::Result<()> {
    let exits = Exits::default();
    let reaper = tokio::spawn(exits.reaper()?);
    let address = env::var(TTRPC_ADDRESS).with_context(|| format!("the variable {TTRPC_ADDRESS}"))?;
    let (events, publisher) = Events::new(address, flags.namespace.clone());
    let publisher = tokio::spawn(publisher);
    let shutdown = Arc::new(Notify::new());
    let first = Bundle::new(env::current_dir().context("the bundle")?);
    let pod = Arc::new(Pod::new(flags.namespace, first, exits, events.clone(), shutdown.clone()));
    let service: Arc<dyn Task + Send + Sync> = Arc::new(Service { pod });
    let mut server = Server::new()
        .add_listener(Listener::try_from(listener).context("the socket")?)
        .register_service(create_task(service.clone()))
        .register_service(
            create_task(service)
                .into_iter()
                .map(|(name, methods): (String, Methods)| (name.replace(V3, V2), methods))
                .collect(),
        );
    server.start().await?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        () = shutdown.notified() => {}
        _ = terminate.recv() => log::info!("SIGTERM: ending"),
    }
    // Whoever comes now starts another shim.
    Address::parse(&flags.socket).give_up();
    // The answer to the call for shutdown goes out first.
    server.shutdown().await?;
    events.flush().await;
    publisher.abort();
    reaper.abort();
    Ok(())
}
