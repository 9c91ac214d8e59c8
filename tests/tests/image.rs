//! The container image that the Dockerfile makes, in containerd: with the shim, and without it (container-only mode).

use std::{net::SocketAddr, path::PathBuf};

use http::Request;
use wasmbox_tests::{Containerd, Version, eventually, guest, temporary::TempDir, workspace};

const NAME: &str = "docker.io/library/wasmbox:test";
const FUNCTIONS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8095);

fn archive() -> PathBuf {
    let path = workspace::root().join("target/deployment/image.tar");
    assert!(path.is_file(), "{} is not there: run `make deploy-test`", path.display());
    path
}

/// Runs the image as it is, with a directory of functions, and calls one.
fn serves(runtime: &str, id: &str, inspect: impl Fn(&Containerd)) {
    let containerd = Containerd::start(Version::V1_7);
    containerd.ctr(&["image", "import", &archive().display().to_string()]).ok();
    let functions = TempDir::new();
    std::fs::write(functions.path().join("hi.wat"), guest::hello()).expect("a new file");
    // As a pod has it: a read-only root, and an emptyDir for compiled code, which everybody may write.
    let cache = TempDir::new();
    std::fs::set_permissions(cache.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("our directory");
    let mounts = [
        format!("type=bind,src={},dst=/functions,options=rbind:ro", functions.path().display()),
        format!("type=bind,src={},dst=/var/cache/wasmbox,options=rbind:rw", cache.path().display()),
    ];
    let log = containerd.directory().join("box.log");
    let log_uri = format!("file://{}", log.display());
    let mut words = vec!["run", "--detach", "--net-host", "--read-only", "--log-uri", &log_uri, "--runtime", runtime];
    for mount in &mounts {
        words.extend(["--mount", mount]);
    }
    words.extend([NAME, id]);
    containerd.ctr(&words).ok();
    let log = || std::fs::read_to_string(&log).unwrap_or_default();
    let answer = eventually("the box answers", || {
        assert!(containerd.ctr(&["task", "ls"]).ok().contains("RUNNING"), "the box ended: {}", log());
        containerd.node().call(FUNCTIONS, Request::get("/hi"), "").ok()
    });
    let answer = answer.ok();
    assert_eq!(answer.text(), "hello\n");
    // What HEALTHCHECK runs.
    let healthy = ["task", "exec", "--exec-id", "health", id, "/usr/local/bin/wasmbox", "status"];
    let status = containerd.ctr(&healthy).ok();
    assert!(status.contains("ready"), "{status}");
    inspect(&containerd);
    // It drains, and ends by itself.
    containerd.ctr(&["task", "kill", "--signal", "SIGTERM", id]).ok();
    eventually("its end", || containerd.ctr(&["task", "ls"]).ok().contains("STOPPED").then_some(()));
    let deleted = containerd.ctr(&["task", "delete", id]);
    assert_eq!(deleted.code, 0, "its exit code: {deleted:?}");
    containerd.ctr(&["container", "delete", id]).ok();
}

/// Not root, whoever runs it.
fn is_not_root(containerd: &Containerd) {
    let processes = containerd.node().processes();
    let found = processes
        .iter()
        .find(|(_, words)| words.starts_with("/usr/local/bin/wasmbox ") || words.contains("/run/wasmbox/wasmbox "));
    let (pid, _) = found.unwrap_or_else(|| panic!("no box: {processes:?}"));
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the box runs");
    assert!(status.contains("Uid:\t65532\t65532\t65532\t65532"), "{status}");
}

#[test]
fn the_image_serves_in_container_only_mode() {
    serves("io.containerd.runc.v2", "alone", is_not_root);
}

#[test]
fn the_image_serves_with_the_shim_in_delegated_cgroups() {
    serves("io.containerd.wasmbox.v1", "shim", |containerd| {
        is_not_root(containerd);
        let nested = containerd.node().cgroups().iter().any(|cgroup| cgroup.join("shim/box").is_dir());
        assert!(nested, "{:?}", containerd.node().cgroups());
        // What the RuntimeClass says that a pod costs beyond its containers is what it costs, and not several times that.
        let [shim] = containerd.shims()[..] else { panic!("{:?}", containerd.shims()) };
        let memory = std::fs::read_to_string(format!("/proc/{shim}/smaps_rollup")).expect("the shim runs");
        let line = memory.lines().find_map(|line| line.strip_prefix("Rss:")).expect("a line of the kernel's");
        let used: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
        let class = std::fs::read_to_string(workspace::root().join("runtimeclass/runtimeclass.yaml")).expect("a file");
        let overhead = class.lines().find_map(|line| line.trim().strip_prefix("memory: ")).expect("an overhead");
        let overhead: u64 = overhead.trim_end_matches("Mi").parse().expect("MiB");
        println!("the shim: {used} KiB resident; {memory}");
        assert!(used < overhead << 10 && used > (overhead << 10) / 4, "{used} KiB, and the class says {overhead} MiB");
    });
}
