//! The mixed pod: a box behind a sidecar that is as restricted as Knative's queue-proxy.

use wasmbox_tests::on_each_version;

use super::*;

on_each_version!(a_restricted_sidecar_proxies_to_the_box);

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
