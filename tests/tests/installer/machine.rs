//! A machine that the installer sets up, and pods on it.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use rustix::process::Signal;
use wasmbox_tests::{
    ContainerConfig, Cri, Image, Request, Version,
    cri::{ContainerState, KeyValue, Mount, Pod},
    eventually, guest,
    node::{Node, Ran},
    patience::SetOnDrop,
    process::Process,
    workspace,
};

pub const SHIM: &str = "containerd-shim-wasmbox-v1";
pub const INSTALLED: &str = "/opt/wasmbox/bin";
/// Where containerd has its own programs.
pub const LINK: &str = "/opt/containerd/bin/containerd-shim-wasmbox-v1";
pub const CONFIG: &str = "/etc/containerd/config.toml";
pub const PODS: u16 = 4;

/// As systemd would: it is told to end, and started anew. With `/run/kill`, it is killed.
const RESTART: &str = r#"#!/bin/sh
cd /
if [ -e /run/containerd.pid ]; then
    pid=$(cat /run/containerd.pid)
    if [ -e /run/kill ]; then kill -9 $pid; else kill $pid; fi
    while kill -0 $pid 2>/dev/null; do sleep 0.05; done
fi
containerd >>/run/containerd.log 2>&1 </dev/null &
echo $! >/run/containerd.pid
"#;

/// A whole machine as far as programs can tell: its `/etc`, `/opt`, `/run` and `/var/lib` are its own.
pub struct Machine {
    pub node: Node,
}

/// The pods, each a box and a sidecar, on the node's network.
pub struct Pods {
    cri: Cri,
    pub all: Vec<(Pod, String, String)>,
}

impl Machine {
    pub fn new(version: Version) -> Machine {
        Machine::with_runc(version, "containerd/runc")
    }

    /// `runc`: below `target/tools`.
    pub fn with_runc(version: Version, runc: &str) -> Machine {
        let machine = Machine { node: Node::new() };
        let directory = machine.node.directory();
        for name in ["etc", "image", "functions", "cni", "temporary"] {
            fs::create_dir(directory.join(name)).expect("a new directory");
        }
        let directory = directory.display();
        // Of /etc a copy, since the node's owner writes there; programs in a place that is first in everybody's PATH.
        machine.shell(&format!(
            "cp -a /etc/. {directory}/etc && mount --bind {directory}/etc /etc && mkdir -p /etc/containerd && \
             mount -t tmpfs -o mode=755 opt /opt && mount -t tmpfs -o mode=755 programs /usr/local/sbin"
        ));
        for name in ["containerd", "ctr"] {
            machine.link(&version.directory().join(name));
        }
        machine.link(&workspace::tool(runc));
        for name in ["wasmbox", SHIM, "wasmbox-installer"] {
            let to = machine.node.directory().join("image").join(name);
            fs::hard_link(workspace::installed(name), &to)
                .or_else(|_| fs::copy(workspace::installed(name), &to).map(drop))
                .expect("the binaries under test can be copied");
        }
        machine.write("/usr/local/sbin/restart", RESTART);
        let restart = machine.node.path("/usr/local/sbin/restart");
        fs::set_permissions(restart, fs::Permissions::from_mode(0o755)).expect("our own file");
        machine.write(CONFIG, &machine.owners(version));
        fs::write(machine.node.directory().join("functions/hi.wat"), guest::hello()).expect("a new file");
        machine.restart();
        for image in [Image::pause(), Image::busybox(), box_image()] {
            let archive = image.archive().display().to_string();
            machine.run("ctr", &["--namespace", "k8s.io", "image", "import", &archive]).ok();
        }
        machine
    }

    /// What its owner has configured.
    pub fn owners(&self, version: Version) -> String {
        let directory = self.node.directory().display();
        let (number, plugin) = (version.configuration_version(), version.runtime_plugin());
        let bin = version.cni("/opt/cni/bin");
        let pause = "docker.io/library/pause:test";
        let sandbox_image = if version.is_2() { String::new() } else { format!("sandbox_image = '{pause}'\n") };
        let pinned = if version.is_2() {
            format!("[plugins.'io.containerd.cri.v1.images'.pinned_images]\nsandbox = '{pause}'\n")
        } else {
            String::new()
        };
        format!(
            "version = {number}\nroot = '{directory}/root'\n[plugins.'{plugin}']\nrestrict_oom_score_adj = true\n{sandbox_image}\
             [plugins.'{plugin}'.cni]\n{bin}\nconf_dir = '{directory}/cni'\n\
             [plugins.'{plugin}'.containerd.runtimes.runc]\nruntime_type = 'io.containerd.runc.v2'\n{pinned}"
        )
    }

    pub fn link(&self, program: &Path) {
        let name = program.file_name().expect("a file");
        let link = self.node.path("/usr/local/sbin").join(name);
        std::os::unix::fs::symlink(program, link).expect("a new link");
    }

    pub fn write(&self, path: &str, text: &str) {
        fs::write(self.node.path(path), text).expect("a file of the node's");
    }

    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.node.path(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    pub fn run(&self, program: &str, arguments: &[&str]) -> Ran {
        let mut command = self.node.command(program);
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("/usr/local/sbin:{path}"));
        command.env("TMPDIR", self.node.directory().join("temporary"));
        self.node.run(command.args(arguments))
    }

    pub fn shell(&self, script: &str) {
        self.run("sh", &["-c", script]).ok();
    }

    /// The installer, as `install` or `uninstall`.
    pub fn installer(&self, action: &str) -> Ran {
        let installer = self.node.directory().join("image/wasmbox-installer");
        self.run(&installer.display().to_string(), &[action, "--restart", "/usr/local/sbin/restart", "--wait", "20"])
    }

    /// What the doctor finds of one thing.
    pub fn doctor(&self, check: &str) -> String {
        let ran = self.run(&format!("{INSTALLED}/wasmbox"), &["doctor"]);
        let found = ran.stdout.lines().find(|line| line.get(6..).is_some_and(|rest| rest.starts_with(check)));
        found.unwrap_or_else(|| panic!("{check}: {ran:?}")).to_owned()
    }

    pub fn restart(&self) {
        self.run("/usr/local/sbin/restart", &[]).ok();
        eventually("containerd answers", || (self.run("ctr", &["version"]).code == 0).then_some(()));
    }

    pub fn is_linked(&self) -> bool {
        fs::read_link(self.node.path(LINK)).is_ok_and(|target| target == Path::new(INSTALLED).join(SHIM))
    }

    pub fn pods(&self) -> Pods {
        let cri = Cri::on(&self.node);
        let functions = self.node.directory().join("functions").display().to_string();
        let mut all = Vec::new();
        for number in 0..PODS {
            let pod = cri.run(cri.sandbox_in_node_network(&format!("pod-{number}")));
            let env = |key: &str, value: u16| KeyValue { key: key.into(), value: value.to_string() };
            let function_box = ContainerConfig {
                envs: vec![env("WEBSERVER_PORT", port(number)), env("HEALTHCHECK_PORT", port(number) + 100)],
                mounts: vec![Mount {
                    container_path: "/functions".into(),
                    host_path: functions.clone(),
                    readonly: true,
                    ..Mount::default()
                }],
                ..ContainerConfig::new("box", "docker.io/library/box:test", &[])
            };
            let function_box = cri.start(&pod, function_box);
            let sleeps = ContainerConfig::new("sidecar", "docker.io/library/busybox:test", &["/bin/sleep", "100000"]);
            let sidecar = cri.start(&pod, sleeps);
            all.push((pod, function_box, sidecar));
        }
        for number in 0..PODS {
            eventually("a box answers", || self.asks(number).then_some(()));
        }
        Pods { cri, all }
    }

    pub fn asks(&self, number: u16) -> bool {
        let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port(number));
        self.node.call(address, Request::get("/hi"), "").is_ok_and(|answer| answer.status == 200)
    }

    /// Requests to all pods, while something happens: how many were answered. All must be.
    pub fn under_load(&self, happens: impl FnOnce()) -> usize {
        let (stop, answered, failed) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for number in 0..PODS {
                let (stop, answered, failed) = (&stop, &answered, &failed);
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        let counter = if self.asks(number) { answered } else { failed };
                        counter.fetch_add(1, Ordering::Relaxed);
                        thread::sleep(Duration::from_millis(5));
                    }
                });
            }
            // However it goes on: who panics here would wait for the threads for ever.
            let _stop = SetOnDrop(&stop);
            happens();
        });
        assert_eq!(failed.into_inner(), 0, "requests failed\n{}", self.read("/run/containerd.log"));
        answered.into_inner()
    }

    pub fn shims(&self) -> usize {
        let processes = self.node.processes();
        processes.iter().filter(|(_, words)| words.contains(SHIM) && words.contains(" -socket ")).count()
    }
}

pub fn port(number: u16) -> u16 {
    18000 + number
}

pub fn box_image() -> Image {
    Image::of("box").entrypoint(&["wasmbox", "serve", "--functions-dir", "/functions", "--cache-dir", "none"]).build()
}

impl Pods {
    /// All of their containers run, for all that containerd knows; and it can still reach them.
    pub fn all_run(&mut self, machine: &Machine) {
        self.cri = Cri::on(&machine.node);
        for container in self.all.iter().flat_map(|(_, function_box, sidecar)| [function_box, sidecar]) {
            let status = self.cri.status(container);
            assert_eq!(
                status.state,
                ContainerState::Running as i32,
                "{status:?}\n{}",
                machine.read("/run/containerd.log")
            );
        }
        for (_, _, sidecar) in &self.all {
            let (code, out, _) = self.cri.exec(sidecar, &["/bin/echo", "there"]).expect("containerd reaches it");
            assert_eq!((code, out.as_str()), (0, "there\n"));
        }
        assert_eq!(machine.shims(), usize::from(PODS));
    }

    /// Nothing is left of them.
    pub fn remove(self, machine: &Machine) {
        for (pod, _, _) in &self.all {
            self.cri.remove(pod);
        }
        eventually("the shims' end", || (machine.shims() == 0).then_some(()));
        assert!(machine.node.processes().iter().all(|(_, words)| !words.contains("/run/wasmbox/wasmbox")));
    }
}

/// Uninstalls, and looks for what is left.
pub fn end(machine: &Machine) {
    machine.installer("uninstall").ok();
    for path in [INSTALLED, LINK, "/opt/wasmbox"] {
        assert!(fs::symlink_metadata(machine.node.path(path)).is_err(), "{path} is left");
    }
    let pid = machine.read("/run/containerd.pid");
    assert!(!pid.is_empty());
    let daemon = machine.node.processes().into_iter().find(|(_, words)| words.starts_with("containerd "));
    Process(daemon.expect("containerd runs").0).signal(Signal::TERM);
    eventually("containerd's end", || machine.node.processes().is_empty().then_some(()));
}
