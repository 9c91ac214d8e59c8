//! A process's standard streams: what containerd names becomes files that the process gets itself.
//!
//! Nothing is copied. A fifo is given to the process as it is, and a second descriptor of it, open for reading and writing, is kept: so
//! a containerd that restarts does not break the process's output, and what it writes meanwhile waits in the fifo; and its input does not
//! end before it began. It ends when its writer closes it, or when containerd says so, whichever is first.
//! Files are appended to; a logging binary gets pipes.

use std::{
    ffi::OsStr,
    fs, io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use command_fds::{CommandFdExt, FdMapping};
use percent_encoding::percent_decode_str;
use rustix::{
    event::{PollFd, PollFlags, Timespec},
    fs::{Mode, OFlags, inotify},
    process::Signal,
};
use tokio::{
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use crate::{
    environment,
    exits::{Exit, Exits},
    watched::watched,
};

/// How long a logging binary may take to be ready.
const LOGGER_START: Duration = Duration::from_secs(10);
/// How long it may take to write the rest, as runc's shim gives it.
const LOGGER_END: Duration = Duration::from_secs(12);

#[derive(Debug, thiserror::Error)]
pub enum StdioError {
    #[error("{stream} {address:?}: {source}")]
    Open { stream: &'static str, address: String, source: io::Error },
    #[error("{stream} {address:?}: expected a path, file:// or binary://")]
    Scheme { stream: &'static str, address: String },
    #[error("terminal: {0}")]
    Terminal(#[source] io::Error),
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

/// The process's ends.
#[derive(Debug, Default)]
pub struct Ends {
    pub stdin: Option<OwnedFd>,
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
}

/// What is kept open as long as the process runs.
#[derive(Debug, Default)]
pub struct Kept {
    stdin: Option<KeptStdin>,
    outputs: Vec<OwnedFd>,
    logger: Option<Logger>,
}

/// A running logging binary. It ends when its pipes do.
#[derive(Debug)]
pub struct Logger {
    pid: u32,
    exit: oneshot::Receiver<Exit>,
    exits: Exits,
}

impl Logger {
    /// Waits until it has written the last lines; not for ever.
    pub async fn finish(self) {
        if timeout(LOGGER_END, self.exit).await.is_err() {
            log::warn!("the logging binary, process {}, did not end within {LOGGER_END:?} and was killed", self.pid);
            self.exits.signal(self.pid, Signal::KILL);
        }
    }
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

/// A reader that takes nothing for so long takes nothing any more.
const STALLED: Duration = Duration::from_secs(2);
/// After so long, somebody else keeps writing.
pub const LONGEST: Duration = Duration::from_secs(10);

/// When the reader of a fifo has taken all that was written, if it has a reader; but that is not waited for without end. containerd 1.6 stops
/// to read when it is told of a container's end, and what is in the fifo then is lost.
pub async fn drained(fifo: OwnedFd) {
    // One for writing alone, so that this process is no reader itself.
    let same = format!("/proc/self/fd/{}", fifo.as_raw_fd());
    let Ok(writer) = rustix::fs::open(same, OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()) else {
        return;
    };
    drop(fifo);
    let unread = || if has_reader(&writer) { rustix::io::ioctl_fionread(&writer).unwrap_or(0) } else { 0 };
    let began = Instant::now();
    let (mut left, mut progress) = (unread(), began);
    while left > 0 && progress.elapsed() < STALLED && began.elapsed() < LONGEST {
        sleep(Duration::from_millis(2)).await;
        let now = unread();
        if now < left {
            progress = Instant::now();
        }
        left = now;
    }
}

/// pipe(7), poll(2): else there is an error at the writer's end.
fn has_reader(writer: &OwnedFd) -> bool {
    let mut polled = [PollFd::new(writer, PollFlags::OUT)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut polled, Some(&now)).is_ok() && !polled[0].revents().contains(PollFlags::ERR)
}

impl Kept {
    /// Closes all when what the ended process wrote has been read, and leaves what still writes.
    pub async fn drained(mut self) -> Option<Logger> {
        for fifo in self.outputs.drain(..) {
            drained(fifo).await;
        }
        self.into_logger()
    }

    /// Closes all, and leaves what still writes.
    pub fn into_logger(self) -> Option<Logger> {
        self.logger
    }

    /// From now on the process sees the end of its input when all else have closed it.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }
}

impl Addresses {
    /// Opens the streams of a process without a terminal.
    ///
    /// # Errors
    /// [`StdioError`], naming the stream.
    pub async fn open(&self, exits: &Exits, namespace: &str, id: &str) -> Result<(Ends, Kept), StdioError> {
        let (mut ends, mut kept) = (Ends::default(), Kept::default());
        if !self.stdin.is_empty() {
            let path = plain("stdin", &self.stdin)?;
            // The keeper first: opening for reading alone would wait for a writer.
            let error = |source| StdioError::Open { stream: "stdin", address: self.stdin.clone(), source };
            kept.stdin = Some(KeptStdin::new(&path).map_err(error)?);
            ends.stdin = Some(open("stdin", &path, OFlags::RDONLY)?);
        }
        if let Some(command) = self.stdout.strip_prefix("binary://") {
            let (stdout, stderr, logger) = logger(command, exits, namespace, id).await?;
            (ends.stdout, ends.stderr, kept.logger) = (Some(stdout), Some(stderr), Some(logger));
            return Ok((ends, kept));
        }
        ends.stdout = output("stdout", &self.stdout, &mut kept)?;
        ends.stderr = output("stderr", &self.stderr, &mut kept)?;
        Ok((ends, kept))
    }
}

fn output(stream: &'static str, address: &str, kept: &mut Kept) -> Result<Option<OwnedFd>, StdioError> {
    if address.is_empty() {
        return Ok(None);
    }
    if let Some(path) = address.strip_prefix("file://") {
        let path = Path::new(path.split('?').next().unwrap_or(path));
        if let Some(parent) = path.parent() {
            let _ = fs::create_dir_all(parent);
        }
        return open(stream, path, OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND).map(Some);
    }
    let path = plain(stream, address)?;
    kept.outputs.push(open(stream, &path, OFlags::RDWR | OFlags::NONBLOCK)?);
    open(stream, &path, OFlags::WRONLY).map(Some)
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

/// Starts `binary:///path?key=value` (percent-encoded), containerd's protocol for loggers: standard output on 3, standard error on 4, and 5, which it closes
/// when it is ready. Returns the ends for the process.
async fn logger(uri: &str, exits: &Exits, namespace: &str, id: &str) -> Result<(OwnedFd, OwnedFd, Logger), StdioError> {
    let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
    let error = |reason: String| StdioError::Binary { path: path.into(), reason };
    let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|errno| error(errno.to_string()));
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
    if timeout(LOGGER_START, ready.readable()).await.is_err() {
        logger.exits.signal(logger.pid, Signal::KILL);
        return Err(error(format!("was not ready within {LOGGER_START:?}: it has to close descriptor 5")));
    }
    Ok((stdout_end, stderr_end, logger))
}
