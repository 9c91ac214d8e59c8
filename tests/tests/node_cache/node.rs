//! A node: a cache, and a socket with the service behind it.

use std::{
    collections::BTreeSet,
    fs::{self, Permissions},
    io::{Read, Write},
    net::Shutdown,
    os::{
        fd::OwnedFd,
        unix::{
            fs::PermissionsExt,
            net::{UnixListener, UnixStream},
        },
    },
    path::PathBuf,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use rustix::process::Signal;
use wasmbox_tests::{WasmBox, eventually, process::Process, server::Launch, temporary::TempDir, workspace};

/// A node: a cache, and a socket with the service behind it.
pub struct Node {
    pub directory: TempDir,
    ending: Arc<AtomicBool>,
    /// The service's processes that run.
    services: Arc<Mutex<BTreeSet<Process>>>,
    listening: Option<JoinHandle<()>>,
}

impl Node {
    pub fn start(flags: &[&str]) -> Node {
        let directory = TempDir::new();
        let cache = directory.path().join("cache");
        for path in [&cache, &directory.path().join("mapped")] {
            fs::create_dir(path).expect("a new directory");
            fs::set_permissions(path, Permissions::from_mode(0o711)).expect("the directory is ours");
        }
        let socket = directory.path().join("compile.sock");
        let listener = UnixListener::bind(&socket).expect("a new socket");
        fs::set_permissions(&socket, Permissions::from_mode(0o666)).expect("the socket is ours");
        let (ending, services) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let flags: Vec<String> =
            flags.iter().map(|flag| (*flag).to_owned()).chain([format!("--cache-dir={}", cache.display())]).collect();
        let listening = thread::spawn({
            let (ending, services) = (Arc::clone(&ending), Arc::clone(&services));
            move || serve(&listener, &flags, &ending, &services)
        });
        Node { directory, ending, services, listening: Some(listening) }
    }

    pub fn cache(&self) -> PathBuf {
        self.directory.path().join("cache")
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("compile.sock")
    }

    /// Where a box sees the cache.
    pub fn mapped(&self) -> PathBuf {
        self.directory.path().join("mapped")
    }

    /// The command that starts another in a mount namespace, where the cache is read-only.
    pub fn enter(&self) -> Vec<String> {
        let script = "mount --bind \"$0\" \"$1\" && mount -o remount,bind,ro \"$1\" && shift && exec \"$@\"";
        let [cache, mapped] = [self.cache(), self.mapped()].map(|path| path.display().to_string());
        ["unshare", "--mount", "sh", "-c", script, &cache, &mapped].map(str::to_owned).to_vec()
    }

    /// A box that does not know the service.
    pub fn launch_alone(&self) -> Launch {
        WasmBox::launch()
            .through(self.enter())
            .flag("--node-cache-dir", self.mapped().display())
            .flag("--cache-dir", "none")
    }

    pub fn launch(&self) -> Launch {
        self.launch_alone().flag("--compile-socket", self.socket().display())
    }

    /// What is in the cache.
    pub fn images(&self) -> Vec<PathBuf> {
        let mut images: Vec<PathBuf> =
            fs::read_dir(self.cache()).expect("a directory").map(|entry| entry.expect("an entry").path()).collect();
        images.sort();
        images
    }

    pub fn services(&self) -> Vec<Process> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    /// The processes that compile for this node.
    pub fn compilers(&self) -> Vec<Process> {
        self.services().into_iter().flat_map(Process::children).collect()
    }

    /// Waits for a compiler that runs, confined, and stops it, so that it does not end before it is told to go on.
    pub fn wait_for_compiler(&self) -> Process {
        let compiler = eventually("a compiler runs, confined", || {
            self.compilers().into_iter().find(|compiler| compiler.status("Seccomp").as_deref() == Some("2"))
        });
        compiler.signal(Signal::STOP);
        compiler
    }

    /// Connects as a box does, and reads the greeting.
    pub fn connect(&self) -> UnixStream {
        let mut stream = UnixStream::connect(self.socket()).expect("somebody listens");
        let greeting = line(&mut stream);
        assert!(greeting.starts_with("compiles for "), "{greeting}");
        stream
    }

    /// What the service answers.
    pub fn send(&self, module: &[u8]) -> String {
        let mut stream = self.connect();
        // It may refuse before it has read all.
        let _ = stream.write_all(module);
        let _ = stream.shutdown(Shutdown::Write);
        line(&mut stream)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Release);
        let _ = UnixStream::connect(self.socket());
        let ended = self.listening.take().map(JoinHandle::join);
        if thread::panicking() {
            return;
        }
        assert!(matches!(ended, Some(Ok(()))), "the listener failed");
        for path in self.images() {
            assert!(path.extension().is_some_and(|ending| ending == "cwasm"), "{} is left", path.display());
        }
    }
}

/// A process for each connection, until the end.
fn serve(listener: &UnixListener, flags: &[String], ending: &AtomicBool, services: &Mutex<BTreeSet<Process>>) {
    thread::scope(|scope| {
        for connection in listener.incoming() {
            let connection: OwnedFd = connection.expect("a connection").into();
            if ending.load(Ordering::Acquire) {
                return;
            }
            scope.spawn(move || {
                let output = connection.try_clone().expect("another descriptor");
                let mut child = Command::new(workspace::wasmbox())
                    .arg("compile-service")
                    .args(flags)
                    .stdin(connection)
                    .stdout(output)
                    .stderr(Stdio::null())
                    .spawn()
                    .expect("the service's binary runs");
                let services = || services.lock().unwrap_or_else(PoisonError::into_inner);
                services().insert(Process(child.id()));
                child.wait().expect("the child is ours");
                services().remove(&Process(child.id()));
            });
        }
    });
}

/// A line that the service says.
pub fn line(stream: &mut UnixStream) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    while stream.read(&mut byte).expect("an answer") == 1 && byte != *b"\n" {
        line.push(byte[0]);
    }
    String::from_utf8(line).expect("lines are text")
}
