//! From a container's start to its end: usage, changed limits, grace periods, restarts, lack of memory.

use std::{thread, time::Duration};

use rustix::process::Signal;
use wasmbox_tests::{metrics::Metrics, on_each_version, process::Process};

use super::*;

on_each_version!(
    usage_is_told,
    limits_can_be_changed,
    ends_with_grace_or_by_force,
    one_container_is_started_anew,
    nothing_outlives_the_first_process,
    lack_of_memory_is_told,
    a_function_over_its_limit_does_not_end_the_box,
);

/// Any longer would end the test, not the container.
const GRACE: Duration = Duration::from_secs(20);

fn pid(process: &Path) -> u32 {
    process.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok()).expect("a number in /proc")
}

fn usage_is_told(version: Version) {
    let kubelet = Kubelet::new(version);
    let pod = kubelet.pod("usage");
    let busy = kubelet.cri.start(&pod, busybox("busy", &["/bin/sh", "-c", "while :; do :; done"]));
    let wasmbox = kubelet.cri.start(&pod, kubelet.wasmbox("box"));
    kubelet.ask(&pod, PORT, "/hi");
    for container in [&busy, &wasmbox] {
        let usage = || {
            let stats = kubelet.cri.stats(container);
            let cpu = stats.cpu.and_then(|cpu| cpu.core_nanoseconds).map_or(0, |time| time.value);
            let memory = stats.memory.and_then(|memory| memory.working_set_bytes).map_or(0, |bytes| bytes.value);
            (cpu, memory)
        };
        let (before, _) =
            eventually("usage", || Some(usage()).filter(|&(cpu, memory)| cpu > 1_000_000 && memory > 4096));
        kubelet.ask(&pod, PORT, "/hi");
        eventually("more CPU time", || (usage().0 > before).then_some(()));
    }
    kubelet.cri.remove(&pod);
}

fn limits_can_be_changed(version: Version) {
    let kubelet = Kubelet::new(version);
    let pod = kubelet.pod("update");
    let limits = |cpu_quota, mebibytes| Resources { cpu_period: 100_000, cpu_quota, ..memory(mebibytes) };
    let sleep = ["/bin/sleep", "1000"];
    let sidecar =
        kubelet.cri.start(&pod, ContainerConfig { linux: limited(limits(80_000, 32)), ..busybox("sidecar", &sleep) });
    let config = ContainerConfig { linux: restricted(1000, limits(100_000, 256)), ..kubelet.wasmbox("box") };
    let wasmbox = kubelet.cri.start(&pod, config);
    // A worker stays in its cgroup, with 500 millicores.
    kubelet.ask(&pod, PORT, "/hi");
    for (cpu, mebibytes) in [(20_000, 192), (30_000, 320), (150_000, 256)] {
        for container in [&sidecar, &wasmbox] {
            kubelet.cri.update(container, limits(cpu, mebibytes));
            assert_eq!(kubelet.cgroup_file(container, "cpu.cfs_quota_us"), cpu.to_string());
            assert_eq!(kubelet.cgroup_file(container, "memory.limit_in_bytes"), (mebibytes * MIB).to_string());
        }
        // The box has noticed: so much is admitted at once, a quarter of it by default, half of it at most.
        eventually("the box's new limit", || {
            let status = kubelet.ask(&pod, ADMIN_PORT, "/status");
            let status: serde_json::Value = serde_json::from_str(status.text()).expect("JSON");
            let now = [&status["memory"]["limit_bytes"], &status["capacity"]["units"]];
            (now == [mebibytes * MIB, mebibytes]).then_some(())
        });
        assert_eq!(kubelet.ask(&pod, PORT, "/hi").status, 200);
        let address = SocketAddr::new(kubelet.cri.address(&pod), PORT);
        for (more, status) in [(0, 200), (1, 400)] {
            let request = Request::get("/hi").header("Memory-Request", (mebibytes / 2 + more).to_string());
            let answer = kubelet.containerd.node().call(address, request, "").expect("an answer");
            assert_eq!(answer.status, status, "{mebibytes}: {answer:?}");
        }
    }
    // The invocation's own limit is back.
    let subtree = kubelet.cgroup(&wasmbox, "cpu.cfs_quota_us").join("box");
    let leaves =
        fs::read_dir(subtree).expect("the subtree").flatten().map(|entry| entry.path().join("cpu.cfs_quota_us"));
    let quotas: Vec<_> = leaves.filter_map(|quota| fs::read_to_string(quota).ok()).collect();
    assert!(quotas.iter().all(|quota| quota == "50000\n" || quota == "-1\n"), "{quotas:?}");
    kubelet.cri.remove(&pod);
}

fn ends_with_grace_or_by_force(version: Version) {
    let kubelet = Kubelet::new(version);
    let slow = kubelet.containerd.directory().join("functions/slow.wat");
    fs::write(slow, guest::growing(1, 4000)).expect("a new file");
    let pod = kubelet.pod("stop");
    let wasmbox = kubelet.cri.start(&pod, kubelet.wasmbox("box"));
    kubelet.ask(&pod, PORT, "/hi");
    // What runs when the box is told to end is answered.
    let answer = thread::scope(|scope| {
        let asked = scope.spawn(|| kubelet.ask(&pod, PORT, "/slow"));
        eventually("it runs", || {
            let metrics = Metrics::new(kubelet.ask(&pod, ADMIN_PORT, "/metrics").ok().text().to_owned());
            (metrics.sum("wasmbox_in_flight_invocations", &["function=\"slow\""]) == 1.0).then_some(())
        });
        kubelet.cri.stop(&wasmbox, GRACE);
        asked.join().expect("asking does not panic")
    });
    assert_eq!((answer.status, answer.text()), (200, "done\n"), "{answer:?}");
    let status = kubelet.cri.status(&wasmbox);
    assert_eq!((status.exit_code, status.reason.as_str()), (0, "Completed"), "{status:?}");
    let deaf = ["/bin/sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 1; done"];
    let deaf = kubelet.cri.start(&pod, busybox("deaf", &deaf));
    eventually("it is deaf", || kubelet.log(&pod, "deaf.log").contains("deaf").then_some(()));
    kubelet.cri.stop(&deaf, Duration::from_secs(1));
    let status = kubelet.cri.status(&deaf);
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "Error"), "{status:?}");
    kubelet.cri.remove(&pod);
}

fn one_container_is_started_anew(version: Version) {
    let kubelet = Kubelet::new(version);
    let pod = kubelet.pod("restart");
    let sidecar = kubelet.cri.start(&pod, busybox("sidecar", &["/bin/sleep", "1000"]));
    let shims = kubelet.containerd.shims();
    let neighbour = kubelet.process(&sidecar);
    let mut config = kubelet.wasmbox("box");
    let mut old = None;
    for attempt in 0..3 {
        config.metadata.as_mut().expect("a name").attempt = attempt;
        let wasmbox = kubelet.cri.start(&pod, config.clone());
        let answer = kubelet.ask(&pod, PORT, "/hi");
        assert_eq!(answer.text(), "hello\n", "{answer:?}");
        Process(pid(&kubelet.process(&wasmbox))).signal(Signal::KILL);
        let status = kubelet.cri.ended(&wasmbox);
        assert_eq!((status.exit_code, status.reason.as_str()), (137, "Error"), "{status:?}");
        // The one before stays until its successor is there, for its log.
        if let Some(old) = old.replace(wasmbox) {
            kubelet.cri.remove_container(&old);
        }
    }
    assert_eq!(kubelet.process(&sidecar), neighbour);
    assert_eq!(kubelet.containerd.shims(), shims);
    kubelet.cri.remove(&pod);
}

/// In a pid namespace that is the pod's, or the node's, the kernel does not end the others with the first.
fn nothing_outlives_the_first_process(version: Version) {
    let kubelet = Kubelet::new(version);
    for (name, pid) in [("shared", 0), ("own", 1), ("host", 2)] {
        let namespaces = Some(Namespaces { network: 0, pid, ipc: 0, users: None });
        let mut config = kubelet.sandbox(name);
        let security = SandboxSecurity { namespaces: namespaces.clone(), seccomp: None };
        config.linux.as_mut().expect("a cgroup").security = Some(security);
        let pod = kubelet.cri.run(config);
        let security = Some(ContainerSecurity { namespaces, ..ContainerSecurity::default() });
        let brief = ContainerConfig {
            linux: Some(LinuxContainer { resources: None, security: security.clone() }),
            ..busybox("brief", &["/bin/sh", "-c", "sleep 1000 & sleep 1; exit 3"])
        };
        let sidecar = ContainerConfig {
            linux: Some(LinuxContainer { resources: None, security }),
            ..busybox("sidecar", &["/bin/sleep", "2000"])
        };
        let sidecar = kubelet.cri.start(&pod, sidecar);
        let brief = kubelet.cri.start(&pod, brief);
        // Also the log is closed by then, which what is left would hold open.
        assert_eq!(kubelet.cri.ended(&brief).exit_code, 3, "{name}");
        let processes = kubelet.containerd.node().processes();
        assert!(!processes.iter().any(|(_, words)| words.contains("sleep 1000")), "{name}: {processes:#?}");
        assert_eq!(kubelet.cri.status(&sidecar).state, ContainerState::Running as i32, "{name}");
        kubelet.cri.remove(&pod);
    }
}

fn lack_of_memory_is_told(version: Version) {
    let kubelet = Kubelet::new(version);
    let events = kubelet.containerd.events();
    let pod = kubelet.pod("memory");
    let fill = ["/bin/dd", "if=/dev/zero", "of=/dev/null", "bs=256M", "count=1"];
    let ordinary = kubelet.cri.start(&pod, ContainerConfig { linux: limited(memory(64)), ..busybox("fill", &fill) });
    let config = ContainerConfig { linux: limited(memory(512)), ..kubelet.wasmbox("box") };
    let wasmbox = kubelet.cri.start(&pod, config);
    kubelet.ask(&pod, PORT, "/hi");
    // A box keeps below its limit, also below a changed one, whatever its guests do. So somebody else fills its cgroup, with a file in memory.
    kubelet.cri.update(&wasmbox, memory(96));
    let processes = kubelet.cgroup(&wasmbox, "memory.limit_in_bytes").join("cgroup.procs");
    let fill = format!("echo $$ >{} && exec dd if=/dev/zero of=/run/fill bs=1M count=90", processes.display());
    // It ends with the box, whose cgroup it is in, or before.
    kubelet.containerd.node().run(kubelet.containerd.node().command("sh").args(["-c", &fill]));
    for container in [&ordinary, &wasmbox] {
        let status = kubelet.cri.ended(container);
        assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"), "{status:?}");
        events.until(container, "/tasks/oom");
        let topics: Vec<_> = events.of(container).into_iter().map(|event| event.topic).collect();
        let place = |topic: &str| topics.iter().position(|known| known == topic);
        assert!(place("/tasks/oom") < place("/tasks/exit"), "{topics:?}");
        // One for each process that the kernel killed: who fills the box's cgroup may be the first.
        assert!((1..=2).contains(&topics.iter().filter(|topic| *topic == "/tasks/oom").count()), "{topics:?}");
    }
    kubelet.cri.remove(&pod);
}

fn a_function_over_its_limit_does_not_end_the_box(version: Version) {
    let kubelet = Kubelet::new(version);
    let functions = kubelet.containerd.directory().join("functions");
    fs::write(functions.join("hungry.wat"), guest::hungry()).expect("a new file");
    let events = kubelet.containerd.events();
    let pod = kubelet.pod("guests");
    let config = ContainerConfig { linux: restricted(1000, memory(192)), ..kubelet.wasmbox("box") };
    let wasmbox = kubelet.cri.start(&pod, config);
    kubelet.ask(&pod, PORT, "/hi");
    let address = SocketAddr::new(kubelet.cri.address(&pod), PORT);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let request = Request::get("/hungry").header("Memory-Request", "64");
                let answer = kubelet.containerd.node().call(address, request, "").expect("the box lives");
                let code = answer.headers.get("wasmbox-error").and_then(|code| code.to_str().ok()).unwrap_or_default();
                // Or it is evicted, before the kernel would end the box.
                assert!(["guest-memory-limit", "evicted", "queue-full", "queue-timeout"].contains(&code), "{answer:?}");
            });
        }
    });
    assert_eq!(kubelet.ask(&pod, PORT, "/hi").text(), "hello\n");
    assert_eq!(kubelet.cri.status(&wasmbox).state, ContainerState::Running as i32);
    assert!(events.of(&wasmbox).iter().all(|event| event.topic != "/tasks/oom"));
    kubelet.cri.remove(&pod);
}

/// An upgrade puts new files in the place of those that run.
#[test]
fn boxes_start_again_in_pods_that_are_older_than_the_binaries() {
    let kubelet = Kubelet::new(Version::V1_7);
    let pod = kubelet.pod("older");
    let first = kubelet.cri.start(&pod, kubelet.wasmbox("user-container"));
    assert_eq!(kubelet.ask(&pod, PORT, "/hi").text(), "hello\n");
    for name in ["wasmbox", "containerd-shim-wasmbox-v1"] {
        let path = kubelet.containerd.directory().join("bin").join(name);
        let new = path.with_extension("new");
        fs::copy(&path, &new).expect("the binary can be copied");
        fs::rename(&new, &path).expect("our own directory");
    }
    kubelet.cri.stop(&first, Duration::from_secs(10));
    kubelet.cri.remove_container(&first);
    kubelet.cri.start(&pod, kubelet.wasmbox("user-container"));
    assert_eq!(kubelet.ask(&pod, PORT, "/hi").text(), "hello\n");
    kubelet.cri.remove(&pod);
}
