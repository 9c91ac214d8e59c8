//! A pod of a box and a sidecar, and what a kubelet does to it.

use std::{
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
        let cri = Cri::at(Path::new(SOCKET), &format!("/kubepods.slice/{SLICE}"));
        let pod = cri.run(cri.sandbox_in_node_network("pod"));
        let limits = Resources {
            memory_limit_in_bytes: 256 * MIB,
            cpu_period: 100_000,
            cpu_quota: 100_000,
            ..Resources::default()
        };
        let config = ContainerConfig {
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
        let function_box = cri.start(&pod, config.clone());
        let sleeps = ContainerConfig::new("sidecar", "docker.io/library/busybox:test", &["/bin/sleep", "100000"]);
        let sidecar = cri.start(&pod, sleeps);
        let pod = Boxed { cri, pod, config, function_box, sidecar };
        pod.answers();
        pod
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
        self.cri = Cri::at(Path::new(SOCKET), &format!("/kubepods.slice/{SLICE}"));
    }

    pub fn all_run(&self) {
        for container in [&self.function_box, &self.sidecar] {
            assert_eq!(self.cri.status(container).state, ContainerState::Running as i32);
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

pub fn ask(request: http::request::Builder) -> Option<Answer> {
    exchange_alone(ADDRESS, request, bytes::Bytes::new()).ok().filter(|answer| answer.status != 503)
}
