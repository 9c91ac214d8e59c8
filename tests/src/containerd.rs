//! A real containerd with the shim under test, on a node of its own. [`Version`] says which, and how it is configured.

mod events;
mod version;

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    path::{Path, PathBuf},
    process::{Child, Command},
    thread,
    time::Duration,
};

use rustix::process::Signal;

pub use self::{
    events::{Event, Events},
    version::{NETWORK, Version},
};
use crate::{
    eventually,
    image::Image,
    node::{Node, Ran},
    process::Process,
    workspace,
};

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
        fs::write(
            containerd.directory().join("config.toml"),
            containerd.version.configuration(containerd.directory(), &options),
        )
        .expect("a new file");
        let mut containerd = containerd;
        containerd.launch();
        containerd.mounts = containerd.node.mounts();
        containerd
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
        Events::listen(self)
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
        Process(self.process()).signal(with);
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
                thread::sleep(Duration::from_millis(10));
            }
            assert!(left.is_empty(), "left behind: {left:#?}\ncontainerd's log:\n{}", self.log());
            self.end(Signal::TERM);
        }
    }
}
