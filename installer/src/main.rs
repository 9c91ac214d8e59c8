//! `wasmbox-installer`: puts WasmBox on a Kubernetes node, keeps it there, and takes it away. See `--help`, and docs/kubernetes.md.
//!
//! It runs in a pod that has the node's root directory, and lives in there from its start: all paths are the node's. It does not talk to
//! Kubernetes: the label of the node is the business of the DaemonSet.
//!
//! - [`node`]: whose containerd this is, where its things are, how it is restarted
//! - [`binaries`]: the shim, the box and this program, on the node
//! - [`link`]: the shim where containerd looks for it
//! - [`dump`]: the configuration that containerd makes of its files
//! - [`handler`]: what is to be in there
//! - [`block`], [`replace`]: edits that can be taken back to the byte, and are never seen half done
//! - [`registration`]: how the handler gets in there and out; [`cri`]: whether it is there
//! - [`install`]: the order of all this

mod binaries;
mod block;
mod cri;
mod dump;
mod handler;
mod install;
mod link;
mod node;
mod registration;
mod replace;

use std::{
    os::unix::fs::chroot,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use crate::{binaries::Binaries, install::Installer, node::Node};

#[derive(Debug, Parser)]
#[command(name = "wasmbox-installer", version, about = "Puts WasmBox on a Kubernetes node, or takes it away")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Puts the binaries on the node, and the handler into its containerd; does what is missing, and ends when CRI knows the handler.
    Install(Options),
    /// Takes all of it away; the configuration is then what it was, to the byte.
    Uninstall(Options),
}

#[derive(Debug, Args)]
struct Options {
    /// The node's root directory; it is entered
    #[arg(long, value_name = "DIR", default_value = "/")]
    host_root: PathBuf,
    /// Where the binaries go, on the node
    #[arg(long, value_name = "DIR", default_value = "/opt/wasmbox/bin")]
    directory: PathBuf,
    /// Stays, and looks again each so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    watch: Option<u64>,
    /// A program of the node's that restarts containerd, where there is no systemd
    #[arg(long, value_name = "PROGRAM")]
    restart: Option<PathBuf>,
    /// How many seconds containerd may take to answer after a restart
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    wait: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wasmbox-installer: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let (options, installs) = match cli.command {
        Command::Install(options) => (options, true),
        Command::Uninstall(options) => (options, false),
    };
    anyhow::ensure!(options.directory.is_absolute(), "--directory {}: not absolute", options.directory.display());
    // Opened before the node's root is entered: these files are the image's.
    let binaries = Binaries::of_this_image(options.directory.clone())?;
    enter(&options.host_root)?;
    let installer =
        Installer { node: Node::find(options.restart)?, binaries, patience: Duration::from_secs(options.wait) };
    let mut terminate = signal(SignalKind::terminate())?;
    loop {
        if installs {
            installer.install().await?
        } else {
            installer.uninstall().await?
        }
        let Some(seconds) = options.watch else { return Ok(()) };
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            () = tokio::time::sleep(Duration::from_secs(seconds)) => {}
        }
    }
}

/// From now on `/` is the node's.
fn enter(root: &Path) -> anyhow::Result<()> {
    if root != Path::new("/") {
        chroot(root).with_context(|| format!("--host-root {}: chroot", root.display()))?;
    }
    std::env::set_current_dir("/").context("the node's root directory")
}
