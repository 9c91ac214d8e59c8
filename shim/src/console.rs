//! A process's terminal: the OCI runtime sends its master side, and the shim copies between it and containerd's fifos, a file or a logging
//! binary.

use std::{
    fs, io,
    mem::MaybeUninit,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::net::UnixListener,
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::{
    fs::{Mode, OFlags},
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags},
    termios::Winsize,
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    task::JoinHandle,
    time::timeout,
};

use crate::{
    fifo::{LONGEST, drained},
    logger::{self, Logger},
    stdio::{FILE, StdioError, StdioOwner, append, open},
    watched::watched,
};

const BUFFER: usize = 4096;

/// Where the runtime sends the terminal. Removed when dropped, at the latest with the bundle in which it is.
#[derive(Debug)]
pub struct ConsoleSocket {
    listener: UnixListener,
    _directory: OwnedFd,
    path: PathBuf,
}

impl ConsoleSocket {
    /// # Errors
    /// If it cannot be made.
    pub fn new(bundle: &Path) -> io::Result<ConsoleSocket> {
        // By descriptor, since the kernel allows 107 bytes, and a bundle's path may have more.
        let directory = rustix::fs::open(bundle, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let number = directory.as_raw_fd();
        let path = PathBuf::from(format!("/proc/{}/fd/{number}/console-{number}", std::process::id()));
        let listener = UnixListener::bind(&path)?;
        Ok(ConsoleSocket { listener, _directory: directory, path })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The terminal, when the runtime's call has ended: then it was sent.
    ///
    /// # Errors
    /// If it was not.
    pub fn receive(&self) -> io::Result<OwnedFd> {
        self.listener.set_nonblocking(true)?;
        let (stream, _) = self.listener.accept()?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut name = [0; 4096];
        let mut buffers = [io::IoSliceMut::new(&mut name)];
        rustix::net::recvmsg(&stream, &mut buffers, &mut control, RecvFlags::CMSG_CLOEXEC)?;
        let terminal = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut files) => files.next(),
            _ => None,
        });
        terminal.ok_or_else(|| io::Error::other("the OCI runtime sent no terminal"))
    }
}

impl Drop for ConsoleSocket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Where what is written to a terminal goes.
#[derive(Debug)]
pub enum ConsoleOutput {
    Nowhere,
    Fifo(OwnedFd),
    File(OwnedFd),
    Logger(OwnedFd, Logger),
}

impl ConsoleOutput {
    /// # Errors
    /// [`StdioError`], naming the stream.
    pub async fn open(address: &str, owner: StdioOwner<'_>) -> Result<ConsoleOutput, StdioError> {
        if let Some(command) = address.strip_prefix(logger::SCHEME) {
            // A terminal has no standard error: that pipe ends at once.
            let (stdout, _, logger) = Logger::start(command, owner.exits, owner.namespace, owner.id).await?;
            rustix::io::ioctl_fionbio(&stdout, true).map_err(|errno| StdioError::Terminal(errno.into()))?;
            return Ok(ConsoleOutput::Logger(stdout, logger));
        }
        if let Some(path) = address.strip_prefix(FILE) {
            return append("stdout", path).map(ConsoleOutput::File);
        }
        if address.is_empty() {
            return Ok(ConsoleOutput::Nowhere);
        }
        open("stdout", Path::new(address), OFlags::RDWR | OFlags::NONBLOCK).map(ConsoleOutput::Fifo)
    }
}

/// A running terminal.
#[derive(Debug)]
pub struct Console {
    master: Arc<AsyncFd<OwnedFd>>,
    input: Option<JoinHandle<()>>,
    /// Gives what it wrote to, if that is read by somebody.
    output: Option<JoinHandle<Option<OwnedFd>>>,
    logger: Option<Logger>,
}

impl Console {
    /// Copies until the process has closed its side.
    ///
    /// # Errors
    /// If the fifo of its input cannot be opened.
    pub fn start(master: OwnedFd, stdin: &str, output: ConsoleOutput) -> Result<Console, StdioError> {
        rustix::io::ioctl_fionbio(&master, true).map_err(|errno| StdioError::Terminal(errno.into()))?;
        let watch = |file| watched(file).map_err(StdioError::Terminal);
        let master = Arc::new(watch(master)?);
        let input = if stdin.is_empty() {
            None
        } else {
            let from = watch(open("stdin", Path::new(stdin), OFlags::RDWR | OFlags::NONBLOCK)?)?;
            let to = master.clone();
            Some(tokio::spawn(async move {
                // The terminal is gone (EIO), or the fifo: nothing more to copy.
                let _ = copy(&from, &Sink::Watched(&to)).await;
            }))
        };
        let from = master.clone();
        let mut logger = None;
        let output = match output {
            ConsoleOutput::Nowhere => None,
            ConsoleOutput::File(file) => Some(tokio::spawn(async move {
                let _ = copy(&from, &Sink::File(&file)).await;
                None
            })),
            ConsoleOutput::Fifo(file) => Some(copy_output(from, watch(file)?)),
            ConsoleOutput::Logger(file, running) => {
                logger = Some(running);
                Some(copy_output(from, watch(file)?))
            }
        };
        Ok(Console { master, input, output, logger })
    }

    /// Rows and columns.
    ///
    /// # Errors
    /// The kernel's.
    pub fn resize(&self, height: u16, width: u16) -> io::Result<()> {
        let size = Winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
        Ok(rustix::termios::tcsetwinsize(self.master.get_ref().as_fd(), size)?)
    }

    /// Nothing more comes in.
    pub fn close_stdin(&mut self) {
        if let Some(input) = self.input.take() {
            input.abort();
        }
    }

    /// When all that the ended process wrote has been passed on and read; but a reader that has stopped is not waited for.
    pub async fn drained(&mut self) {
        self.input.take().inspect(JoinHandle::abort);
        let Some(mut output) = self.output.take() else { return };
        match timeout(LONGEST, &mut output).await {
            Ok(Ok(Some(file))) => drained(file).await,
            Ok(_) => {}
            // Somebody else has the terminal open.
            Err(_) => output.abort(),
        }
    }

    /// Closes all; a logging binary has some time to write the rest.
    pub async fn finish(mut self) {
        let logger = self.logger.take();
        drop(self);
        if let Some(logger) = logger {
            logger.finish().await;
        }
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.input.take().inspect(JoinHandle::abort);
        self.output.take().inspect(JoinHandle::abort);
    }
}

/// What is copied to.
enum Sink<'a> {
    Watched(&'a AsyncFd<OwnedFd>),
    /// An ordinary file, which cannot be watched: the kernel buffers what is written to it.
    File(&'a OwnedFd),
}

impl Sink<'_> {
    async fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Sink::Watched(file) => file.async_io(Interest::WRITABLE, |file| Ok(rustix::io::write(file, bytes)?)).await,
            Sink::File(file) => Ok(rustix::io::write(file, bytes)?),
        }
    }
}

fn copy_output(master: Arc<AsyncFd<OwnedFd>>, to: AsyncFd<OwnedFd>) -> JoinHandle<Option<OwnedFd>> {
    tokio::spawn(async move {
        let _ = copy(&master, &Sink::Watched(&to)).await;
        Some(to.into_inner())
    })
}

async fn copy(from: &AsyncFd<OwnedFd>, to: &Sink<'_>) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let length = from.async_io(Interest::READABLE, |file| Ok(rustix::io::read(file, &mut buffer)?)).await?;
        if length == 0 {
            return Ok(());
        }
        let mut written = 0;
        while written < length {
            written += to.write(&buffer[written..length]).await?;
        }
    }
}
