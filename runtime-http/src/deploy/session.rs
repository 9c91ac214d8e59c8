//! A command's dealings with a registry: how it is reached, and for how long.

use std::{env, path::PathBuf, time::Duration};

use tokio::{
    signal::unix::{SignalKind, signal},
    time::timeout,
};

use crate::{
    limits::{ByteSize, ConfigDuration},
    registry::{Reference, Registry, RegistryError, signature::key::Keys},
};

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Registries (oci://)")]
pub struct RegistryArgs {
    /// Speak HTTP without TLS to the registry, as is done with one on this machine (localhost)
    #[arg(long)]
    pub plain_http: bool,
    /// File with certificates, PEM, of who vouches for the registry, beside those that the system trusts
    #[arg(long, value_name = "FILE", conflicts_with = "plain_http")]
    pub ca: Option<PathBuf>,
    /// Take only what this public key, PEM, has signed with cosign; of several any one suffices. Without it, they are those of the variable WASMBOX_KEY, separated by ':'
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub key: Vec<PathBuf>,
    /// Largest module, the same as a box's own bound at most [default: 256Mi]
    #[arg(long, value_name = "SIZE")]
    pub max_module_size: Option<ByteSize>,
    /// How long all that is done with the registry may take; what is done with a box has bounds of its own [default: 10m]
    #[arg(long, value_name = "TIME")]
    pub timeout: Option<ConfigDuration>,
}

/// The keys for all commands.
const KEYS: &str = "WASMBOX_KEY";
const LARGEST_MODULE: u64 = 256 << 20;
const TIMEOUT: Duration = Duration::from_secs(600);

/// Does `work` until somebody ends this process by a signal: what it holds is dropped then. From now on signals end nothing else: for what is last.
///
/// # Errors
/// [`RegistryError::Interrupted`], and what `work` says.
pub async fn or_interrupted<T>(work: impl Future<Output = Result<T, RegistryError>>) -> Result<T, RegistryError> {
    let on = |kind| signal(kind).map_err(RegistryError::Runtime);
    let (mut interrupt, mut terminate, mut hangup) =
        (on(SignalKind::interrupt())?, on(SignalKind::terminate())?, on(SignalKind::hangup())?);
    tokio::select! {
        done = work => done,
        _ = interrupt.recv() => Err(RegistryError::Interrupted),
        _ = terminate.recv() => Err(RegistryError::Interrupted),
        _ = hangup.recv() => Err(RegistryError::Interrupted),
    }
}

impl RegistryArgs {
    /// Bytes.
    pub fn largest_module(&self) -> u64 {
        self.max_module_size.map_or(LARGEST_MODULE, ByteSize::bytes)
    }

    /// By which a function must be signed. `None` if nobody asks for that.
    ///
    /// # Errors
    /// [`RegistryError`], also if the variable is set to nothing: who set it has meant to ask.
    pub fn keys(&self) -> Result<Option<Keys>, RegistryError> {
        if !self.key.is_empty() {
            return Keys::read(&self.key).map(Some);
        }
        let Some(variable) = env::var_os(KEYS) else { return Ok(None) };
        let paths: Vec<PathBuf> = env::split_paths(&variable).collect();
        if paths.iter().any(|path| path.as_os_str().is_empty()) {
            return Err(RegistryError::NoKey);
        }
        Keys::read(&paths).map(Some)
    }

    /// One that was said on the command line.
    pub fn said(&self) -> Option<&'static str> {
        [
            (self.plain_http, "--plain-http"),
            (self.ca.is_some(), "--ca"),
            (!self.key.is_empty(), "--key"),
            (self.max_module_size.is_some(), "--max-module-size"),
            (self.timeout.is_some(), "--timeout"),
        ]
        .into_iter()
        .find_map(|(is_said, flag)| is_said.then_some(flag))
    }

    /// Does `work` with the registry of `reference`, in its time.
    ///
    /// # Errors
    /// [`RegistryError`]
    pub fn with<T>(
        &self,
        reference: &Reference,
        work: impl AsyncFnOnce(&mut Registry) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        let mut registry = Registry::new(reference.clone(), self.ca.as_deref(), self.plain_http)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(RegistryError::Runtime)?;
        let bound = self.timeout.map_or(TIMEOUT, |timeout| timeout.duration());
        let done = runtime.block_on(async { timeout(bound, work(&mut registry)).await });
        // A name that is still being looked up is not waited for.
        runtime.shutdown_background();
        done.map_err(|_| RegistryError::TimedOut { bound })?
    }
}
