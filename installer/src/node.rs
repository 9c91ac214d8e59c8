//! Whose containerd the node has: where its things are, and how it is restarted.

use std::{
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
};

/// Where programs are on nodes; the installer's own PATH is the image's.
const PATH: [&str; 7] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin", "/opt/bin"];

#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    #[error("there is no containerd on this node: neither RKE2's, nor k3s's, nor in {}", PATH.join(", "))]
    NoContainerd,
    #[error("{}: {source}", program.display())]
    Run { program: PathBuf, source: io::Error },
    #[error("{} failed: {status}", program.display())]
    Failed { program: PathBuf, status: ExitStatus },
    #[error("systemd runs none of {}; --restart names a program that restarts containerd", units.join(", "))]
    NoUnit { units: Vec<&'static str> },
}

/// A node with its containerd. All paths are the node's, whose root has been entered.
#[derive(Debug)]
pub struct Node {
    pub containerd: PathBuf,
    /// The file that containerd reads.
    pub config: PathBuf,
    /// Where it is rendered from at each start: changes belong there.
    pub templates: Option<Templates>,
    pub socket: PathBuf,
    /// Where its plugin `opt` has its directory, unless its configuration says otherwise.
    pub opt: PathBuf,
    units: &'static [&'static str],
    restart: Option<PathBuf>,
}

/// Of k3s and RKE2, by version of the configuration.
#[derive(Debug)]
pub struct Templates {
    pub version_2: PathBuf,
    pub version_3: PathBuf,
}

impl Node {
    /// # Errors
    /// [`NodeError::NoContainerd`]
    pub fn find(restart: Option<PathBuf>) -> Result<Node, NodeError> {
        let rancher = [
            ("/var/lib/rancher/rke2", "bin", &["rke2-server.service", "rke2-agent.service"] as &[_]),
            ("/var/lib/rancher/k3s", "data/current/bin", &["k3s.service", "k3s-agent.service"]),
        ];
        for (root, programs, units) in rancher {
            let root = Path::new(root);
            let directory = root.join("agent/etc/containerd");
            let containerd = root.join(programs).join("containerd");
            if directory.join("config.toml").exists() && containerd.exists() {
                return Ok(Node {
                    containerd,
                    config: directory.join("config.toml"),
                    templates: Some(Templates {
                        version_2: directory.join("config.toml.tmpl"),
                        version_3: directory.join("config-v3.toml.tmpl"),
                    }),
                    socket: "/run/k3s/containerd/containerd.sock".into(),
                    opt: root.join("agent/containerd"),
                    units,
                    restart,
                });
            }
        }
        Ok(Node {
            containerd: program("containerd").ok_or(NodeError::NoContainerd)?,
            config: "/etc/containerd/config.toml".into(),
            templates: None,
            socket: "/run/containerd/containerd.sock".into(),
            opt: "/opt/containerd".into(),
            units: &["containerd.service"],
            restart,
        })
    }

    /// Restarts what runs containerd. Its containers go on.
    ///
    /// # Errors
    /// [`NodeError`], if that fails, or nothing is known that could do it.
    pub fn restart(&self) -> Result<(), NodeError> {
        if let Some(program) = &self.restart {
            return check(program, run(program, &[])?);
        }
        let systemctl = program("systemctl").unwrap_or_else(|| "systemctl".into());
        // Of several, the one that is enabled on this node; it may have failed.
        for unit in self.units {
            if self.units.len() == 1 || run(&systemctl, &["is-enabled", "--quiet", unit])?.success() {
                return check(&systemctl, run(&systemctl, &["restart", unit])?);
            }
        }
        Err(NodeError::NoUnit { units: self.units.to_vec() })
    }
}

/// systemd's bus. It has a private socket, too, but answers there only to whom it sees in its own namespace of processes.
const SYSTEM_BUS: &str = "/run/dbus/system_bus_socket";

fn run(program: &Path, arguments: &[&str]) -> Result<ExitStatus, NodeError> {
    let mut command = Command::new(program);
    command.args(arguments).env("PATH", PATH.join(":"));
    // It is asked in the node's root, which looks like a chroot from here.
    command.env("SYSTEMD_IGNORE_CHROOT", "1");
    if Path::new(SYSTEM_BUS).exists() {
        command.env("SYSTEMCTL_FORCE_BUS", "1");
    }
    command.stdin(Stdio::null()).status().map_err(|source| NodeError::Run { program: program.to_owned(), source })
}

fn check(program: &Path, status: ExitStatus) -> Result<(), NodeError> {
    if status.success() { Ok(()) } else { Err(NodeError::Failed { program: program.to_owned(), status }) }
}

fn program(name: impl AsRef<OsStr>) -> Option<PathBuf> {
    PATH.iter().map(|directory| Path::new(directory).join(name.as_ref())).find(|path| path.is_file())
}
