//! A process's standard streams: what containerd names becomes files that the process gets itself.
//!
//! Nothing is copied. A fifo is given to the first process as it is, and a second descriptor of it, open for reading and writing, is kept: so
//! a containerd that restarts does not break the process's output, and what it writes meanwhile waits in the fifo; and its input does not
//! end before it began. It ends when its writer closes it, or when containerd says so, whichever is first. Further processes write to pipes,
//! which lead to the fifos ([`crate::relay`]), and so does the first one to its standard error, on which the OCI runtime speaks, too, until
//! the process is there. Files are appended to; a logging binary gets pipes ([`crate::logger`]).

use std::{
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::fs::{Gid, Mode, OFlags, Uid, fchown, inotify};
use tokio::task::JoinHandle;

use crate::{
    exits::Exits,
    fifo::drained,
    logger::{self, Logger},
    relay::{Relay, Unstarted},
    watched::watched,
};

/// The scheme of files' addresses.
pub const FILE: &str = "file://";
const STDERR: &str = "stderr";

#[derive(Debug, thiserror::Error)]
pub enum StdioError {
    #[error("{stream} {address:?}: {source}")]
    Open { stream: &'static str, address: String, source: io::Error },
    #[error("{stream} {address:?}: expected a path, file:// or binary://")]
    Scheme { stream: &'static str, address: String },
    #[error("terminal: {0}")]
    Terminal(#[source] io::Error),
    #[error("pipe for a process's output: {0}")]
    Relay(#[source] io::Error),
    #[error("IoUid, IoGid: giving the streams to the container's user: {0}")]
    Owner(#[source] io::Error),
    #[error("logging binary {}: {reason}", path.display())]
    Binary { path: PathBuf, reason: String },
}

/// The addresses as containerd gives them; empty for none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addresses {
    pub stdin: String,
    pub stdout: String,
    pub stderr: String,
    pub terminal: bool,
}

/// The process's own.
#[derive(Debug, Default)]
pub struct StdioFds {
    pub stdin: Option<OwnedFd>,
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
}

/// What is kept open as long as the process runs.
#[derive(Debug, Default)]
pub struct ContainerIo {
    stdin: Option<KeptStdin>,
    outputs: Vec<OwnedFd>,
    unstarted: Vec<Unstarted>,
    relays: Vec<Relay>,
    logger: Option<Logger>,
}

/// Keeps a fifo's input from ending until a writer has closed it.
#[derive(Debug)]
struct KeptStdin(JoinHandle<()>);

impl KeptStdin {
    fn new(path: &Path) -> io::Result<KeptStdin> {
        let closing = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        inotify::add_watch(&closing, path, inotify::WatchFlags::CLOSE_WRITE)?;
        let closing = watched(closing)?;
        let keeper = rustix::fs::open(path, OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?;
        Ok(KeptStdin(tokio::spawn(async move {
            // Readable when a writer has closed it.
            let _ = closing.readable().await;
            drop(keeper);
        })))
    }
}

impl Drop for KeptStdin {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl ContainerIo {
    /// Lets what the process writes go on. Before that, it is discarded with this.
    ///
    /// # Errors
    /// [`StdioError::Relay`].
    pub fn start(&mut self) -> Result<(), StdioError> {
        for relay in self.unstarted.drain(..) {
            self.relays.push(relay.start().map_err(StdioError::Relay)?);
        }
        Ok(())
    }

    /// When what the ended process wrote has been read. Then containerd's fifos are closed, but for those of which others may write to the pipe.
    pub async fn drained(&mut self) {
        self.stdin = None;
        for fifo in self.outputs.drain(..) {
            drained(fifo).await;
        }
        for relay in &mut self.relays {
            relay.drained().await;
        }
    }

    /// Closes all; what still writes has some time for it.
    pub async fn finish(self) {
        for relay in self.relays {
            relay.finish().await;
        }
        if let Some(logger) = self.logger {
            logger.finish().await;
        }
    }

    /// From now on the process sees the end of its input when all else have closed it.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }
}

/// Whose streams are opened, and how.
#[derive(Debug, Clone, Copy)]
pub struct StdioOwner<'a> {
    pub exits: &'a Exits,
    pub namespace: &'a str,
    /// The container's.
    pub id: &'a str,
    /// The host's numbers of its root user, if it has a user namespace, and else 0.
    pub user: (u32, u32),
    /// Whether the process may end before its container does: then it gets no fifo of containerd's.
    pub is_exec: bool,
}

impl Addresses {
    /// Opens the streams of a process without a terminal.
    ///
    /// # Errors
    /// [`StdioError`], naming the stream.
    pub async fn open(&self, owner: StdioOwner<'_>) -> Result<(StdioFds, ContainerIo), StdioError> {
        let (mut fds, mut io) = (StdioFds::default(), ContainerIo::default());
        if !self.stdin.is_empty() {
            let path = plain("stdin", &self.stdin)?;
            // The keeper first: opening for reading alone would wait for a writer.
            let error = |source| StdioError::Open { stream: "stdin", address: self.stdin.clone(), source };
            io.stdin = Some(KeptStdin::new(&path).map_err(error)?);
            fds.stdin = Some(open("stdin", &path, OFlags::RDONLY)?);
        }
        if let Some(command) = self.stdout.strip_prefix(logger::SCHEME) {
            let (stdout, stderr, logger) = Logger::start(command, owner.exits, owner.namespace, owner.id).await?;
            (fds.stdout, fds.stderr, io.logger) = (Some(stdout), Some(stderr), Some(logger));
        } else {
            fds.stdout = output("stdout", &self.stdout, owner, &mut io)?;
            fds.stderr = output(STDERR, &self.stderr, owner, &mut io)?;
        }
        fds.give(owner.user)?;
        Ok((fds, io))
    }
}

impl StdioFds {
    /// Else processes of a user namespace could not open them by `/dev/stdout`.
    fn give(&self, (uid, gid): (u32, u32)) -> Result<(), StdioError> {
        let streams = [&self.stdin, &self.stdout, &self.stderr].into_iter().flatten();
        if (uid, gid) != (0, 0) {
            for file in streams {
                let owner = (Uid::from_raw(uid), Gid::from_raw(gid));
                fchown(file, Some(owner.0), Some(owner.1)).map_err(|errno| StdioError::Owner(errno.into()))?;
            }
        }
        Ok(())
    }
}

fn output(
    stream: &'static str,
    address: &str,
    owner: StdioOwner<'_>,
    io: &mut ContainerIo,
) -> Result<Option<OwnedFd>, StdioError> {
    if address.is_empty() {
        return Ok(None);
    }
    if let Some(path) = address.strip_prefix(FILE) {
        return append(stream, path).map(Some);
    }
    let path = plain(stream, address)?;
    let fifo = open(stream, &path, OFlags::RDWR | OFlags::NONBLOCK)?;
    if owner.is_exec || stream == STDERR {
        let (end, unstarted) = Unstarted::new(fifo).map_err(StdioError::Relay)?;
        io.unstarted.push(unstarted);
        return Ok(Some(end));
    }
    io.outputs.push(fifo);
    open(stream, &path, OFlags::WRONLY).map(Some)
}

/// Opens the file of a `file://` address, which is made if it is missing.
pub fn append(stream: &'static str, path: &str) -> Result<OwnedFd, StdioError> {
    let path = Path::new(path.split('?').next().unwrap_or(path));
    if let Some(parent) = path.parent() {
        let _ = fs::create_dir_all(parent);
    }
    open(stream, path, OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND)
}

/// `/path` or `fifo:///path`.
fn plain(stream: &'static str, address: &str) -> Result<PathBuf, StdioError> {
    let path = address.strip_prefix("fifo://").unwrap_or(address);
    if path.starts_with('/') {
        return Ok(path.into());
    }
    Err(StdioError::Scheme { stream, address: address.to_owned() })
}

pub fn open(stream: &'static str, path: &Path, flags: OFlags) -> Result<OwnedFd, StdioError> {
    rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::from_bits_truncate(0o644)).map_err(|errno| StdioError::Open {
        stream,
        address: path.display().to_string(),
        source: errno.into(),
    })
}
