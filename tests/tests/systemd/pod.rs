//! A pod of a box and a sidecar, and what a kubelet does to it.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use wasmbox_tests::{
    Answer, ContainerConfig, Cri, Request,
    client::exchange_alone,
    cri::{ContainerState, KeyValue, LinuxContainer, Mount, Pod, Resources, SOCKET},
    eventually,
};

use super::node::{FUNCTIONS, SLICE, cgroup, nothing_is_left, prepare};

const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8095);
pub const MIB: i64 = 1 << 20;
const NAME: &str = "pod";
/// Names a pod for who comes after the node's new start.
const NOTE: &str = "/srv/pod";

/// A pod of a box and a sidecar, on the node's network.
pub struct Boxed {
    pub cri: Cri,
    pub pod: Pod,
    /// The box's.
    pub config: ContainerConfig,
    pub function_box: String,
    pub sidecar: String,
}

impl Boxed {
    pub fn new() -> Boxed {
        prepare();
        Boxed::run()
    }

    /// On a node that is prepared.
    pub fn run() -> Boxed {
        let cri = cri();
        let pod = cri.run(cri.sandbox_in_node_network(NAME));
        let config = function_box();
        let function_box = cri.start(&pod, config.clone());
        let sleeps = ContainerConfig::new("sidecar", "docker.io/library/busybox:test", &["/bin/sleep", "100000"]);
        let sidecar = cri.start(&pod, sleeps);
        let pod = Boxed { cri, pod, config, function_box, sidecar };
        pod.answers();
        pod
    }

    /// For [`Boxed::noted`], when the node has been switched off.
    pub fn note(&self) {
        fs::write(NOTE, [&*self.pod.id, &self.function_box, &self.sidecar].join("\n")).expect("a new file");
    }

    pub fn noted() -> Boxed {
        let ids = fs::read_to_string(NOTE).expect("what was noted");
        let [pod, function_box, sidecar] =
            ids.lines().map(str::to_owned).collect::<Vec<_>>().try_into().expect("three ids");
        let cri = cri();
        let pod = Pod { id: pod, config: cri.sandbox_in_node_network(NAME) };
        Boxed { cri, pod, config: self::function_box(), function_box, sidecar }
    }

    pub fn answers(&self) {
        assert_eq!(eventually("the box answers", || ask(Request::get("/hi"))).text(), "hello\n");
    }

    /// As a kubelet starts a container anew that has ended.
    pub fn start_box_again(&mut self) {
        self.config.metadata.as_mut().expect("a name").attempt += 1;
        let ended = std::mem::replace(&mut self.function_box, self.cri.start(&self.pod, self.config.clone()));
        self.cri.remove_container(&ended);
        self.answers();
    }

    /// After a new start of containerd.
    pub fn reconnect(&mut self) {
        self.cri = cri();
    }

    pub fn all_run(&self) {
        for container in [&self.function_box, &self.sidecar] {
            assert_eq!(self.cri.status(container).state, ContainerState::Running as i32);
        }
    }

    /// What containerd says of containers whose end it could not see, or could not see all of.
    pub fn all_ended(&self) {
        for container in [&self.function_box, &self.sidecar] {
            let code = self.cri.ended(container).exit_code;
            assert!([137, 255].contains(&code), "{code}");
        }
    }

    pub fn cgroup(&self) -> PathBuf {
        cgroup(&self.function_box)
    }

    pub fn remove(self) {
        self.cri.remove(&self.pod);
        nothing_is_left();
    }
}

fn cri() -> Cri {
    Cri::at(Path::new(SOCKET), &format!("/kubepods.slice/{SLICE}"))
}

fn function_box() -> ContainerConfig {
    let limits =
        Resources { memory_limit_in_bytes: 256 * MIB, cpu_period: 100_000, cpu_quota: 100_000, ..Resources::default() };
    ContainerConfig {
        envs: vec![KeyValue { key: "ENABLE_CGROUPS".into(), value: "true".into() }],
        mounts: vec![Mount {
            container_path: "/functions".into(),
            host_path: FUNCTIONS.into(),
            readonly: true,
            ..Mount::default()
        }],
        linux: Some(LinuxContainer { resources: Some(limits), security: None }),
        ..ContainerConfig::new("box", "docker.io/library/box:test", &[])
    }
}

pub fn ask(request: http::request::Builder) -> Option<Answer> {
    exchange_alone(ADDRESS, request, bytes::Bytes::new()).ok().filter(|answer| answer.status != 503)
}
