//! Logging binaries (`binary://`): processes that take a container's output, by containerd's protocol for them.

use std::{
    ffi::OsStr,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    process::Stdio,
    time::Duration,
};

use command_fds::{CommandFdExt, FdMapping};
use percent_encoding::percent_decode_str;
use rustix::process::Signal;
use tokio::{sync::oneshot, time::timeout};

use crate::{
    environment,
    exits::{Exit, Exits},
    stdio::StdioError,
    watched::watched,
};

/// The scheme of its address.
pub const SCHEME: &str = "binary://";
/// How long one may take to be ready.
const START: Duration = Duration::from_secs(10);
/// How long one may take to write the rest, as runc's shim gives it.
const END: Duration = Duration::from_secs(12);

/// A running logging binary. It ends when its pipes do.
#[derive(Debug)]
pub struct Logger {
    pid: u32,
    exit: oneshot::Receiver<Exit>,
    exits: Exits,
}

impl Logger {
    /// Starts `/path?key=value` (percent-encoded): standard output on 3, standard error on 4, and 5, which it closes when it is ready. Returns
    /// the process's ends of both pipes, too.
    ///
    /// # Errors
    /// [`StdioError::Binary`], if it cannot be started, or is not ready in time.
    pub async fn start(
        uri: &str,
        exits: &Exits,
        namespace: &str,
        id: &str,
    ) -> Result<(OwnedFd, OwnedFd, Logger), StdioError> {
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        let error = |reason: String| StdioError::Binary { path: path.into(), reason };
        let pipe =
            || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|errno| error(errno.to_string()));
        let (stdout, stdout_end) = pipe()?;
        let (stderr, stderr_end) = pipe()?;
        let (ready, ready_end) = pipe()?;
        let mut command = environment::command(path);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            for part in [key, value].into_iter().filter(|part| !part.is_empty()) {
                command.arg(OsStr::from_bytes(&percent_decode_str(part).collect::<Vec<u8>>()));
            }
        }
        command
            .env("CONTAINER_ID", id)
            .env("CONTAINER_NAMESPACE", namespace)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .fd_mappings(vec![
                FdMapping { parent_fd: stdout, child_fd: 3 },
                FdMapping { parent_fd: stderr, child_fd: 4 },
                FdMapping { parent_fd: ready_end, child_fd: 5 },
            ])
            .map_err(|collision| error(collision.to_string()))?;
        let (child, exit) = exits.spawn(&mut command).map_err(|source| error(source.to_string()))?;
        drop(command);
        let logger = Logger { pid: child.id(), exit, exits: exits.clone() };
        // Closed without a byte, also if it ended.
        let ready = watched(ready).map_err(|source| error(source.to_string()))?;
        if timeout(START, ready.readable()).await.is_err() {
            logger.exits.signal(logger.pid, Signal::KILL);
            return Err(error(format!("was not ready within {START:?}: it has to close descriptor 5")));
        }
        Ok((stdout_end, stderr_end, logger))
    }

    /// Waits until it has written the last lines; not for ever.
    pub async fn finish(self) {
        if timeout(END, self.exit).await.is_err() {
            log::warn!("the logging binary, process {}, did not end within {END:?} and was killed", self.pid);
            self.exits.signal(self.pid, Signal::KILL);
        }
    }
}
