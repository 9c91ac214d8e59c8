//! A node as nearly all are: systemd, cgroup v2 alone, containerd as a unit of type `notify`, cgroups by systemd. In a virtual machine
//! (`wasmbox_tests::vm`), all tests in one.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Once,
    time::Duration,
};

use wasmbox_tests::{
    Answer, ContainerConfig, Cri, Image, Request,
    client::exchange_alone,
    cri::{
        ContainerState, KeyValue, LinuxContainer, LinuxSandbox, Mount, Namespaces, Pod, Resources, SOCKET,
        SandboxSecurity,
    },
    eventually, guest, vm, workspace,
};

const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8095);
const SLICE: &str = "kubepods-test.slice";
const FUNCTIONS: &str = "/srv/functions";
const TASKS: &str = "/run/containerd/io.containerd.runtime.v2.task/k8s.io";
const MIB: i64 = 1 << 20;

/// What a program says; it must succeed.
fn said(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().expect("it runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

fn systemctl(arguments: &[&str]) -> String {
    said(Command::new("systemctl").args(arguments))
}

/// The installer as its DaemonSet runs it: in a namespace of processes of its own, with the node's root mounted.
fn installer(action: &str) {
    let binary = workspace::installed("wasmbox-installer").display().to_string();
    let script = "mkdir -p /run/host && mount --rbind / /run/host && mount -t proc proc /proc && exec \"$0\" \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--mount", "--propagation", "private", "sh", "-c", script, &binary]);
    said(command.args([action, "--host-root", "/run/host"]));
}

/// Images, functions, and the installation, once for all tests.
fn prepare() {
    static PREPARED: Once = Once::new();
    PREPARED.call_once(|| {
        fs::create_dir_all(FUNCTIONS).expect("a new directory");
        fs::write(Path::new(FUNCTIONS).join("hi.wat"), guest::hello()).expect("a new file");
        fs::write(Path::new(FUNCTIONS).join("busy.wat"), guest::busy()).expect("a new file");
        // No compiler is there for the usual one.
        let busybox = fs::read(workspace::tool("containerd/busybox")).expect("busybox");
        let pause = Image::of("pause").file("bin/busybox", busybox).entrypoint(&["/bin/busybox", "sleep", "1000000"]);
        let function_box =
            Image::of("box").entrypoint(&["wasmbox", "serve", "--functions-dir", "/functions", "--cache-dir", "none"]);
        for image in [pause.build(), Image::busybox(), function_box.build()] {
            said(Command::new("ctr").args(["--namespace", "k8s.io", "image", "import"]).arg(image.archive()));
        }
        installer("install");
    });
}

/// A pod of a box and a sidecar, on the node's network.
struct Boxed {
    cri: Cri,
    pod: Pod,
    function_box: String,
    sidecar: String,
}

impl Boxed {
    fn new() -> Boxed {
        prepare();
        let cri = Cri::at(Path::new(SOCKET), &format!("/kubepods.slice/{SLICE}"));
        let mut sandbox = cri.sandbox("pod");
        sandbox.hostname.clear();
        let on_the_node = Namespaces { network: 2, ..Namespaces::default() };
        sandbox.linux = sandbox.linux.map(|linux| LinuxSandbox {
            security: Some(SandboxSecurity { namespaces: Some(on_the_node), ..SandboxSecurity::default() }),
            ..linux
        });
        let pod = cri.run(sandbox);
        let limits = Resources {
            memory_limit_in_bytes: 256 * MIB,
            cpu_period: 100_000,
            cpu_quota: 100_000,
            ..Resources::default()
        };
        let function_box = ContainerConfig {
            envs: vec![KeyValue { key: "ENABLE_CGROUPS".into(), value: "true".into() }],
            mounts: vec![Mount {
                container_path: "/functions".into(),
                host_path: FUNCTIONS.into(),
                readonly: true,
                ..Mount::default()
            }],
            linux: Some(LinuxContainer { resources: Some(limits), security: None }),
            ..ContainerConfig::new("box", "docker.io/library/box:test", &[])
        };
        let function_box = cri.start(&pod, function_box);
        let sleeps = ContainerConfig::new("sidecar", "docker.io/library/busybox:test", &["/bin/sleep", "100000"]);
        let sidecar = cri.start(&pod, sleeps);
        let pod = Boxed { cri, pod, function_box, sidecar };
        assert_eq!(eventually("the box answers", || ask(Request::get("/hi"))).text(), "hello\n");
        pod
    }

    fn cgroup(&self) -> PathBuf {
        cgroup(&self.function_box)
    }

    fn remove(self) {
        self.cri.remove(&self.pod);
        nothing_is_left();
    }
}

fn ask(request: http::request::Builder) -> Option<Answer> {
    exchange_alone(ADDRESS, request, bytes::Bytes::new()).ok().filter(|answer| answer.status != 503)
}

fn scope(container: &str) -> String {
    format!("cri-containerd-{container}.scope")
}

fn cgroup(container: &str) -> PathBuf {
    Path::new("/sys/fs/cgroup/kubepods.slice").join(SLICE).join(scope(container))
}

/// Numbers of the processes with these words in their command lines.
fn processes(words: &str) -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("/proc is mounted").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).replace('\0', " ").contains(words)
    })
    .collect()
}

fn shims() -> Vec<u32> {
    processes("containerd-shim-wasmbox-v1 -namespace k8s.io")
}

/// Of pods that were removed: processes, scopes, cgroups, mounts, sockets, bundles.
fn nothing_is_left() {
    eventually("nothing is left", || {
        let entries = |path: &str| fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
        let slice = format!("/sys/fs/cgroup/kubepods.slice/{SLICE}");
        let cgroups = entries(&slice).filter(|path| path.is_dir()).count();
        let files: usize = [TASKS, "/run/containerd/s", "/run/containerd/wasmbox/k8s.io"]
            .map(|path| entries(path).count())
            .iter()
            .sum();
        let mounts = fs::read_to_string("/proc/self/mounts").expect("/proc is mounted");
        let units = systemctl(&["list-units", "--all", "--plain", "--no-legend", "cri-containerd-*"]);
        let is_clean =
            shims().is_empty() && cgroups == 0 && files == 0 && !mounts.contains(TASKS) && units.trim().is_empty();
        is_clean.then_some(())
    });
}

/// What an installation may touch.
fn files() -> BTreeMap<PathBuf, Vec<u8>> {
    fn collect(directory: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            let bytes = if let Ok(target) = fs::read_link(&path) {
                target.into_os_string().into_encoded_bytes()
            } else if path.is_dir() {
                collect(&path, files);
                Vec::new()
            } else {
                fs::read(&path).expect("a file")
            };
            files.insert(path, bytes);
        }
    }
    let mut files = BTreeMap::new();
    for directory in ["/etc", "/opt", "/usr/local"] {
        collect(Path::new(directory), &mut files);
    }
    files
}

/// It restarts containerd, which is a unit, and takes all of it away again.
#[test]
fn what_is_installed_goes_to_the_byte() {
    vm::on_a_node(|| {
        prepare();
        let started =
            || systemctl(&["show", "--value", "--property", "ActiveEnterTimestampMonotonic", "containerd.service"]);
        let installed = started();
        installer("uninstall");
        assert_ne!(started(), installed);
        let before = files();
        assert!(!before.keys().any(|path| path.to_string_lossy().contains("wasmbox")), "{:#?}", before.keys());
        installer("install");
        let dump = said(Command::new("containerd").args(["config", "dump"]));
        let handler = dump.split_once(".runtimes.wasmbox]").expect("the handler").1;
        // The driver is that of each cgroup's path.
        assert!(handler.contains("io.containerd.wasmbox.v1") && !handler.contains("SystemdCgroup"), "{handler}");
        installer("uninstall");
        assert!(files() == before, "{:#?}\n{:#?}", files().keys(), before.keys());
        installer("install");
        let at = started();
        installer("install");
        assert_eq!(started(), at, "the second time changed something");
    });
}

/// A unit of type `notify` has a socket for that, which is not for what it starts.
#[test]
fn ctr_runs() {
    vm::on_a_node(|| {
        prepare();
        let mut command = Command::new("ctr");
        command.args(["--namespace", "k8s.io", "run", "--rm", "--runtime", "io.containerd.wasmbox.v1"]);
        let image = "docker.io/library/busybox:test";
        let said = said(command.args([image, "one", "/bin/sh", "-c", "echo \"$NOTIFY_SOCKET|\""]));
        assert_eq!(said, "|\n");
        nothing_is_left();
    });
}

#[test]
fn a_pod_has_its_limits() {
    vm::on_a_node(|| {
        let pod = Boxed::new();
        for container in [&pod.function_box, &pod.sidecar] {
            assert_eq!(systemctl(&["show", "--value", "--property", "Delegate", &scope(container)]), "yes\n");
        }
        let read = |file: &str| fs::read_to_string(pod.cgroup().join(file)).expect("a file of the cgroup");
        assert_eq!((read("memory.max"), read("cpu.max")), (format!("{}\n", 256 * MIB), "100000 100000\n".into()));
        assert_eq!((read("cgroup.type"), read("box/cgroup.type")), ("domain threaded\n".into(), "threaded\n".into()));
        quotas_hold();
        // What the kubelet is told is what the cgroup says.
        let used = || -> u64 {
            let text = read("cpu.stat");
            let used = text.lines().find_map(|line| line.strip_prefix("usage_usec ")).expect("its use");
            used.parse::<u64>().expect("a number") * 1000
        };
        let before = used();
        let stats = pod.cri.stats(&pod.function_box);
        let told = stats.cpu.and_then(|cpu| cpu.core_nanoseconds).expect("its use of CPU").value;
        assert!((before..=used()).contains(&told), "{before} {told}");
        assert_eq!(pod.cri.exec(&pod.function_box, &["/run/wasmbox/wasmbox", "status"]).expect("it runs").0, 0);
        pod.cri.stop(&pod.sidecar, Duration::from_secs(1));
        pod.cri.stop(&pod.function_box, Duration::from_secs(20));
        assert_eq!(pod.cri.status(&pod.function_box).exit_code, 0);
        pod.remove();
    });
}

/// A tenth, a quarter, a half of a processor, in two seconds: bounds are wide, since the machine is emulated.
fn quotas_hold() {
    for quota in [100, 250, 500_u32] {
        let request = Request::get("/busy").header("Cpu-Quota", quota.to_string()).header("Invocation-Timeout", "2000");
        let stopped = ask(request).expect("an answer");
        assert_eq!((stopped.status, stopped.header("wasmbox-error")), (504, "deadline-exceeded"), "{stopped:?}");
        let used: f64 = stopped.header("wasmbox-cpu-time-us").parse().expect("a number");
        let allowed = f64::from(quota) * 2000.0;
        assert!((allowed / 4.0..allowed * 1.4 + 100_000.0).contains(&used), "{used} us at {quota}m");
    }
}

/// What an administrator does to systemd, and to containerd, is nothing to a pod.
#[test]
fn a_pod_outlives_what_its_node_goes_through() {
    vm::on_a_node(|| {
        let pod = Boxed::new();
        let of_the_box = scope(&pod.function_box);
        for words in [
            &["daemon-reload"][..],
            &["daemon-reexec"],
            &["set-property", "--runtime", &of_the_box, "CPUWeight=50"],
            &["set-property", "--runtime", SLICE, "CPUWeight=50"],
            &["restart", "containerd.service"],
        ] {
            systemctl(words);
            let text = fs::read_to_string(pod.cgroup().join("box/cgroup.type")).expect("its subtree");
            assert_eq!(text, "threaded\n", "{words:?}");
            assert_eq!(eventually("the box answers", || ask(Request::get("/hi"))).text(), "hello\n");
        }
        quotas_hold();
        let cri = Cri::at(Path::new(SOCKET), "");
        for container in [&pod.function_box, &pod.sidecar] {
            assert_eq!(cri.status(container).state, ContainerState::Running as i32);
        }
        Boxed { cri, ..pod }.remove();
    });
}
