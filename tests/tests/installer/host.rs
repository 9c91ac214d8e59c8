//! A node's root directory for the installer to enter: a real containerd, a shell, and files that a test puts there. It lies in namespaces
//! of its own. What restarts containerd is a script instead of systemd; it counts, and can be told to fail.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use wasmbox_tests::{
    Version, eventually,
    node::{Node, Ran},
    process::Process,
    workspace,
};

/// Renders a template if there is one, as k3s does at each start: `{{ template "base" . }}` stands for what it has by itself.
const RESTART: &str = r#"#!/bin/sh
echo restart >>/run/restarts
if [ -e /run/broken ]; then exit 1; fi
if [ -e /run/refuses ] && grep -q wasmbox "CONFIG"; then stop=true; fi
if [ -e /run/containerd.pid ]; then
    kill "$(cat /run/containerd.pid)"
    while kill -0 "$(cat /run/containerd.pid)" 2>/dev/null; do sleep 0.05; done
fi
rm -f /run/containerd.pid
if [ -n "$stop" ]; then exit 0; fi
if [ -e /base.toml ]; then
    template=TEMPLATE
    if [ ! -e $template ]; then template=/base.toml; fi
    awk '$0 == "{{ template \"base\" . }}" { while ((getline line <"/base.toml") > 0) print line; next } { print }' $template >CONFIG
fi
CONTAINERD $([ ! -e CONFIG ] || echo --config CONFIG) >>/run/containerd.log 2>&1 &
echo $! >/run/containerd.pid
"#;

/// Whose layout the node has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    Plain,
    K3s,
}

pub struct Host {
    node: Node,
    layout: Layout,
}

impl Host {
    pub fn new(version: Version, layout: Layout) -> Host {
        let host = Host { node: Node::new(), layout };
        for directory in ["bin", "run", "etc", "tmp", "opt", "lib", "lib64", "proc", "sys", "dev", "var/lib"] {
            fs::create_dir_all(host.path(directory)).expect("a new directory");
        }
        // containerd wants to find its own file system among the mounts.
        let mut command = host.node.command("mount");
        host.node.run(command.arg("--bind").arg(host.path("/")).arg(host.path("/"))).ok();
        for directory in ["/lib", "/lib64", "/proc", "/sys", "/dev"] {
            let mut command = host.node.command("mount");
            host.node.run(command.args(["--rbind", directory]).arg(host.path(directory))).ok();
        }
        host.copy(&workspace::tool("containerd/busybox"), "/bin/busybox");
        for name in ["sh", "cat", "kill", "sleep", "grep", "awk", "rm"] {
            std::os::unix::fs::symlink("busybox", host.path("/bin").join(name)).expect("a new link");
        }
        let program = match layout {
            Layout::Plain => "/usr/bin/containerd",
            Layout::K3s => "/var/lib/rancher/k3s/data/current/bin/containerd",
        };
        host.copy(&version.directory().join("containerd"), program);
        let restart = RESTART
            .replace("CONTAINERD", program)
            .replace("CONFIG", host.config())
            .replace("TEMPLATE", if version.is_2() { TEMPLATE_3 } else { TEMPLATE_2 });
        fs::write(host.path("/bin/restart"), restart).expect("a new file");
        fs::set_permissions(host.path("/bin/restart"), PermissionsExt::from_mode(0o755)).expect("our file");
        for name in ["wasmbox", "containerd-shim-wasmbox-v1", "wasmbox-installer"] {
            host.copy(&workspace::installed(name), &format!("/image/{name}"));
        }
        host
    }

    fn copy(&self, from: &Path, to: &str) {
        let to = self.path(to);
        fs::create_dir_all(to.parent().expect("a file")).expect("a directory");
        fs::hard_link(from, &to).or_else(|_| fs::copy(from, &to).map(drop)).expect("a copy");
    }

    /// The file that containerd reads.
    pub fn config(&self) -> &'static str {
        match self.layout {
            Layout::Plain => "/etc/containerd/config.toml",
            Layout::K3s => "/var/lib/rancher/k3s/agent/etc/containerd/config.toml",
        }
    }

    fn socket(&self) -> PathBuf {
        self.path(match self.layout {
            Layout::Plain => "/run/containerd/containerd.sock",
            Layout::K3s => "/run/k3s/containerd/containerd.sock",
        })
    }

    /// Where this machine sees one of the node's files.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.node.directory().join("root").join(path.strip_prefix("/").unwrap_or(path))
    }

    pub fn write(&self, path: &str, text: &str) {
        fs::create_dir_all(self.path(path).parent().expect("a file")).expect("a directory");
        fs::write(self.path(path), text).expect("a file");
    }

    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Starts containerd, and waits for it.
    pub fn start(&self) {
        let mut command = self.inside("/bin/restart");
        self.node.run(&mut command).ok();
        eventually("containerd's socket", || self.socket().exists().then_some(()));
        fs::remove_file(self.path("/run/restarts")).expect("the script counts");
    }

    /// Ends containerd.
    pub fn stop(&self) {
        let pid = self.read("/run/containerd.pid");
        let mut command = self.inside("/bin/kill");
        self.node.run(command.arg(pid.trim())).ok();
        eventually("its end", || (!self.runs()).then_some(()));
        fs::remove_file(self.path("/run/containerd.pid")).expect("a file of the script's");
    }

    fn runs(&self) -> bool {
        self.node.processes().iter().any(|(_, words)| words.contains("bin/containerd "))
    }

    /// The process on the node with these words in its command line.
    pub fn process(&self, words: &str) -> Process {
        let processes = self.node.processes();
        let found = processes.iter().find(|(_, line)| line.contains(words));
        Process(found.unwrap_or_else(|| panic!("{words:?} does not run: {processes:?}")).0)
    }

    /// How often the installer had containerd restarted.
    pub fn restarts(&self) -> usize {
        fs::read_to_string(self.path("/run/restarts")).unwrap_or_default().lines().count()
    }

    fn inside(&self, program: &str) -> Command {
        let mut command = self.node.command(workspace::tool("containerd/busybox"));
        command.arg("chroot").arg(self.path("/")).arg(program).env("PATH", "/bin");
        command
    }

    /// The installer as the DaemonSet runs it: outside of the node's root, with it mounted.
    pub fn installer(&self, action: &str) -> Command {
        let mut command = self.node.command(self.path("/image/wasmbox-installer"));
        command.arg(action).arg("--host-root").arg(self.path("/")).args(["--restart", "/bin/restart", "--wait", "10"]);
        command
    }

    pub fn run(&self, action: &str) -> Ran {
        self.node.run(&mut self.installer(action))
    }

    /// The effective configuration, as containerd tells it.
    pub fn dump(&self) -> String {
        let program = if self.layout == Layout::Plain { "usr/bin" } else { "var/lib/rancher/k3s/data/current/bin" };
        let ask = |arguments: &[&str]| {
            let mut command = self.inside(&format!("/{program}/containerd"));
            self.node.run(command.args(arguments))
        };
        if self.path(self.config()).exists() {
            return ask(&["--config", self.config(), "config", "dump"]).ok();
        }
        let dump = ask(&["config", "dump"]);
        // Up to 1.7 there is no dump without a file.
        if dump.code == 0 { dump.stdout } else { ask(&["config", "default"]).ok() }
    }

    /// All files that an installation may touch, with what is in them, and directories.
    pub fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        fn collect(directory: &Path, root: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
            for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
                let path = entry.path();
                let name = path.strip_prefix(root).expect("below it").to_owned();
                if let Ok(target) = fs::read_link(&path) {
                    files.insert(name, target.into_os_string().into_encoded_bytes());
                } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    files.insert(name, Vec::new());
                    collect(&path, root, files);
                } else {
                    files.insert(name, fs::read(&path).expect("a file"));
                }
            }
        }
        let mut files = BTreeMap::new();
        for directory in ["/etc", "/opt", "/usr", "/var/lib/rancher"] {
            collect(&self.path(directory), &self.path("/"), &mut files);
        }
        files
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("/run/containerd.log")).unwrap_or_default()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("containerd's log:\n{}", self.log());
        }
    }
}

pub const TEMPLATE_2: &str = "/var/lib/rancher/k3s/agent/etc/containerd/config.toml.tmpl";
pub const TEMPLATE_3: &str = "/var/lib/rancher/k3s/agent/etc/containerd/config-v3.toml.tmpl";
