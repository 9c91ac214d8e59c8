//! Pods on a node that the installer has set up: they outlive each restart of containerd, and the mending of an older installation.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use rustix::process::Signal;
use wasmbox_tests::{
    ContainerConfig, Cri, Image, Request,
    containerd::{NETWORK, signal},
    cri::{
        ContainerSecurity, ContainerState, IdMapping, KeyValue, LinuxContainer, LinuxSandbox, Mount, Namespaces, Pod,
        SandboxSecurity, UserNamespace,
    },
    eventually, guest,
    node::{Node, Ran},
    workspace,
};

use super::is_2;

const SHIM: &str = "containerd-shim-wasmbox-v1";
const INSTALLED: &str = "/opt/wasmbox/bin";
/// Where containerd has its own programs.
const LINK: &str = "/opt/containerd/bin/containerd-shim-wasmbox-v1";
const CONFIG: &str = "/etc/containerd/config.toml";
const PODS: u16 = 4;

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
struct Machine {
    node: Node,
    tools: PathBuf,
}

/// The pods, each a box and a sidecar, on the node's network.
struct Pods {
    cri: Cri,
    all: Vec<(Pod, String, String)>,
}

impl Machine {
    fn new(version: &str) -> Machine {
        Machine::with_runc(version, "containerd/runc")
    }

    /// `runc`: below `target/tools`.
    fn with_runc(version: &str, runc: &str) -> Machine {
        let machine = Machine { node: Node::new(), tools: workspace::tool(version) };
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
            machine.link(&machine.tools.join(name));
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
    fn owners(&self, version: &str) -> String {
        let directory = self.node.directory().display();
        let (number, plugin, bin) = match version {
            _ if version.contains("2.3") => (3, "io.containerd.cri.v1.runtime", "bin_dirs = ['/opt/cni/bin']"),
            _ if is_2(version) => (3, "io.containerd.cri.v1.runtime", "bin_dir = '/opt/cni/bin'"),
            _ => (2, "io.containerd.grpc.v1.cri", "bin_dir = '/opt/cni/bin'"),
        };
        let pause = "docker.io/library/pause:test";
        let sandbox_image = if is_2(version) { String::new() } else { format!("sandbox_image = '{pause}'\n") };
        let pinned = if is_2(version) {
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

    fn link(&self, program: &Path) {
        let name = program.file_name().expect("a file");
        let link = self.node.path("/usr/local/sbin").join(name);
        std::os::unix::fs::symlink(program, link).expect("a new link");
    }

    fn write(&self, path: &str, text: &str) {
        fs::write(self.node.path(path), text).expect("a file of the node's");
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.node.path(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Ran {
        let mut command = self.node.command(program);
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("/usr/local/sbin:{path}"));
        command.env("TMPDIR", self.node.directory().join("temporary"));
        self.node.run(command.args(arguments))
    }

    fn shell(&self, script: &str) {
        self.run("sh", &["-c", script]).ok();
    }

    /// The installer, as `install` or `uninstall`.
    fn installer(&self, action: &str) -> Ran {
        let installer = self.node.directory().join("image/wasmbox-installer");
        self.run(&installer.display().to_string(), &[action, "--restart", "/usr/local/sbin/restart", "--wait", "20"])
    }

    /// What the doctor finds of one thing.
    fn doctor(&self, check: &str) -> String {
        let ran = self.run(&format!("{INSTALLED}/wasmbox"), &["doctor"]);
        let found = ran.stdout.lines().find(|line| line.get(6..).is_some_and(|rest| rest.starts_with(check)));
        found.unwrap_or_else(|| panic!("{check}: {ran:?}")).to_owned()
    }

    fn restart(&self) {
        self.run("/usr/local/sbin/restart", &[]).ok();
        eventually("containerd answers", || (self.run("ctr", &["version"]).code == 0).then_some(()));
    }

    fn is_linked(&self) -> bool {
        fs::read_link(self.node.path(LINK)).is_ok_and(|target| target == Path::new(INSTALLED).join(SHIM))
    }

    fn pods(&self) -> Pods {
        let cri = Cri::on(&self.node);
        let functions = self.node.directory().join("functions").display().to_string();
        let mut all = Vec::new();
        for number in 0..PODS {
            let mut sandbox = cri.sandbox(&format!("pod-{number}"));
            sandbox.hostname.clear();
            let on_the_node = Namespaces { network: 2, ..Namespaces::default() };
            sandbox.linux = sandbox.linux.map(|linux| LinuxSandbox {
                security: Some(SandboxSecurity { namespaces: Some(on_the_node), ..SandboxSecurity::default() }),
                ..linux
            });
            let pod = cri.run(sandbox);
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

    fn asks(&self, number: u16) -> bool {
        let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port(number));
        self.node.call(address, Request::get("/hi"), "").is_ok_and(|answer| answer.status == 200)
    }

    /// Requests to all pods, while something happens: how many were answered. All must be.
    fn under_load(&self, happens: impl FnOnce()) -> usize {
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
            let _stop = Stop(&stop);
            happens();
        });
        assert_eq!(failed.into_inner(), 0, "requests failed\n{}", self.read("/run/containerd.log"));
        answered.into_inner()
    }

    fn shims(&self) -> usize {
        let processes = self.node.processes();
        processes.iter().filter(|(_, words)| words.contains(SHIM) && words.contains(" -socket ")).count()
    }
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn port(number: u16) -> u16 {
    18000 + number
}

fn box_image() -> Image {
    Image::of("box").entrypoint(&["wasmbox", "serve", "--functions-dir", "/functions", "--cache-dir", "none"]).build()
}

impl Pods {
    /// All of their containers run, for all that containerd knows; and it can still reach them.
    fn all_run(&mut self, machine: &Machine) {
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
    fn remove(self, machine: &Machine) {
        for (pod, _, _) in &self.all {
            self.cri.remove(pod);
        }
        eventually("the shims' end", || (machine.shims() == 0).then_some(()));
        assert!(machine.node.processes().iter().all(|(_, words)| !words.contains("/run/wasmbox/wasmbox")));
    }
}

/// A restart, then a containerd that is killed: nobody notices.
pub fn they_outlive_containerd(version: &str) {
    let machine = Machine::new(version);
    machine.installer("install").ok();
    assert!(machine.is_linked() && !machine.read(CONFIG).contains("runtime_path"), "{}", machine.read(CONFIG));
    let mut pods = machine.pods();
    let answered = machine.under_load(|| {
        machine.restart();
        pods.all_run(&machine);
        machine.write("/run/kill", "");
        machine.restart();
        pods.all_run(&machine);
    });
    assert!(answered > 0);
    pods.remove(&machine);
    end(&machine);
}

/// `hostUsers: false`, on a node as the installer leaves it: an ordinary container and a box, each with users of the pod's own.
pub fn they_have_users_of_their_own(version: &str) {
    const FIRST: u32 = 300_000;
    // That of Debian 12 maps no users of mounts.
    let machine = Machine::with_runc(version, "go/runc");
    machine.shell(&format!("mkdir /opt/cni && ln -s {} /opt/cni/bin", workspace::tool("containerd/cni").display()));
    fs::write(machine.node.directory().join("cni/10-test.conflist"), NETWORK).expect("a new file");
    machine.installer("install").ok();
    let cri = Cri::on(&machine.node);
    let ids = || vec![IdMapping { host: FIRST, container: 0, length: 65536 }];
    let namespaces = |pid| {
        let users = Some(UserNamespace { mode: 0, uids: ids(), gids: ids() });
        Some(Namespaces { network: 0, pid, ipc: 0, users })
    };
    let mut sandbox = cri.sandbox("users");
    sandbox.linux = sandbox.linux.map(|linux| LinuxSandbox {
        security: Some(SandboxSecurity { namespaces: namespaces(0), ..SandboxSecurity::default() }),
        ..linux
    });
    let pod = cri.run(sandbox);
    let own = |container: ContainerConfig| {
        let security = ContainerSecurity { namespaces: namespaces(1), ..ContainerSecurity::default() };
        let linux = Some(LinuxContainer { resources: None, security: Some(security) });
        cri.start(&pod, ContainerConfig { linux, ..container })
    };
    let sidecar = own(ContainerConfig::new("sidecar", "docker.io/library/busybox:test", &["/bin/sleep", "100000"]));
    let script =
        "id -u; cat /proc/self/uid_map; busybox stat -c %u /bin/busybox; echo x >/made && busybox stat -c %u /made";
    let (code, out, error) = cri.exec(&sidecar, &["/bin/sh", "-c", script]).expect("it runs");
    let words: Vec<_> = out.split_whitespace().collect();
    assert_eq!((code, words), (0, vec!["0", "0", "300000", "65536", "0", "0"]), "{error}");
    let functions = machine.node.directory().join("functions").display().to_string();
    own(ContainerConfig {
        mounts: vec![Mount {
            container_path: "/functions".into(),
            host_path: functions,
            readonly: true,
            ..Mount::default()
        }],
        ..ContainerConfig::new("box", "docker.io/library/box:test", &[])
    });
    let address = SocketAddr::new(cri.address(&pod), 8095);
    let answer = eventually("the box answers", || machine.node.call(address, Request::get("/hi"), "").ok());
    assert_eq!((answer.status, answer.text()), (200, "hello\n"));
    let function_box =
        machine.node.processes().into_iter().find(|(_, words)| words.contains("/run/wasmbox/wasmbox serve"));
    let status =
        fs::read_to_string(format!("/proc/{}/status", function_box.expect("the box runs").0)).expect("it runs");
    assert!(status.contains(&format!("\nUid:\t{FIRST}\t")), "{status}");
    cri.remove(&pod);
    eventually("the shim's end", || (machine.shims() == 0).then_some(()));
    end(&machine);
}

/// As it was installed before: by a path in the configuration alone.
pub fn they_outlive_the_mending_of_an_older_installation(version: &str) {
    let machine = Machine::new(version);
    machine.installer("install").ok();
    let runtime = "runtime_type = \"io.containerd.wasmbox.v1\"\n";
    let written = [CONFIG, "/etc/containerd/conf.d/wasmbox.toml"].map(|path| machine.node.path(path));
    let file = written.iter().find(|path| fs::read_to_string(path).is_ok_and(|text| text.contains(runtime)));
    let file = file.expect("the handler is in one of the files");
    let text = fs::read_to_string(file).expect("it is there");
    let by_path = text.replace(runtime, &format!("{runtime}runtime_path = \"{INSTALLED}/{SHIM}\"\n"));
    fs::write(file, by_path).expect("a file of the node's");
    fs::remove_file(machine.node.path(LINK)).expect("the link is there");
    machine.restart();
    let mut pods = machine.pods();
    machine.under_load(|| {
        machine.installer("install").ok();
        assert!(machine.is_linked());
        assert_eq!(fs::read_to_string(file).expect("it is there"), text);
        pods.all_run(&machine);
        machine.restart();
        pods.all_run(&machine);
    });
    // Later ones found the shim by its name, and named the cgroup driver.
    let annotations = "container_annotations = [\"wasmbox.dev/*\"]\n";
    let table = text.lines().find(|line| line.ends_with(".runtimes.wasmbox]")).expect("the handler's table");
    let options = table.replace(".wasmbox]", ".wasmbox.options]") + "\nSystemdCgroup = false\n";
    fs::write(file, text.replace(annotations, &format!("{annotations}{options}"))).expect("a file of the node's");
    machine.restart();
    let names_the_driver = || machine.doctor("handler").contains("SystemdCgroup");
    assert_eq!(names_the_driver(), is_2(version), "{}", machine.doctor("handler"));
    machine.under_load(|| {
        machine.installer("install").ok();
        assert_eq!(fs::read_to_string(file).expect("it is there"), text);
        assert!(!names_the_driver());
        pods.all_run(&machine);
    });
    pods.remove(&machine);
    end(&machine);
}

/// A containerd that does not find the shim takes what runs for ended. The doctor names what it lost, and what it says ends it.
pub fn what_containerd_lost_is_named(version: &str) {
    let machine = Machine::new(version);
    machine.installer("install").ok();
    let pods = machine.pods();
    let doctor = |check: &str| machine.doctor(check);
    let (shims, containers) = (PODS, 3 * PODS);
    assert!(
        doctor("orphans").ends_with(&format!("none of {shims} shims and {containers} containers")),
        "{}",
        doctor("orphans")
    );
    assert!(doctor("shim").contains(LINK), "{}", doctor("shim"));

    // As a node was before the link: what containerd 2.3 keeps is hidden from the others, too.
    fs::remove_file(machine.node.path(LINK)).expect("the link is there");
    machine.restart();
    let orphans = doctor("orphans");
    assert!(orphans.starts_with("warn"), "{orphans}");
    for (_, function_box, sidecar) in &pods.all {
        assert!(orphans.contains(function_box) && orphans.contains(sidecar), "{orphans}");
    }
    let (_, remedy) = orphans.split_once(" -> ").expect("a remedy");
    machine.shell(&remedy.replace("; ", " && "));
    assert!(doctor("orphans").ends_with("none of 0 shims and 0 containers"), "{}", doctor("orphans"));
    machine.installer("install").ok();
    assert!(machine.is_linked());
    for (pod, _, _) in &pods.all {
        Cri::on(&machine.node).remove(pod);
    }
    end(&machine);
}

/// Uninstalls, and looks for what is left.
fn end(machine: &Machine) {
    machine.installer("uninstall").ok();
    for path in [INSTALLED, LINK, "/opt/wasmbox"] {
        assert!(fs::symlink_metadata(machine.node.path(path)).is_err(), "{path} is left");
    }
    let pid = machine.read("/run/containerd.pid");
    assert!(!pid.is_empty());
    let daemon = machine.node.processes().into_iter().find(|(_, words)| words.starts_with("containerd "));
    signal(daemon.expect("containerd runs").0, Signal::TERM);
    eventually("containerd's end", || machine.node.processes().is_empty().then_some(()));
}
