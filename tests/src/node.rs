//! A node of a test's own: namespaces of processes, mounts and network, with an empty `/run` and `/var/lib`, so that what a daemon
//! leaves behind can be counted, and nothing stays when the test ends, however it ends. Files and cgroups are this machine's.

use std::{
    collections::BTreeSet,
    fs, io,
    net::{SocketAddr, TcpStream},
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::request::Builder;
use rustix::{
    fs::{Mode, OFlags},
    process::Signal,
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use crate::{
    client::{Answer, Broken, exchange_alone},
    eventually,
    patience::PATIENCE,
    process::Process,
    temporary::TempDir,
    workspace,
};

/// Its first process: it reaps what others leave.
const INIT: &str = "\
    busybox mount -t tmpfs -o mode=755 run /run && busybox mount -t tmpfs -o mode=755 lib /var/lib && \
    busybox ip link set lo up && : >ready && while :; do busybox sleep 1000 & wait; done";

pub struct Node {
    directory: TempDir,
    name: String,
    unshared: Child,
    /// The first process, by this machine's number.
    init: u32,
}

/// What a command in a node gave.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// What it wrote.
    ///
    /// # Panics
    /// If it failed.
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.stdout
    }
}

impl Default for Node {
    fn default() -> Self {
        Self::new()
    }
}

impl Node {
    /// # Panics
    /// Saying what is missing: it takes root.
    pub fn new() -> Node {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        assert!(rustix::process::geteuid().is_root(), "tests of containerd make namespaces: run them as root");
        let directory = TempDir::new();
        let name = format!("{}{}", prefix(std::process::id()), NUMBER.fetch_add(1, Ordering::Relaxed));
        let busybox = workspace::tool("containerd/busybox");
        // If this thread is killed, the node ends with it.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "unshare"])
            .args(["--fork", "--pid", "--mount", "--mount-proc", "--net", "--ipc", "--kill-child=KILL"])
            .args(["--propagation", "private"])
            .arg(&busybox)
            .args(["sh", "-c", &INIT.replace("busybox", &busybox.display().to_string())])
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let mut unshared = command.spawn().expect("setpriv, of the package util-linux");
        let ready = directory.path().join("ready");
        eventually("the node's namespaces", || {
            let ended = unshared.try_wait().expect("the child is ours");
            assert!(ended.is_none(), "unshare: {ended:?}: namespaces need root and CAP_SYS_ADMIN");
            ready.exists().then_some(())
        });
        let init = Process(unshared.id()).children().first().expect("unshare has one child").0;
        Node { directory, name, unshared, init }
    }

    /// Unique on this machine.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A directory that the node sees under the same path.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Where this machine sees one of the node's paths.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref().strip_prefix("/").expect("an absolute path");
        Path::new(&format!("/proc/{}/root", self.init)).join(path)
    }

    /// A command in the node.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={}", self.init)).args(["--mount", "--net", "--pid", "--ipc", "--"]);
        command.arg(program).stdin(Stdio::null());
        command
    }

    /// A command of this machine on the node's network.
    pub fn on_its_network(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={}", self.init)).args(["--net", "--"]).arg(program).stdin(Stdio::null());
        command
    }

    /// Runs a command in the node to its end.
    ///
    /// # Panics
    /// If it does not end.
    pub fn run(&self, command: &mut Command) -> Ran {
        self.run_with(command, "")
    }

    /// As [`Node::run`], with standard input.
    ///
    /// # Panics
    /// If it does not end.
    pub fn run_with(&self, command: &mut Command, input: impl Into<Vec<u8>>) -> Ran {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("nsenter, of the package util-linux");
        let pid = child.id();
        let mut stdin = child.stdin.take().expect("a pipe");
        let input = input.into();
        let said = format!("{command:?}");
        // It may end without reading.
        let writer = thread::spawn(move || drop(io::Write::write_all(&mut stdin, &input)));
        let waiter = thread::spawn(move || child.wait_with_output());
        let give_up = Instant::now() + PATIENCE;
        while !waiter.is_finished() {
            if Instant::now() > give_up {
                // nsenter's child is the one that hangs; it ends with the node.
                let _ = Process(pid).try_signal(Signal::KILL);
                panic!("it does not end: {said}; in the node run {:#?}", self.processes());
            }
            thread::sleep(Duration::from_millis(2));
        }
        writer.join().expect("writing does not panic");
        let Output { status, stdout, stderr } =
            waiter.join().expect("waiting does not panic").expect("the child is ours");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ran { code: status.code().unwrap_or(-1), stdout: text(stdout), stderr: text(stderr) }
    }

    /// A connection over the node's network.
    ///
    /// # Errors
    /// The kernel's.
    ///
    /// # Panics
    /// If the node is gone.
    pub fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        self.on_network(move || TcpStream::connect(address))
    }

    /// One request over the node's network.
    ///
    /// # Errors
    /// [`Broken`] if there is no whole answer.
    ///
    /// # Panics
    /// If the node is gone.
    pub fn call(&self, address: SocketAddr, request: Builder, body: impl Into<Bytes>) -> Result<Answer, Broken> {
        let body = body.into();
        self.on_network(move || exchange_alone(address, request, body))
    }

    /// In a thread of its own, which is on the node's network.
    fn on_network<T: Send + 'static>(&self, ask: impl FnOnce() -> T + Send + 'static) -> T {
        let namespace = format!("/proc/{}/ns/net", self.init);
        let enter_and_ask = move || {
            let namespace = rustix::fs::open(namespace, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
            let namespace = namespace.expect("the node is there");
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).expect("we are root");
            ask()
        };
        thread::spawn(enter_and_ask).join().expect("asking does not panic")
    }

    /// Its processes but the first one and what that runs: number on this machine, and command line.
    ///
    /// # Panics
    /// If `/proc` is not mounted.
    pub fn processes(&self) -> Vec<(u32, String)> {
        let namespace = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let own = namespace(self.init);
        // Those of containers may have a namespace of their own; they descend from the node's first process.
        let descends = |mut pid: u32| {
            while let Some(parent) = parent(pid) {
                if parent == self.init {
                    return true;
                }
                pid = parent;
            }
            false
        };
        let entries = fs::read_dir("/proc").expect("/proc is mounted").flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        pids.filter(|&pid| pid != self.init && (namespace(pid) == own || descends(pid)))
            .map(|pid| (pid, command_line(pid)))
            .filter(|(_, words)| !words.contains("busybox sleep 1000 "))
            .collect()
    }

    /// Its mounts.
    ///
    /// # Panics
    /// If the node is gone.
    pub fn mounts(&self) -> BTreeSet<String> {
        let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", self.init)).expect("the node is there");
        mounts.lines().filter_map(|line| line.split(' ').nth(4).map(str::to_owned)).collect()
    }

    /// The node's own cgroups, in which a daemon was told to make all others: one in each hierarchy in which there is one.
    pub fn cgroups(&self) -> Vec<PathBuf> {
        let places = hierarchies().into_iter().map(|hierarchy| hierarchy.join(&self.name));
        places.filter(|place| place.is_dir()).collect()
    }
}

/// Removes the cgroups of nodes that were another process's, which was killed. Their processes have ended.
pub fn sweep(process: u32) {
    let prefix = prefix(process);
    let is_left = |name: &str| name.starts_with(&prefix);
    for entry in hierarchies().into_iter().filter_map(|hierarchy| fs::read_dir(hierarchy).ok()).flatten().flatten() {
        if entry.file_name().to_str().is_some_and(is_left) {
            remove_all(&entry.path());
        }
    }
}

/// What names of nodes of a process begin with.
fn prefix(process: u32) -> String {
    format!("test-{process}-")
}

/// Where cgroups are mounted.
fn hierarchies() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("/proc is mounted");
    let hierarchy = |line: &str| {
        let mut fields = line.split(' ').skip(1);
        let place = PathBuf::from(fields.next()?);
        fields.next()?.starts_with("cgroup").then_some(place)
    };
    mounts.lines().filter_map(hierarchy).collect()
}

impl Drop for Node {
    fn drop(&mut self) {
        // With the first process all others end.
        let _ = self.unshared.kill();
        let _ = self.unshared.wait();
        for cgroup in self.cgroups() {
            if thread::panicking() {
                remove_all(&cgroup);
            } else {
                eventually("the node's cgroup is empty", || fs::remove_dir(&cgroup).ok());
            }
        }
    }
}

fn parent(pid: u32) -> Option<u32> {
    Process(pid).status("PPid")?.parse().ok().filter(|&parent| parent != 0)
}

fn command_line(pid: u32) -> String {
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&words).replace('\0', " ")
}

/// Removes cgroups from the bottom up.
fn remove_all(cgroup: &Path) {
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_all(&entry.path());
        }
    }
    for _ in 0..100 {
        if fs::remove_dir(cgroup).is_ok() || !cgroup.exists() {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
}
