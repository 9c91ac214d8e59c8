//! `start`: containerd's first call for a container. It answers with the address of the shim that serves the container's pod, which it
//! starts if there is none.
//!
//! The dialects: containerd 2.3 and later write a `BootstrapParams` and read a `BootstrapResult`; all before take a plain address, which
//! 2.x takes for version 2 of the service. It is served in both versions.

use std::{
    env, fs,
    io::{Write, stdout},
    os::{fd::AsRawFd, unix::process::CommandExt},
    process::Stdio,
};

use anyhow::Context;
use containerd_shim::Flags;
use containerd_shim_protos::{
    bootstrap_api::{BootstrapParams, BootstrapResult},
    protobuf::{Message, well_known_types::any::Any},
};
use wasmbox_oci::Spec;

use crate::{
    bundle::{ADDRESS, CONFIG},
    environment,
    info::read_input,
    options::Options,
    serve::SOCKET_FD,
    socket::{Address, Bound},
};

/// The variable in which containerd gives the address for events.
pub const TTRPC_ADDRESS: &str = "TTRPC_ADDRESS";

/// What `start` was told.
struct Request {
    ttrpc_address: String,
    grpc_address: String,
    socket_dir: Option<String>,
    options: Option<Any>,
    /// Whether the answer is a `BootstrapResult`.
    bootstrap: bool,
}

impl Request {
    fn read(flags: &Flags) -> anyhow::Result<Request> {
        let input = read_input()?;
        let params = BootstrapParams::parse_from_bytes(&input).ok().filter(|params| {
            params.instance_id == flags.id && params.namespace == flags.namespace && !flags.id.is_empty()
        });
        let mut request = match params {
            Some(params) => Request {
                ttrpc_address: params.containerd_ttrpc_address,
                grpc_address: params.containerd_grpc_address,
                socket_dir: params.socket_dir,
                // The first that is ours: other extensions are for others.
                options: params
                    .extensions
                    .into_iter()
                    .filter_map(|extension| extension.value.0)
                    .map(|any| *any)
                    .find(Options::are_in),
                bootstrap: true,
            },
            None => Request {
                ttrpc_address: String::new(),
                grpc_address: String::new(),
                socket_dir: None,
                options: Any::parse_from_bytes(&input).ok().filter(|any| !any.type_url.is_empty()),
                bootstrap: false,
            },
        };
        if request.ttrpc_address.is_empty() {
            request.ttrpc_address = env::var(TTRPC_ADDRESS).unwrap_or_default();
        }
        if request.grpc_address.is_empty() {
            request.grpc_address = flags.address.clone();
        }
        anyhow::ensure!(
            !request.ttrpc_address.is_empty(),
            "the variable {TTRPC_ADDRESS} is not set; containerd sets it"
        );
        Ok(request)
    }
}

pub fn start(flags: &Flags) -> anyhow::Result<()> {
    anyhow::ensure!(!flags.id.is_empty() && !flags.namespace.is_empty(), "start needs -id and -namespace");
    let request = Request::read(flags)?;
    let options = request.options.as_ref().map(Options::from_any).transpose()?.unwrap_or_default();
    let config = fs::read(CONFIG).with_context(|| format!("{CONFIG} in the bundle"))?;
    let spec = Spec::parse(&config)?;
    let group = spec.sandbox_id().unwrap_or(&flags.id);
    let address = Address::of(request.socket_dir.as_deref(), &request.grpc_address, &flags.namespace, group);
    // For containerd's restart, before 2.0, and for `delete`: whatever happens now, the socket is found.
    fs::write(ADDRESS, address.to_string()).with_context(|| format!("writing the file {ADDRESS}"))?;
    match address.bind().with_context(|| address.to_string())? {
        Bound::Served => {}
        Bound::Ours(listener) => {
            let spawned = spawn(flags, &request, &options, &address, &listener);
            spawned.inspect_err(|_| address.remove())?;
        }
    }
    let answer = if request.bootstrap {
        let result = BootstrapResult {
            version: 3,
            address: address.to_string(),
            protocol: "ttrpc".into(),
            ..Default::default()
        };
        result.write_to_bytes()?
    } else {
        address.to_string().into_bytes()
    };
    stdout().write_all(&answer)?;
    stdout().flush()?;
    Ok(())
}

/// Starts the long-lived process, which inherits the socket: there is no moment at which nobody listens.
fn spawn(
    flags: &Flags,
    request: &Request,
    options: &Options,
    address: &Address,
    listener: &std::os::unix::net::UnixListener,
) -> anyhow::Result<()> {
    rustix::io::fcntl_setfd(listener, rustix::io::FdFlags::empty())?;
    let mut command = environment::command(env::current_exe().context("the path of this binary")?);
    command
        .args(["-namespace", &flags.namespace, "-id", &flags.id, "-address", &request.grpc_address])
        .args(["-publish-binary", &flags.publish_binary, "-socket", &address.to_string()])
        .env(TTRPC_ADDRESS, &request.ttrpc_address)
        .env(SOCKET_FD, listener.as_raw_fd().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Signals for containerd's group are not for it.
        .process_group(0);
    if flags.debug {
        command.arg("-debug");
    }
    let mut child = command.spawn().context("starting the shim")?;
    let prepared = prepare(child.id(), options);
    prepared.inspect_err(|_| {
        let _ = child.kill();
        let _ = child.wait();
    })
}

/// The shim is killed before its pod's processes are only if memory is short and it is to blame; containerd last.
fn prepare(pid: u32, options: &Options) -> anyhow::Result<()> {
    let own: i32 = fs::read_to_string("/proc/self/oom_score_adj")?.trim().parse()?;
    fs::write(format!("/proc/{pid}/oom_score_adj"), (own + 1).min(1000).to_string()).context("oom_score_adj")?;
    if let Some(cgroup) = &options.shim_cgroup {
        containerd_shim::cgroup::add_task_to_cgroup(cgroup, pid).with_context(|| format!("ShimCgroup {cgroup}"))?;
    }
    Ok(())
}
