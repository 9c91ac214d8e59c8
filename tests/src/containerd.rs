//! A real containerd with the shim under test, on a node of its own. Versions lie side by side in `target/tools`.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs::{self, File, OpenOptions},
    path::{Path, PathBuf},
    process::{Child, Command},
    thread,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    eventually,
    image::Image,
    node::{Node, Ran},
    workspace,
};

/// A version of containerd: each starts shims in a dialect of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// Debian 12. A plain address, Task version 2.
    V1_6,
    /// Debian 13. A plain address, or JSON.
    V1_7,
    /// Debian's next. Task version 3.
    V2_1,
    /// From the Go module: `BootstrapParams`.
    V2_3,
}

impl Version {
    fn directory(self) -> PathBuf {
        workspace::tool(match self {
            Version::V1_6 => "containerd/1.6",
            Version::V1_7 => "containerd/1.7",
            Version::V2_1 => "containerd/2.1",
            Version::V2_3 => "go/containerd-2.3",
        })
    }

    fn is_2(self) -> bool {
        matches!(self, Version::V2_1 | Version::V2_3)
    }
}

/// Makes a test of each function, for each version of containerd: each has a way of its own to start shims; all else is the same.
#[macro_export]
macro_rules! on_each_version {
    ($($test:ident),* $(,)?) => {
        mod containerd_1_6 { $(#[test] fn $test() { super::$test($crate::Version::V1_6); })* }
        mod containerd_1_7 { $(#[test] fn $test() { super::$test($crate::Version::V1_7); })* }
        mod containerd_2_1 { $(#[test] fn $test() { super::$test($crate::Version::V2_1); })* }
        mod containerd_2_3 { $(#[test] #[ignore = "needs Go: make e2e"] fn $test() { super::$test($crate::Version::V2_3); })* }
    };
}

/// A running containerd. Dropping it ends it, and checks that nothing is left of what it ran.
pub struct Containerd {
    node: Node,
    version: Version,
    child: Option<Child>,
    /// What was mounted before anything ran.
    mounts: BTreeSet<String>,
}

impl Containerd {
    /// # Panics
    /// With its log, if it does not start.
    pub fn start(version: Version) -> Containerd {
        Containerd::configured(version, "")
    }

    /// With options of the runtime, as TOML: `docs/shim.md` lists them.
    ///
    /// # Panics
    /// With its log, if it does not start.
    pub fn configured(version: Version, options: &str) -> Containerd {
        let node = Node::new();
        for name in ["bin", "cni", "temporary"] {
            fs::create_dir(node.directory().join(name)).expect("a new directory");
        }
        let containerd = Containerd { node, version, child: None, mounts: BTreeSet::new() };
        let bin = containerd.directory().join("bin");
        for name in ["wasmbox", "containerd-shim-wasmbox-v1"] {
            fs::hard_link(workspace::installed(name), bin.join(name))
                .or_else(|_| fs::copy(workspace::installed(name), bin.join(name)).map(drop))
                .expect("the binaries under test can be copied");
        }
        let link = |file: &Path| {
            let name = file.file_name().expect("a file");
            std::os::unix::fs::symlink(file, bin.join(name)).expect("a new link");
        };
        link(&workspace::tool("containerd/runc"));
        for name in ["containerd", "ctr", "containerd-shim-runc-v2"] {
            let file = version.directory().join(name);
            // The Go module's comes without.
            if file.exists() {
                link(&file);
            }
        }
        // This version passes on nothing but the path of a file.
        let options = if version == Version::V1_6 && !options.is_empty() {
            let path = containerd.directory().join("options.toml");
            fs::write(&path, options).expect("a new file");
            format!("ConfigPath = '{}'", path.display())
        } else {
            options.to_owned()
        };
        fs::write(containerd.directory().join("cni/10-test.conflist"), NETWORK).expect("a new file");
        fs::write(containerd.directory().join("config.toml"), containerd.configuration(&options)).expect("a new file");
        let mut containerd = containerd;
        containerd.launch();
        containerd.mounts = containerd.node.mounts();
        containerd
    }

    fn configuration(&self, options: &str) -> String {
        let directory = self.directory().display();
        let cni = workspace::tool("containerd/cni").display().to_string();
        let runtime = if self.version.is_2() { "io.containerd.cri.v1.runtime" } else { "io.containerd.grpc.v1.cri" };
        let mut text = format!(
            "version = {version}\nroot = '{directory}/root'\nstate = '/run/containerd'\n\
             [grpc]\naddress = '/run/containerd/containerd.sock'\n\
             [plugins.'io.containerd.internal.v1.opt']\npath = '{directory}/opt'\n\
             [plugins.'{runtime}']\nrestrict_oom_score_adj = true\n",
            version = if self.version.is_2() { 3 } else { 2 },
        );
        // What a probe leaves behind may hold its output for ever.
        if self.version != Version::V1_6 {
            text += "drain_exec_sync_io_timeout = '3s'\n";
        }
        if !self.version.is_2() {
            text += "sandbox_image = 'docker.io/library/pause:test'\n";
        }
        // With options that are not runc's, containerd 2's client refuses user namespaces.
        let options = if options.is_empty() {
            String::new()
        } else {
            format!("[plugins.'{runtime}'.containerd.runtimes.wasmbox.options]\n{options}")
        };
        let _ = write!(
            text,
            "[plugins.'{runtime}'.cni]\n{bin}\nconf_dir = '{directory}/cni'\n\
             [plugins.'{runtime}'.containerd.runtimes.runc]\nruntime_type = 'io.containerd.runc.v2'\n\
             [plugins.'{runtime}'.containerd.runtimes.wasmbox]\nruntime_type = 'io.containerd.wasmbox.v1'\n\
             pod_annotations = ['wasmbox.dev/*']\ncontainer_annotations = ['wasmbox.dev/*']\n\
             {options}\n",
            bin = if self.version == Version::V2_3 {
                format!("bin_dirs = ['{cni}']")
            } else {
                format!("bin_dir = '{cni}'")
            },
        );
        if self.version.is_2() {
            text += "[plugins.'io.containerd.cri.v1.images'.pinned_images]\nsandbox = 'docker.io/library/pause:test'\n";
        }
        text
    }

    /// Puts another OCI runtime in the place of `runc`, and restarts the daemon, which asks it but once what it can do.
    ///
    /// # Panics
    /// If the daemon does not end, or does not start.
    pub fn replace_runc(&mut self, binary: &Path) {
        let link = self.directory().join("bin/runc");
        fs::remove_file(&link).expect("our own link");
        std::os::unix::fs::symlink(binary, &link).expect("a new link");
        self.end(Signal::TERM);
        self.launch();
    }

    /// Starts the daemon, and waits until it answers.
    ///
    /// # Panics
    /// With its log, if it does not.
    pub fn launch(&mut self) {
        self.launch_with(&[]);
    }

    /// As [`Containerd::launch`], with more in its environment.
    ///
    /// # Panics
    /// With its log, if it does not start.
    pub fn launch_with(&mut self, environment: &[(&str, &str)]) {
        let directory = self.directory().to_owned();
        let log = OpenOptions::new().create(true).append(true).open(directory.join("log"));
        let log: File = log.expect("a file for the log");
        let mut command = self.command("containerd");
        command.arg("--config").arg(directory.join("config.toml")).env("TMPDIR", directory.join("temporary"));
        command.envs(environment.iter().copied());
        command.stdout(log.try_clone().expect("another descriptor")).stderr(log);
        self.child = Some(command.spawn().expect("nsenter, of the package util-linux"));
        eventually("containerd answers", || {
            let ended = self.child.as_mut().expect("just started").try_wait().expect("the child is ours");
            assert!(ended.is_none(), "containerd: {ended:?}\n{}", self.log());
            (self.node.run(self.command("ctr").arg("version")).code == 0).then_some(())
        });
    }

    pub fn node(&self) -> &Node {
        &self.node
    }

    pub fn version(&self) -> Version {
        self.version
    }

    pub fn directory(&self) -> &Path {
        self.node.directory()
    }

    /// What it logged, but for the plugins that it loaded.
    pub fn log(&self) -> String {
        let log = fs::read_to_string(self.directory().join("log")).unwrap_or_default();
        let lines = log.lines().filter(|line| !line.contains("plugin") && !line.contains("level=info msg=\"Image"));
        lines.fold(String::new(), |log, line| log + line + "\n")
    }

    /// A command on the node, with the binaries of this version first in its path.
    pub fn command(&self, name: &str) -> Command {
        let bin = self.directory().join("bin");
        let mut command = self.node.command(bin.join(name));
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", bin.display()));
        command
    }

    /// containerd's own namespace for this node: by that, its cgroups are the node's.
    pub fn namespace(&self) -> &str {
        self.node.name()
    }

    /// Runs `ctr`.
    pub fn ctr(&self, arguments: &[&str]) -> Ran {
        self.ctr_with(arguments, "")
    }

    /// Runs `ctr` with standard input.
    pub fn ctr_with(&self, arguments: &[&str], input: impl Into<Vec<u8>>) -> Ran {
        let mut command = self.command("ctr");
        self.node.run_with(command.args(["--namespace", self.namespace()]).args(arguments), input)
    }

    /// `ctr run` with the shim under test: flags, then image, id and arguments.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        self.run_with(arguments, "")
    }

    /// As [`Containerd::run`], with standard input.
    pub fn run_with(&self, arguments: &[&str], input: impl Into<Vec<u8>>) -> Ran {
        let mut words = vec!["run", "--runtime", "io.containerd.wasmbox.v1"];
        words.extend(arguments);
        self.ctr_with(&words, input)
    }

    /// Makes an image known, for `ctr` and for CRI.
    pub fn import(&self, image: &Image) {
        let archive = image.archive().display().to_string();
        for namespace in [self.namespace(), "k8s.io"] {
            let mut command = self.command("ctr");
            self.node.run(command.args(["--namespace", namespace, "image", "import", &archive])).ok();
        }
    }

    /// The events from now on.
    ///
    /// # Panics
    /// If there is no place for them.
    pub fn events(&self) -> Events<'_> {
        let path = self.directory().join("events");
        let file = File::create(&path).expect("a new file");
        let child = self.command("ctr").arg("events").stdout(file).spawn().expect("nsenter, of the package util-linux");
        let events = Events { containerd: self, path, child };
        // It does not say when it listens: so until one is seen.
        let probe = || {
            self.ctr(&["namespace", "label", self.namespace(), "probe=1"]).ok();
            events.all().iter().any(|event| event.topic == "/namespaces/update").then_some(())
        };
        eventually("events are listened for", probe);
        events
    }

    /// The shim's binary on the node.
    pub fn shim(&self) -> Command {
        self.command("containerd-shim-wasmbox-v1")
    }

    /// The long-lived processes of the shim under test.
    pub fn shims(&self) -> Vec<u32> {
        let shims = self.node.processes().into_iter();
        shims
            .filter(|(_, words)| words.contains("containerd-shim-wasmbox-v1 ") && words.contains(" -socket "))
            .map(|(pid, _)| pid)
            .collect()
    }

    /// The daemon's process, by this machine's number.
    ///
    /// # Panics
    /// If it does not run.
    pub fn process(&self) -> u32 {
        let binary = self.directory().join("bin/containerd").display().to_string();
        let found = self.node.processes().into_iter().find(|(_, words)| words.starts_with(&format!("{binary} ")));
        found.expect("containerd runs").0
    }

    /// Ends the daemon with a signal; what it runs goes on.
    ///
    /// # Panics
    /// If it does not end.
    pub fn end(&mut self, with: Signal) {
        signal(self.process(), with);
        let mut child = self.child.take().expect("containerd runs");
        eventually("containerd's end", || child.try_wait().expect("the child is ours"));
    }

    /// What is left of what it ran, while it runs.
    fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        let own = self.process();
        for (pid, words) in self.node.processes() {
            if pid != own {
                left.push(format!("process {pid}: {words}"));
            }
        }
        left.extend(self.node.mounts().difference(&self.mounts).map(|mount| format!("mount {mount}")));
        let namespace = self.namespace();
        let state = "/run/containerd/io.containerd.runtime.v2.task";
        for directory in [
            self.node.path("/run/containerd/s"),
            self.node.path("/run/containerd/fifo"),
            self.node.path("/run/netns"),
            self.node.path(format!("{state}/{namespace}")),
            self.node.path(format!("{state}/k8s.io")),
            self.node.path(format!("/run/containerd/wasmbox/{namespace}")),
            self.node.path("/run/containerd/wasmbox/k8s.io"),
            self.directory().join("temporary"),
        ]
        .into_iter()
        .chain(self.node.cgroups())
        {
            let entries = fs::read_dir(&directory).into_iter().flatten().flatten();
            let is_leak = |path: &PathBuf| path.is_dir() || !path.starts_with("/sys/fs/cgroup");
            left.extend(entries.map(|entry| entry.path()).filter(is_leak).map(|path| path.display().to_string()));
        }
        let consoles = fs::read_dir(self.node.path("/run/containerd")).into_iter().flatten().flatten();
        let names = consoles.map(|entry| entry.file_name().to_string_lossy().into_owned());
        left.extend(names.filter(|name| name.starts_with("wasmbox-")));
        left
    }
}

/// What containerd told, in the order in which it did, until this is dropped.
pub struct Events<'a> {
    containerd: &'a Containerd,
    path: PathBuf,
    child: Child,
}

/// An event: `/tasks/start`, and what it says.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub topic: String,
    pub content: serde_json::Value,
}

impl Events<'_> {
    /// # Panics
    /// If a line of `ctr events` is not understood.
    pub fn all(&self) -> Vec<Event> {
        let text = fs::read_to_string(&self.path).expect("our own file");
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        // "2026-01-01 00:00:00.000000000 +0000 UTC namespace /topic {...}"
        let event = |line: &str| {
            let (head, content) = line.split_once(" {").unwrap_or_else(|| panic!("an event: {line}"));
            let topic = head.rsplit(' ').next().expect("a word").to_owned();
            let content = serde_json::from_str(&format!("{{{content}")).unwrap_or_else(|_| panic!("an event: {line}"));
            Event { topic, content }
        };
        whole.lines().map(event).collect()
    }

    /// Those of one container's tasks.
    pub fn of(&self, container: &str) -> Vec<Event> {
        let is_of = |event: &Event| event.topic.starts_with("/tasks/") && event.content["container_id"] == container;
        self.all().into_iter().filter(is_of).collect()
    }

    /// Waits for one of a container's.
    pub fn until(&self, container: &str, topic: &str) -> Event {
        eventually(&format!("{topic} of {container}"), || {
            self.of(container).into_iter().find(|event| event.topic == topic)
        })
    }
}

impl Drop for Events<'_> {
    fn drop(&mut self) {
        let is_ours = |words: &str| words.ends_with("ctr events ");
        for (pid, _) in self.containerd.node().processes().iter().filter(|(_, words)| is_ours(words)) {
            signal(*pid, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

/// Sends a signal to a process.
///
/// # Panics
/// If it is not there.
pub fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process number");
    kill_process(pid, signal).expect("the process is there");
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if thread::panicking() {
            // It ends with its node.
            eprintln!("containerd's log:\n{}", self.log());
        } else if self.child.is_some() {
            let mut left = Vec::new();
            for _ in 0..500 {
                left = self.left();
                if left.is_empty() {
                    break;
                }
                thread::sleep(std::time::Duration::from_millis(10));
            }
            assert!(left.is_empty(), "left behind: {left:#?}\ncontainerd's log:\n{}", self.log());
            self.end(Signal::TERM);
        }
    }
}

/// Pods get addresses behind a bridge of the node's.
pub const NETWORK: &str = r#"{
  "cniVersion": "0.4.0",
  "name": "test",
  "plugins": [{
    "type": "bridge", "bridge": "cni0", "isGateway": true,
    "ipam": {"type": "host-local", "dataDir": "/run/cni", "ranges": [[{"subnet": "10.88.0.0/16"}]], "routes": [{"dst": "0.0.0.0/0"}]}
  }]
}"#;
