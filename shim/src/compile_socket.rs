//! The socket by which a WasmBox has its modules compiled on the host, for the cache that all boxes of the node read.
//!
//! Each connection gets a process, `wasmbox compile-service`, with the connection as standard input and output: this process reads nothing
//! of what a box sends. What that one does, and why a box cannot poison the cache, says docs/design.md. Here is only how many there are,
//! how long, and whose: a container's end is theirs.

use std::{
    fs::{self, DirBuilder, Permissions},
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::{DirBuilderExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use rustix::{
    fs::{Mode, OFlags},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    task::{JoinHandle, JoinSet},
};
use wasmbox_oci::NodeCache;

use crate::{bundle::Bundle, environment, exits::Exits, options::Options};

/// In the bundle: gone with it, whatever becomes of the shim.
const NAME: &str = "compile.sock";
/// As many as a box compiles at once by itself. Others wait in the socket's queue.
const AT_ONCE: usize = 2;
/// The service has deadlines of its own, which are shorter.
const DEADLINE: Duration = Duration::from_secs(900);

/// A container's socket. Dropping it ends what was started for it.
#[derive(Debug)]
pub struct CompileSocket {
    path: PathBuf,
    serving: JoinHandle<()>,
}

/// What is started for each connection.
type Service = Arc<dyn Fn() -> Command + Send + Sync>;

impl CompileSocket {
    /// What the node offers a container, if it has a cache. Where it cannot be made, boxes run without.
    pub fn offer(
        options: &Options,
        binary: &Path,
        bundle: &Bundle,
        exits: &Exits,
    ) -> Option<(NodeCache, CompileSocket)> {
        let directory = options.cache_dir()?;
        let mut arguments = vec![format!("--cache-dir={}", directory.display())];
        arguments.extend(options.cache_size.as_ref().map(|size| format!("--cache-size={size}")));
        let binary = binary.to_owned();
        let service = move || {
            let mut command = environment::command(&binary);
            command.arg("compile-service").args(&arguments);
            command
        };
        let made =
            make(&directory).and_then(|()| CompileSocket::serve(bundle.path(), Arc::new(service), exits.clone()));
        match made {
            Ok(socket) => Some((NodeCache { directory, socket: socket.path.clone() }, socket)),
            Err(error) => {
                log::warn!("no cache of the node, {}: {error}", directory.display());
                None
            }
        }
    }

    fn serve(bundle: &Path, service: Service, exits: Exits) -> io::Result<CompileSocket> {
        let path = path(bundle);
        // The path of a bundle is longer than an address may be.
        let directory = rustix::fs::open(bundle, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let listener = UnixListener::bind(format!("/proc/self/fd/{}/{NAME}", directory.as_raw_fd()))?;
        // For whatever user the box is; others cannot enter the bundle, and the container sees nothing else of it.
        fs::set_permissions(&path, Permissions::from_mode(0o666))?;
        Ok(CompileSocket { path, serving: tokio::spawn(accept(listener, service, exits)) })
    }
}

impl Drop for CompileSocket {
    fn drop(&mut self) {
        self.serving.abort();
        let _ = fs::remove_file(&self.path);
    }
}

/// Where a bundle's socket is.
pub fn path(bundle: &Path) -> PathBuf {
    bundle.join(NAME)
}

/// Boxes of all users read files there, whose names follow from what was compiled; nobody needs a list of them.
fn make(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
    fs::set_permissions(directory, Permissions::from_mode(0o711))
}

/// For ever; what runs ends with it.
async fn accept(listener: UnixListener, service: Service, exits: Exits) {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut running = JoinSet::new();
    loop {
        let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((connection, _)) => {
                let (service, exits) = (service.clone(), exits.clone());
                running.spawn(async move {
                    let _place = place;
                    if let Err(error) = run(connection, &service, &exits).await {
                        log::warn!("compile service: {error}");
                    }
                });
            }
            Err(error) => {
                // Too many open files, for instance: that passes.
                log::warn!("compile service: {error}");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
        while running.try_join_next().is_some() {}
    }
}

/// A child that is killed unless it has ended.
struct Running(OwnedFd);

impl Drop for Running {
    fn drop(&mut self) {
        // To one that has ended it is not sent; the descriptor is never another process's.
        let _ = pidfd_send_signal(&self.0, Signal::KILL);
    }
}

async fn run(connection: UnixStream, service: &Service, exits: &Exits) -> io::Result<()> {
    let connection = connection.into_std()?;
    connection.set_nonblocking(false)?;
    let input = OwnedFd::from(connection.try_clone()?);
    let mut command = service();
    command.stdin(input).stdout(OwnedFd::from(connection)).stderr(Stdio::null());
    let spawned = exits.spawn(&mut command);
    // It holds copies of the connection.
    drop(command);
    let (child, exit) = spawned?;
    // It is reaped by another task of this thread: not yet.
    let _running = Running(pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?);
    match tokio::time::timeout(DEADLINE, exit).await {
        // What went wrong the service has told the box.
        Ok(_) => Ok(()),
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        os::unix::net::UnixStream,
    };

    use super::*;

    fn connect(directory: &OwnedFd) -> UnixStream {
        UnixStream::connect(format!("/proc/self/fd/{}/{NAME}", directory.as_raw_fd())).unwrap()
    }

    /// Whether something comes back soon.
    fn echoes(mut stream: &UnixStream, patience: Duration) -> bool {
        stream.set_read_timeout(Some(patience)).unwrap();
        let mut byte = [0];
        stream.read(&mut byte).is_ok_and(|count| count == 1)
    }

    /// One test, since its reaper reaps all children of the test's process.
    #[tokio::test]
    async fn connections_get_processes_a_few_at_once_that_end_with_the_socket() {
        const PATIENCE: Duration = Duration::from_secs(30);
        let root = std::env::temp_dir().join(format!("wasmbox-compile-socket-{}", std::process::id()));
        // As long as containerd's.
        let bundle = root.join("b".repeat(100)).join("c".repeat(64));
        fs::create_dir_all(&bundle).unwrap();
        let directory = rustix::fs::open(&bundle, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let exits = Exits::default();
        let reaper = tokio::spawn(exits.reaper().unwrap());
        let socket = CompileSocket::serve(&bundle, Arc::new(|| Command::new("cat")), exits).unwrap();
        assert_eq!(fs::metadata(path(&bundle)).unwrap().permissions().mode() & 0o777, 0o666);

        let clients = tokio::task::spawn_blocking(move || {
            let mut streams: Vec<UnixStream> = (0..=AT_ONCE).map(|_| connect(&directory)).collect();
            streams.iter_mut().for_each(|stream| stream.write_all(b"x").unwrap());
            let (served, waiting) = streams.split_at(AT_ONCE);
            assert!(served.iter().all(|stream| echoes(stream, PATIENCE)));
            assert!(!echoes(&waiting[0], Duration::from_millis(100)));
            // One leaves, and its process with it: the next one is served.
            drop(streams.remove(0));
            assert!(echoes(&streams[1], PATIENCE));
            streams
        });
        let mut streams = clients.await.unwrap();
        drop(socket);
        assert!(!path(&bundle).exists());
        let ended = tokio::task::spawn_blocking(move || {
            // The processes held the other ends.
            streams
                .iter_mut()
                .all(|stream| stream.set_read_timeout(Some(PATIENCE)).is_ok() && stream.read(&mut [0]).unwrap() == 0)
        });
        assert!(ended.await.unwrap());
        reaper.abort();
        fs::remove_dir_all(root).unwrap();
    }
}
