//! What a node's administrator and a pod's author choose: runtime options, the annotation, and users.

use wasmbox_tests::on_each_version;

use super::*;

on_each_version!(
    a_box_has_cgroups_as_root_and_as_nobody,
    the_annotation_says_which_container_is_a_box,
    an_option_that_is_not_known_is_named,
    a_runtime_that_is_not_there_is_named,
    options_take_effect,
);

fn a_box_has_cgroups_as_root_and_as_nobody(version: Version) {
    let kubelet = Kubelet::new(version);
    let limits = Resources { cpu_period: 100_000, cpu_quota: 120_000, ..memory(192) };
    for (name, linux) in [
        ("as-root", limited(limits.clone())),
        ("as-root-restricted", restricted(0, limits.clone())),
        ("as-user", restricted(1000, limits.clone())),
        ("as-nobody", restricted(65534, limits.clone())),
    ] {
        let pod = kubelet.pod(name);
        // A guest that begins on the thread of its connection would need none.
        let mut config = ContainerConfig { linux, ..kubelet.wasmbox("box") };
        config.envs.push(env("INLINE", "off"));
        let wasmbox = kubelet.cri.start(&pod, config);
        let answer = kubelet.ask(&pod, PORT, "/hi");
        assert_eq!(answer.text(), "hello\n", "{name}: {answer:?}");
        let used: u64 = answer.headers["wasmbox-cpu-time-us"].to_str().expect("text").parse().expect("a number");
        assert!(used > 0, "{name}: {answer:?}");
        // Each worker has one below the container's own, with the invocation's limit.
        let container = kubelet.cgroup(&wasmbox, "cpu.cfs_quota_us");
        let leaves = fs::read_dir(container.join("box")).expect("the subtree").flatten().map(|entry| entry.path());
        let leaves: Vec<_> = leaves.filter(|path| path.is_dir()).collect();
        let quota = |leaf: &PathBuf| fs::read_to_string(leaf.join("cpu.cfs_quota_us")).expect("a quota");
        assert!(leaves.iter().any(|leaf| quota(leaf) == "50000\n"), "{name}: {leaves:?}");
        assert_eq!(kubelet.cgroup_file(&wasmbox, "cpu.cfs_quota_us"), "120000", "{name}");
        assert_eq!(kubelet.cgroup_file(&wasmbox, "memory.limit_in_bytes"), (192 * MIB).to_string(), "{name}");
        kubelet.cri.remove(&pod);
    }
}

fn the_annotation_says_which_container_is_a_box(version: Version) {
    let kubelet = Kubelet::new(version);
    let annotation = |value: &str| HashMap::from([("wasmbox.dev/container".to_owned(), value.to_owned())]);
    // Of the pod: names of containers.
    let pod = kubelet.cri.run(SandboxConfig { annotations: annotation("user-container"), ..kubelet.sandbox("by-pod") });
    let sleep = ["/bin/sleep", "1000"];
    let mut config = busybox("user-container", &sleep);
    config.mounts = kubelet.wasmbox("x").mounts;
    config.envs.push(env("FUNCTIONS_DIR", "/functions"));
    kubelet.cri.start(&pod, config.clone());
    let other = kubelet.cri.start(&pod, busybox("other", &sleep));
    assert_eq!(kubelet.ask(&pod, PORT, "/hi").text(), "hello\n");
    let words = fs::read_to_string(kubelet.process(&other).join("cmdline")).expect("it runs");
    assert_eq!(words, "/bin/sleep\x001000\0");
    kubelet.cri.remove(&pod);
    // Of the container.
    let pod = kubelet.pod("by-container");
    kubelet.cri.start(&pod, ContainerConfig { annotations: annotation("true"), ..config.clone() });
    assert_eq!(kubelet.ask(&pod, PORT, "/hi").text(), "hello\n");
    let refused =
        kubelet.cri.try_create(&pod, ContainerConfig { annotations: annotation("No, thanks"), ..busybox("x", &sleep) });
    let refused = refused.and_then(|id| kubelet.cri.try_start(&id)).expect_err("no value for it");
    assert!(refused.message().contains("wasmbox.dev/container"), "{refused}");
    kubelet.cri.remove(&pod);
}

fn an_option_that_is_not_known_is_named(version: Version) {
    let kubelet = Kubelet::configured(version, "BinryName = 'runc'");
    let refused = kubelet.cri.try_run(kubelet.sandbox("unknown")).expect_err("there is no such option");
    assert!(refused.message().contains("BinryName"), "{refused}");
}

fn a_runtime_that_is_not_there_is_named(version: Version) {
    let kubelet = Kubelet::configured(version, "BinaryName = '/no/such/runtime'");
    let refused = kubelet.cri.try_run(kubelet.sandbox("absent")).expect_err("there is no such runtime");
    assert!(refused.message().contains("/no/such/runtime"), "{refused}");
}

fn options_take_effect(version: Version) {
    let options = "Root = '/run/elsewhere'\nEnv = { FUNCTIONS_DIR = '/functions' }";
    let kubelet = Kubelet::configured(version, options);
    let pod = kubelet.pod("options");
    let mut config = kubelet.wasmbox("box");
    config.command = ["wasmbox", "serve"].map(String::from).to_vec();
    let wasmbox = kubelet.cri.start(&pod, config);
    assert_eq!(kubelet.ask(&pod, PORT, "/hi").text(), "hello\n");
    let state = kubelet.containerd.node().path("/run/elsewhere/k8s.io");
    assert!(state.join(&wasmbox).is_dir(), "{state:?}");
    kubelet.cri.remove(&pod);
    assert_eq!(fs::read_dir(&state).expect("it stays").count(), 0);
}
