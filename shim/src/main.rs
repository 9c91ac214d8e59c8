//! `containerd-shim-wasmbox-v1`: what containerd calls to run pods with WasmBoxes in them.
//!
//! One process per pod, started by the first call of `start` and shared by all containers of the pod. It knows two kinds: a WasmBox's
//! spec is rewritten (crate `wasmbox-oci`), then both go to the same OCI runtime, which makes namespaces, mounts and cgroups.
//!
//! - [`start`], [`remove`], [`info`]: the short-lived calls of the binary; [`delegation`]: the hook that it is, too
//! - [`serve`]: the long-lived process; [`service`]: the Task service, from requests to the [`pod`] and back
//! - [`pod`], [`container`], [`process`]: what runs; [`exits`]: what ended
//! - [`compile_socket`]: by which boxes reach the node's compile service
//! - [`runtime`]: the OCI runtime; [`features`]: what it can; [`rootfs`], [`idmap`]: what is mounted for it
//! - [`stdio`], [`fifo`], [`relay`], [`console`], [`logger`]: streams
//! - [`stats`], [`oom`]: what the kernel tells of a container (crate `wasmbox-cgroup`); [`events`]: what containerd is told; [`sweep`]: ends what is left
//! - [`environment`]: what all that it starts is given of containerd's
//! - [`bundle`], [`options`], [`socket`], [`logging`]

mod bundle;
mod compile_socket;
mod console;
mod container;
mod delegation;
mod environment;
mod events;
mod exits;
mod features;
mod fifo;
mod idmap;
mod info;
mod logger;
mod logging;
mod oom;
mod options;
mod pod;
mod process;
mod relay;
mod remove;
mod rootfs;
mod runtime;
mod serve;
mod service;
mod socket;
mod start;
mod stats;
mod stdio;
mod sweep;
mod thread;
mod watched;

use std::{env, process::ExitCode};

/// The name under which containerd knows this runtime.
pub const RUNTIME: &str = "io.containerd.wasmbox.v1";

fn main() -> ExitCode {
    let args: Vec<_> = env::args_os().skip(1).collect();
    match execute(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // containerd shows what a shim that failed has printed.
            eprintln!("containerd-shim-wasmbox-v1: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn execute(args: &[std::ffi::OsString]) -> anyhow::Result<()> {
    if args.first().is_some_and(|name| name == delegation::ARGUMENT) {
        return delegation::delegate();
    }
    if args.first().is_some_and(|name| name == idmap::ARGUMENT) {
        return idmap::hold();
    }
    let flags = containerd_shim::parse(args)?;
    if flags.version {
        return info::version();
    }
    if flags.info {
        return info::info();
    }
    match flags.action.as_str() {
        "start" => start::start(&flags),
        "delete" => remove::remove(&flags),
        "" => serve::serve(flags),
        other => anyhow::bail!(
            "unknown action {other:?}: expected start or delete; containerd calls this binary, see docs/shim.md"
        ),
    }
}
