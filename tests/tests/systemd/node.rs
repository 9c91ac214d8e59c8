//! The node: its units, its processes, what is installed on it and what pods leave there.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Once,
    thread,
    time::{Duration, Instant},
};

use wasmbox_tests::{Image, eventually, guest, patience::PATIENCE, workspace};

pub const SLICE: &str = "kubepods-test.slice";
pub const FUNCTIONS: &str = "/srv/functions";
pub const TASKS: &str = "/run/containerd/io.containerd.runtime.v2.task/k8s.io";

/// What a program says; it must succeed.
pub fn said(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().expect("it runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

pub fn systemctl(arguments: &[&str]) -> String {
    said(Command::new("systemctl").args(arguments))
}

/// The installer as its DaemonSet runs it: in a namespace of processes of its own, with the node's root mounted.
pub fn installer(action: &str) {
    let binary = workspace::installed("wasmbox-installer").display().to_string();
    let script = "mkdir -p /run/host && mount --rbind / /run/host && mount -t proc proc /proc && exec \"$0\" \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--mount", "--propagation", "private", "sh", "-c", script, &binary]);
    said(command.args([action, "--host-root", "/run/host"]));
}

/// What `wasmbox doctor` finds of one thing.
pub fn doctor(check: &str) -> String {
    // It fails if anything is wrong, also with what is none of the test's.
    let output = Command::new(workspace::installed("wasmbox")).arg("doctor").output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let found = text.lines().find(|line| line.get(6..).is_some_and(|rest| rest.starts_with(check)));
    found.unwrap_or_else(|| panic!("{check}: {text}")).to_owned()
}

/// When containerd's unit was last started.
pub fn started() -> String {
    systemctl(&["show", "--value", "--property", "ActiveEnterTimestampMonotonic", "containerd.service"])
}

/// Images, functions, and the installation, once for all tests.
pub fn prepare() {
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

pub fn scope(container: &str) -> String {
    format!("cri-containerd-{container}.scope")
}

pub fn cgroup(container: &str) -> PathBuf {
    Path::new("/sys/fs/cgroup/kubepods.slice").join(SLICE).join(scope(container))
}

/// Numbers of the processes with these words in their command lines.
pub fn processes(words: &str) -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("/proc is mounted").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).replace('\0', " ").contains(words)
    })
    .collect()
}

pub fn shims() -> Vec<u32> {
    processes("containerd-shim-wasmbox-v1 -namespace k8s.io")
}

pub fn boxes() -> Vec<u32> {
    processes("/run/wasmbox/wasmbox serve")
}

/// The only process of them.
pub fn only(processes: Vec<u32>) -> u32 {
    let [process] = processes[..] else { panic!("one process: {processes:?}") };
    process
}

pub fn main_process() -> u32 {
    let pid = systemctl(&["show", "--value", "--property", "MainPID", "containerd.service"]);
    pid.trim().parse().expect("a number")
}

/// Kills containerd, and what else is to go at that moment. Its unit starts it anew.
pub fn kill_containerd(and: impl FnOnce()) {
    let before = main_process();
    systemctl(&["kill", "--kill-whom=main", "--signal=KILL", "containerd.service"]);
    and();
    eventually("containerd's new process", || Some(main_process()).filter(|&pid| pid != 0 && pid != before));
    let state = || systemctl(&["show", "--value", "--property", "ActiveState", "containerd.service"]);
    eventually("containerd's unit", || (state() == "active\n").then_some(()));
}

/// Of pods that were removed: processes, scopes, cgroups, mounts, sockets, bundles.
///
/// # Panics
/// Saying what is left.
pub fn nothing_is_left() {
    let give_up = Instant::now() + PATIENCE;
    loop {
        let left = left();
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < give_up, "left behind: {left:#?}");
        thread::sleep(Duration::from_millis(100));
    }
}

fn left() -> Vec<String> {
    let entries = |path: &str| fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let slice = format!("/sys/fs/cgroup/kubepods.slice/{SLICE}");
    let cgroups = entries(&slice).filter(|path| path.is_dir());
    let files = [TASKS, "/run/containerd/s", "/run/containerd/wasmbox/k8s.io"].into_iter().flat_map(entries);
    let mut left: Vec<_> = cgroups.chain(files).map(|path| path.display().to_string()).collect();
    left.extend(shims().iter().chain(&boxes()).map(|pid| format!("process {pid}")));
    let mounts = fs::read_to_string("/proc/self/mounts").expect("/proc is mounted");
    left.extend(mounts.lines().filter(|line| line.contains(TASKS)).map(str::to_owned));
    let units = systemctl(&["list-units", "--all", "--plain", "--no-legend", "cri-containerd-*"]);
    left.extend(units.lines().map(str::to_owned));
    left
}

/// What an installation may touch.
pub fn files() -> BTreeMap<PathBuf, Vec<u8>> {
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
