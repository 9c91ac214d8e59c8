//! A process's terminal: the OCI runtime sends its master side, and the shim copies between it and containerd's fifos.

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
    stdio::{Addresses, LONGEST, StdioError, drained, open},
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

/// A running terminal.
#[derive(Debug)]
pub struct Console {
    master: Arc<AsyncFd<OwnedFd>>,
    /// Each gives what it wrote to.
    input: Option<JoinHandle<Arc<AsyncFd<OwnedFd>>>>,
    output: Option<JoinHandle<Arc<AsyncFd<OwnedFd>>>>,
}

impl Console {
    /// Copies until the process has closed its side.
    ///
    /// # Errors
    /// If a fifo cannot be opened.
    pub fn start(master: OwnedFd, addresses: &Addresses) -> Result<Console, StdioError> {
        let terminal = |source: io::Error| StdioError::Open { stream: "terminal", address: "/dev/ptmx".into(), source };
        let watched = |file: OwnedFd| watched(file).map_err(terminal).map(Arc::new);
        rustix::io::ioctl_fionbio(&master, true).map_err(|errno| terminal(errno.into()))?;
        let master = watched(master)?;
        let fifo = |stream, address: &String| {
            let flags = OFlags::RDWR | OFlags::NONBLOCK;
            (!address.is_empty()).then(|| open(stream, Path::new(address), flags)).transpose()
        };
        let copy = |from: Arc<AsyncFd<OwnedFd>>, to: Arc<AsyncFd<OwnedFd>>| {
            tokio::spawn(async move {
                // The terminal is gone (EIO), or the fifo: nothing more to copy.
                let _ = copy(&from, &to).await;
                to
            })
        };
        let input = match fifo("stdin", &addresses.stdin)? {
            Some(stdin) => Some(copy(watched(stdin)?, master.clone())),
            None => None,
        };
        let output = match fifo("stdout", &addresses.stdout)? {
            Some(stdout) => Some(copy(master.clone(), watched(stdout)?)),
            None => None,
        };
        Ok(Console { master, input, output })
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
    pub async fn drained(mut self) {
        let Some(output) = &mut self.output else { return };
        if let Ok(Ok(fifo)) = timeout(LONGEST, output).await {
            self.output = None;
            // The copy was its only other owner.
            if let Some(fifo) = Arc::into_inner(fifo) {
                drained(fifo.into_inner()).await;
            }
        }
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        for task in [self.input.take(), self.output.take()].into_iter().flatten() {
            task.abort();
        }
    }
}

async fn copy(from: &AsyncFd<OwnedFd>, to: &AsyncFd<OwnedFd>) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let length = from.async_io(Interest::READABLE, |file| Ok(rustix::io::read(file, &mut buffer)?)).await?;
        if length == 0 {
            return Ok(());
        }
        let mut written = 0;
        while written < length {
            written +=
                to.async_io(Interest::WRITABLE, |file| Ok(rustix::io::write(file, &buffer[written..length])?)).await?;
        }
    }
}
