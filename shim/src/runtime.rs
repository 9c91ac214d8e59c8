//! The OCI runtime (runc, crun): one short-lived process for each call, with a deadline.

use std::{
    ffi::OsStr,
    fs, io,
    os::{fd::OwnedFd, unix::process::CommandExt},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use rustix::process::{Signal, kill_process_group};

use crate::{
    bundle::Bundle,
    environment,
    exits::{Exit, Exits, ends_with_us, pid},
    options::Options,
    sweep::{kill, sweep},
};

pub const DEFAULT_BINARY: &str = "runc";
/// Its own directory: containers of containerd's runc shim with the same names are others.
const DEFAULT_ROOT: &str = "/run/containerd/wasmbox";
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a killed process may take to end: it may be waiting for a disk.
const KILLED: Duration = Duration::from_secs(1);
/// The runtime's own messages, in the bundle.
const LOG: &str = "log.json";

#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    #[error("OCI runtime {}: {source}", binary.display())]
    Start { binary: PathBuf, source: io::Error },
    #[error("OCI runtime {call} failed: {message}")]
    Failed { call: String, message: String },
    #[error("OCI runtime {call} did not end within {seconds} s and was killed")]
    Timeout { call: String, seconds: u64 },
    #[error("OCI runtime's pid file {}: {reason}", path.display())]
    PidFile { path: PathBuf, reason: String },
}

/// How to call it for the containers of one namespace.
#[derive(Debug, Clone)]
pub struct Runtime {
    binary: PathBuf,
    root: PathBuf,
    systemd_cgroup: bool,
    no_pivot_root: bool,
    no_new_keyring: bool,
    timeout: Duration,
    exits: Exits,
}

/// What a new process gets as its standard streams.
#[derive(Debug)]
pub enum Streams<'a> {
    Files {
        stdin: Option<OwnedFd>,
        stdout: Option<OwnedFd>,
        stderr: Option<OwnedFd>,
    },
    /// Its terminal is sent to this socket.
    Console(&'a Path),
}

impl Runtime {
    pub fn new(options: &Options, namespace: &str, exits: Exits) -> Runtime {
        Runtime {
            binary: options.binary_name.clone().unwrap_or_else(|| DEFAULT_BINARY.into()),
            root: options.root.clone().unwrap_or_else(|| DEFAULT_ROOT.into()).join(namespace),
            systemd_cgroup: options.systemd_cgroup,
            no_pivot_root: options.no_pivot_root,
            no_new_keyring: options.no_new_keyring,
            timeout: options.runtime_timeout.map_or(DEFAULT_TIMEOUT, Duration::from_secs),
            exits,
        }
    }

    /// Makes the container; its init process waits for [`Runtime::start`]. Returns the pid and where its exit will be told.
    pub async fn create(
        &self,
        id: &str,
        bundle: &Path,
        streams: Streams<'_>,
    ) -> Result<(u32, tokio::sync::oneshot::Receiver<Exit>), RuntimeError> {
        let pid_file = Bundle::new(bundle).init_pid_file();
        let mut call = Call::new(self, "create");
        call.arg("--bundle").arg(bundle).arg("--pid-file").arg(&pid_file);
        if self.no_pivot_root {
            call.arg("--no-pivot");
        }
        if self.no_new_keyring {
            call.arg("--no-new-keyring");
        }
        call.streams(streams);
        call.arg(id);
        self.with_pid(call, bundle, &pid_file).await
    }

    /// Starts a further process in the container.
    pub async fn exec(
        &self,
        id: &str,
        bundle: &Path,
        exec: &str,
        process: &Path,
        streams: Streams<'_>,
    ) -> Result<(u32, tokio::sync::oneshot::Receiver<Exit>), RuntimeError> {
        let pid_file = bundle.join(format!("exec-{exec}.pid"));
        let mut call = Call::new(self, "exec");
        call.arg("--detach").arg("--process").arg(process).arg("--pid-file").arg(&pid_file);
        call.streams(streams);
        call.arg(id);
        let result = self.with_pid(call, bundle, &pid_file).await;
        let _ = fs::remove_file(&pid_file);
        result
    }

    async fn with_pid(
        &self,
        call: Call,
        bundle: &Path,
        pid_file: &Path,
    ) -> Result<(u32, tokio::sync::oneshot::Receiver<Exit>), RuntimeError> {
        let expecting = self.exits.expect();
        call.run(bundle).await?;
        let error = |reason: String| RuntimeError::PidFile { path: pid_file.to_owned(), reason };
        let text = fs::read_to_string(pid_file).map_err(|source| error(source.to_string()))?;
        let pid = text.trim().parse().map_err(|_| error(format!("{text:?} is no pid")))?;
        Ok((pid, expecting.of(pid)))
    }

    pub async fn start(&self, id: &str, bundle: &Path) -> Result<(), RuntimeError> {
        self.simple("start", &[], id, bundle).await
    }

    /// Removes what is left of an ended container; with `force` it is killed first.
    pub async fn delete(&self, id: &str, bundle: &Path, force: bool) -> Result<(), RuntimeError> {
        self.simple("delete", if force { &["--force"] } else { &[] }, id, bundle).await
    }

    /// Removes all of a container, whatever it takes: what the runtime does not remove is removed here.
    ///
    /// # Errors
    /// The runtime's, for whom it interests.
    pub async fn remove(&self, id: &str, bundle: &Bundle) -> Result<(), RuntimeError> {
        let cgroups = bundle.cgroups(id);
        // At once: the runtime may need longer than there is time for, and waits for their end in steps of a tenth of a second.
        kill(cgroups.clone()).await;
        let deleted = self.delete(id, bundle.path(), true).await;
        sweep(cgroups).await;
        if deleted.is_err() {
            // Its state, by which it would exist already when it is made again.
            let _ = fs::remove_dir_all(self.root.join(id));
        }
        bundle.unmount();
        deleted
    }

    /// Whether there is a state of it.
    pub fn knows(&self, id: &str) -> bool {
        self.root.join(id).exists()
    }

    /// Sends a signal to the init process, or to all processes.
    pub async fn kill(&self, id: &str, bundle: &Path, signal: u32, all: bool) -> Result<(), RuntimeError> {
        let mut call = Call::new(self, "kill");
        if all {
            call.arg("--all");
        }
        call.arg(id).arg(signal.to_string());
        call.run(bundle).await.map(drop)
    }

    pub async fn pause(&self, id: &str, bundle: &Path) -> Result<(), RuntimeError> {
        self.simple("pause", &[], id, bundle).await
    }

    pub async fn resume(&self, id: &str, bundle: &Path) -> Result<(), RuntimeError> {
        self.simple("resume", &[], id, bundle).await
    }

    /// `resources`: a file with `linux.resources` of the specification.
    pub async fn update(&self, id: &str, bundle: &Path, resources: &Path) -> Result<(), RuntimeError> {
        let mut call = Call::new(self, "update");
        call.arg("--resources").arg(resources).arg(id);
        call.run(bundle).await.map(drop)
    }

    async fn simple(
        &self,
        name: &'static str,
        arguments: &[&str],
        id: &str,
        bundle: &Path,
    ) -> Result<(), RuntimeError> {
        let mut call = Call::new(self, name);
        for argument in arguments {
            call.arg(argument);
        }
        call.arg(id);
        call.run(bundle).await.map(drop)
    }
}

/// One call.
struct Call {
    name: &'static str,
    runtime: Runtime,
    arguments: Vec<std::ffi::OsString>,
    streams: [Option<OwnedFd>; 3],
}

impl Call {
    fn new(runtime: &Runtime, name: &'static str) -> Call {
        Call { name, runtime: runtime.clone(), arguments: vec![name.into()], streams: [None, None, None] }
    }

    fn arg(&mut self, argument: impl AsRef<OsStr>) -> &mut Call {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    fn streams(&mut self, streams: Streams<'_>) {
        match streams {
            Streams::Files { stdin, stdout, stderr } => self.streams = [stdin, stdout, stderr],
            Streams::Console(socket) => drop(self.arg("--console-socket").arg(socket)),
        }
    }

    /// Runs to the end.
    async fn run(self, bundle: &Path) -> Result<(), RuntimeError> {
        let Call { name, runtime, arguments, streams } = self;
        let log = bundle.join(LOG);
        let mut command = environment::command(&runtime.binary);
        command.arg("--root").arg(&runtime.root).arg("--log").arg(&log).args(["--log-format", "json"]);
        if runtime.systemd_cgroup {
            command.arg("--systemd-cgroup");
        }
        let stdio = |stream: Option<OwnedFd>| stream.map_or_else(Stdio::null, Stdio::from);
        let [stdin, stdout, stderr] = streams.map(stdio);
        command.args(&arguments).stdin(stdin).stdout(stdout).stderr(stderr);
        // A call that takes too long ends with all that it started.
        command.process_group(0);
        // What it made after the shim's end would be nobody's.
        ends_with_us(&mut command);
        let started = runtime.exits.start(&mut command);
        // The streams are the container's now: the command holds copies.
        drop(command);
        let (number, mut exit) =
            started.map_err(|source| RuntimeError::Start { binary: runtime.binary.clone(), source })?;
        match tokio::time::timeout(runtime.timeout, &mut exit).await {
            Ok(Ok(Exit { status: 0, .. })) => Ok(()),
            Ok(Ok(Exit { status, .. })) => {
                let message = last_error(&log).unwrap_or_else(|| format!("exit status {status}"));
                Err(RuntimeError::Failed { call: name.to_owned(), message })
            }
            // The reaper is gone: the shim is ending.
            Ok(Err(_)) => Err(RuntimeError::Failed { call: name.to_owned(), message: "the shim is ending".into() }),
            Err(_) => {
                if let Some(pid) = pid(number) {
                    let _ = kill_process_group(pid, Signal::KILL);
                    // What comes next must not meet it.
                    let _ = tokio::time::timeout(KILLED, exit).await;
                }
                Err(RuntimeError::Timeout { call: name.to_owned(), seconds: runtime.timeout.as_secs() })
            }
        }
    }
}

/// The runtime's last error message.
fn last_error(log: &Path) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Line {
        level: String,
        msg: String,
    }
    let text = fs::read_to_string(log).ok()?;
    let lines = text.lines().rev().filter_map(|line| serde_json::from_str::<Line>(line).ok());
    lines.into_iter().find(|line| line.level == "error" || line.level == "fatal").map(|line| line.msg)
}
