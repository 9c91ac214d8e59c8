//! The pod that Knative makes: its queue-proxy as it is released, in the environment that its controller gives it, beside a box.

use std::{
    io::{Read, Write},
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
    time::Duration,
};

use wasmbox_tests::{patience::SetOnDrop, workspace};

use super::*;

/// Where queue-proxy answers the hook that the kubelet calls before it ends the box.
const HOOK_PORT: u16 = 8022;

macro_rules! with_queue_proxy {
    ($($test:ident),* $(,)?) => {
        mod containerd_1_7 { $(#[test] #[ignore = "needs Go: make e2e"] fn $test() { super::$test(super::Version::V1_7); })* }
        mod containerd_2_3 { $(#[test] #[ignore = "needs Go: make e2e"] fn $test() { super::$test(super::Version::V2_3); })* }
    };
}

with_queue_proxy!(queue_proxy_passes_on_and_probes, a_rolling_stop_under_load_loses_no_request);

struct KnativePod {
    pod: Pod,
    wasmbox: String,
    queue_proxy: String,
    address: SocketAddr,
}

impl KnativePod {
    fn start(kubelet: &Kubelet, name: &str) -> KnativePod {
        let pod = kubelet.pod(name);
        let limits = Resources { cpu_period: 100_000, cpu_quota: 150_000, cpu_shares: 512, ..memory(256) };
        let config = ContainerConfig { linux: restricted(BOX, limits), ..kubelet.wasmbox("user-container") };
        let wasmbox = kubelet.cri.start(&pod, config);
        let probe =
            r#"{"httpGet":{"path":"/-/ready","port":8095,"host":"127.0.0.1","scheme":"HTTP"},"successThreshold":1}"#;
        let address = kubelet.cri.address(&pod);
        let environment = [
            ("SERVING_NAMESPACE", "default"),
            ("SERVING_SERVICE", "hello"),
            ("SERVING_CONFIGURATION", "hello"),
            ("SERVING_REVISION", "hello-00001"),
            ("SERVING_POD", name),
            ("SERVING_POD_IP", &address.to_string()),
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
        let config = ContainerConfig {
            envs: environment.iter().map(|(key, value)| env(key, value)).collect(),
            linux: restricted(SIDECAR, Resources { cpu_shares: 25, ..memory(128) }),
            ..ContainerConfig::new("queue-proxy", "docker.io/library/queue:test", &[])
        };
        let queue_proxy = kubelet.cri.start(&pod, config);
        let pod = KnativePod { pod, wasmbox, queue_proxy, address: SocketAddr::new(address, SIDECAR_PORT) };
        // As the kubelet asks whether the pod is ready: queue-proxy asks the box.
        let ready = eventually("the pod is ready", || pod.probe(kubelet).filter(|answer| answer.status == 200));
        assert_eq!(ready.text(), "queue");
        pod
    }

    fn probe(&self, kubelet: &Kubelet) -> Option<Answer> {
        let probe = Request::get("/").header("User-Agent", "kube-probe/1.36").header("K-Network-Probe", "queue");
        kubelet.containerd.node().call(self.address, probe, "").ok()
    }

    /// As the kubelet ends a pod: the box's hook, then SIGTERM; queue-proxy gets it at once.
    fn end(&self, kubelet: &Kubelet) {
        let grace = Duration::from_secs(90);
        thread::scope(|scope| {
            scope.spawn(|| {
                let hook = SocketAddr::new(self.address.ip(), HOOK_PORT);
                let mut hook = kubelet.containerd.node().connect(hook).expect("queue-proxy serves the hook");
                let request = "GET /wait-for-drain HTTP/1.1\r\nHost: queue\r\nConnection: close\r\n\r\n";
                hook.write_all(request.as_bytes()).expect("queue-proxy reads");
                let mut answer = String::new();
                hook.read_to_string(&mut answer).expect("queue-proxy answers");
                assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
                kubelet.cri.stop(&self.wasmbox, grace);
            });
            scope.spawn(|| kubelet.cri.stop(&self.queue_proxy, grace));
        });
        for container in [&self.wasmbox, &self.queue_proxy] {
            let status = kubelet.cri.status(container);
            assert_eq!(status.exit_code, 0, "{status:?}");
        }
        kubelet.cri.remove(&self.pod);
    }
}

fn kubelet_with_queue_proxy(version: Version) -> Kubelet {
    let kubelet = Kubelet::new(version);
    let queue = fs::read(workspace::tool("go/queue")).expect("the binary can be read");
    let image = Image::of("queue").file("ko-app/queue", queue).entrypoint(&["/ko-app/queue"]).build();
    kubelet.containerd.import(&image);
    kubelet
}

fn queue_proxy_passes_on_and_probes(version: Version) {
    let kubelet = kubelet_with_queue_proxy(version);
    let pod = KnativePod::start(&kubelet, "knative");
    let answer = kubelet.ask(&pod.pod, SIDECAR_PORT, "/hi");
    let log = kubelet.log(&pod.pod, "queue-proxy.log");
    assert_eq!((answer.status, answer.text()), (200, "hello\n"), "{answer:?}\n{log}");
    assert_eq!(field(&kubelet.process(&pod.queue_proxy), "status", "CapEff"), "0000000000000000");
    // Not asked for a drain: the box goes at once.
    kubelet.cri.stop(&pod.wasmbox, Duration::from_secs(30));
    assert_eq!(kubelet.cri.status(&pod.wasmbox).exit_code, 0);
    kubelet.cri.remove(&pod.pod);
}

/// A pod takes the place of another while requests come without end: those that run when the old one is told to end, and those that still
/// reach it, are answered, too.
fn a_rolling_stop_under_load_loses_no_request(version: Version) {
    const CLIENTS: usize = 4;
    let kubelet = kubelet_with_queue_proxy(version);
    let nap = guest::printing("rested\n", "(call $sleep (i64.const 300))");
    fs::write(kubelet.containerd.directory().join("functions/nap.wat"), nap).expect("a new file");
    let old = KnativePod::start(&kubelet, "old");
    let new = KnativePod::start(&kubelet, "new");
    let (is_old_listed, is_over) = (AtomicBool::new(true), AtomicBool::new(false));
    let answered = [AtomicU32::new(0), AtomicU32::new(0)];
    let ask = || {
        while !is_over.load(Ordering::Relaxed) {
            let (pod, number) = if is_old_listed.load(Ordering::Relaxed) { (&old, 0) } else { (&new, 1) };
            let request = Request::get("/nap").header("Memory-Request", "16");
            let answer = kubelet.containerd.node().call(pod.address, request, "").expect("a whole answer");
            assert_eq!((answer.status, answer.text()), (200, "rested\n"), "pod {number}: {answer:?}");
            answered[number].fetch_add(1, Ordering::Relaxed);
        }
    };
    let enough = |number: usize| {
        let more = answered[number].load(Ordering::Relaxed) + 2 * CLIENTS as u32;
        eventually("requests are answered", || (answered[number].load(Ordering::Relaxed) >= more).then_some(()));
    };
    thread::scope(|scope| {
        let end = SetOnDrop(&is_over);
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(ask)).collect();
        enough(0);
        let ending = scope.spawn(|| old.end(&kubelet));
        // Who lists the pods learns of it a little later.
        enough(0);
        is_old_listed.store(false, Ordering::Relaxed);
        enough(1);
        let ended = ending.join();
        enough(1);
        drop(end);
        for client in clients {
            client.join().expect("no request is lost");
        }
        ended.expect("the old pod ends");
    });
    kubelet.cri.remove(&new.pod);
}
