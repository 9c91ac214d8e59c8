//! The mixed pod: a box behind a sidecar that is as restricted as Knative's queue-proxy.

use std::time::Duration;

use wasmbox_tests::{on_each_version, workspace};

use super::*;

const SIDECAR: i64 = 65532;
const BOX: i64 = 1000;
const SIDECAR_PORT: u16 = 8012;

on_each_version!(a_restricted_sidecar_proxies_to_the_box);

mod stock_queue_proxy {
    use super::*;

    #[test]
    #[ignore = "needs Go: make e2e"]
    fn containerd_1_7() {
        super::stock_queue_proxy(Version::V1_7);
    }

    #[test]
    #[ignore = "needs Go: make e2e"]
    fn containerd_2_3() {
        super::stock_queue_proxy(Version::V2_3);
    }
}

fn a_restricted_sidecar_proxies_to_the_box(version: Version) {
    let kubelet = Kubelet::new(version);
    let pod = kubelet.pod("mixed");
    let forward = ["/bin/busybox", "nc", "-ll", "-p", "8012", "-e", "/bin/busybox", "nc", "127.0.0.1", "8095"];
    let limits = Resources { cpu_period: 100_000, cpu_quota: 50_000, cpu_shares: 128, ..memory(32) };
    let sidecar =
        kubelet.cri.start(&pod, ContainerConfig { linux: restricted(SIDECAR, limits), ..busybox("sidecar", &forward) });
    let limits = Resources { cpu_period: 100_000, cpu_quota: 150_000, cpu_shares: 512, ..memory(256) };
    let mut config = ContainerConfig { linux: restricted(BOX, limits), ..kubelet.wasmbox("user-container") };
    config.envs.push(env("DEFAULT_CPU_QUOTA", "250"));
    let wasmbox = kubelet.cri.start(&pod, config);

    let answer = kubelet.ask(&pod, SIDECAR_PORT, "/hi");
    assert_eq!((answer.status, answer.text()), (200, "hello\n"), "{answer:?}");
    assert_eq!(kubelet.containerd.shims().len(), 1, "{:?}", kubelet.containerd.node().processes());

    let (outer, inner) = (kubelet.process(&sidecar), kubelet.process(&wasmbox));
    let namespace = |process: &Path, kind: &str| fs::read_link(process.join("ns").join(kind)).expect("it runs");
    for kind in ["net", "ipc", "uts"] {
        assert_eq!(namespace(&outer, kind), namespace(&inner, kind), "{kind}");
        assert_ne!(namespace(&outer, kind), namespace(Path::new("/proc/self"), kind), "{kind}");
    }
    for kind in ["mnt", "pid"] {
        assert_ne!(namespace(&outer, kind), namespace(&inner, kind), "{kind}");
    }
    for (process, uid) in [(&outer, SIDECAR), (&inner, BOX)] {
        assert_eq!(field(process, "status", "Uid"), format!("{uid}\t{uid}\t{uid}\t{uid}"));
        assert_eq!(field(process, "status", "Gid"), format!("{uid}\t{uid}\t{uid}\t{uid}"));
        assert_eq!(field(process, "status", "CapEff"), "0000000000000000");
        assert_eq!(field(process, "status", "CapBnd"), "0000000000000000");
        assert_eq!(field(process, "status", "NoNewPrivs"), "1");
        assert_eq!(field(process, "status", "Seccomp"), "2");
    }
    for (container, memory, quota, shares) in [(&sidecar, 32, "50000", "128"), (&wasmbox, 256, "150000", "512")] {
        assert_eq!(kubelet.cgroup_file(container, "memory.limit_in_bytes"), (memory * MIB).to_string());
        assert_eq!(kubelet.cgroup_file(container, "cpu.cfs_quota_us"), quota);
        assert_eq!(kubelet.cgroup_file(container, "cpu.shares"), shares);
    }
    assert!(is_read_only(&outer, "/"));
    assert!(mount_options(&outer, "/run/wasmbox").is_none(), "an ordinary container is as it was asked for");
    for place in ["/", "/functions", "/run/wasmbox/wasmbox"] {
        assert!(is_read_only(&inner, place), "{place}");
    }
    let mounts = fs::read_to_string(inner.join("mountinfo")).expect("it runs");
    let writable = |line: &&str| {
        line.contains(" - cgroup") && line.split(' ').nth(5).is_some_and(|options| options.starts_with("rw"))
    };
    let writable: Vec<_> = mounts.lines().filter(writable).map(|line| line.split(' ').nth(4)).collect();
    assert_eq!(writable, [Some("/run/wasmbox/cgroup")], "{mounts}");
    let environment = fs::read(inner.join("environ")).expect("it runs");
    assert!(String::from_utf8_lossy(&environment).contains("DEFAULT_CPU_QUOTA=250\0"));

    kubelet.cri.remove(&pod);
}

/// The options of what is mounted there in a process's file system.
fn mount_options(process: &Path, place: &str) -> Option<String> {
    let mounts = fs::read_to_string(process.join("mountinfo")).expect("it runs");
    let line = mounts.lines().find(|line| line.split(' ').nth(4) == Some(place))?;
    line.split(' ').nth(5).map(str::to_owned)
}

fn is_read_only(process: &Path, place: &str) -> bool {
    let options = mount_options(process, place).unwrap_or_else(|| panic!("nothing is mounted at {place}"));
    options.split(',').any(|option| option == "ro")
}

/// Knative's own, as it is released, in the environment that Knative's controller gives it.
fn stock_queue_proxy(version: Version) {
    let kubelet = Kubelet::new(version);
    let queue = fs::read(workspace::tool("go/queue")).expect("the binary can be read");
    let image = Image::of("queue").file("ko-app/queue", queue).entrypoint(&["/ko-app/queue"]).build();
    kubelet.containerd.import(&image);
    let pod = kubelet.pod("knative");
    let limits = Resources { cpu_period: 100_000, cpu_quota: 150_000, cpu_shares: 512, ..memory(256) };
    let config = ContainerConfig { linux: restricted(BOX, limits), ..kubelet.wasmbox("user-container") };
    let wasmbox = kubelet.cri.start(&pod, config);
    let probe =
        r#"{"httpGet":{"path":"/-/ready","port":8095,"host":"127.0.0.1","scheme":"HTTP"},"successThreshold":1}"#;
    let address = kubelet.cri.address(&pod).to_string();
    let environment = [
        ("SERVING_NAMESPACE", "default"),
        ("SERVING_SERVICE", "hello"),
        ("SERVING_CONFIGURATION", "hello"),
        ("SERVING_REVISION", "hello-00001"),
        ("SERVING_POD", "knative"),
        ("SERVING_POD_IP", &address),
        ("QUEUE_SERVING_PORT", "8012"),
        ("QUEUE_SERVING_TLS_PORT", "8112"),
        ("CONTAINER_CONCURRENCY", "0"),
        ("REVISION_TIMEOUT_SECONDS", "300"),
        ("USER_PORT", "8095"),
        ("SERVING_READINESS_PROBE", probe),
        ("SERVING_LOGGING_CONFIG", ""),
        ("SERVING_LOGGING_LEVEL", ""),
        ("SYSTEM_NAMESPACE", "knative-serving"),
    ];
    let sidecar = ContainerConfig {
        envs: environment.iter().map(|(key, value)| env(key, value)).collect(),
        linux: restricted(SIDECAR, Resources { cpu_shares: 25, ..memory(128) }),
        ..ContainerConfig::new("queue-proxy", image.name(), &[])
    };
    let sidecar = kubelet.cri.start(&pod, sidecar);
    let answer = kubelet.ask(&pod, SIDECAR_PORT, "/hi");
    assert_eq!(
        (answer.status, answer.text()),
        (200, "hello\n"),
        "{answer:?}\n{}",
        kubelet.log(&pod, "queue-proxy.log")
    );
    // As the kubelet asks whether the pod is ready: queue-proxy asks the box.
    let address = SocketAddr::new(kubelet.cri.address(&pod), SIDECAR_PORT);
    let ready = eventually("the pod is ready", || {
        let probe = Request::get("/").header("User-Agent", "kube-probe/1.36").header("K-Network-Probe", "queue");
        kubelet.containerd.node().call(address, probe, "").ok().filter(|answer| answer.status == 200)
    });
    assert_eq!(ready.text(), "queue");
    assert_eq!(field(&kubelet.process(&sidecar), "status", "CapEff"), "0000000000000000");
    // As a pod ends: both get SIGTERM.
    kubelet.cri.stop(&wasmbox, Duration::from_secs(30));
    assert_eq!(kubelet.cri.status(&wasmbox).exit_code, 0);
    kubelet.cri.remove(&pod);
}
