//! The Kubernetes Container Runtime Interface: what a kubelet says to containerd. Of `runtime.v1` the calls that tests use, and
//! their messages.

mod container;
mod message;
mod sandbox;
mod stream;

use std::{net::IpAddr, path::Path, time::Duration};

use http::uri::PathAndQuery;
use prost::Message;
use tonic::{
    Status,
    client::Grpc,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

pub use self::{container::*, message::*, sandbox::*, stream::*};
use crate::{Containerd, eventually, node::Node, patience::PATIENCE};

/// containerd's own default.
pub const SOCKET: &str = "/run/containerd/containerd.sock";
/// `NamespaceMode.NODE`.
const NODE: i32 = 2;

/// containerd's CRI plugin.
pub struct Cri {
    runtime: tokio::runtime::Runtime,
    channel: Channel,
    cgroup_parent: String,
}

/// A running sandbox.
#[derive(Debug, Clone)]
pub struct Pod {
    pub id: String,
    pub config: SandboxConfig,
}

impl Cri {
    /// # Panics
    /// If containerd does not answer.
    pub fn of(containerd: &Containerd) -> Cri {
        Cri::on(containerd.node())
    }

    /// Of the containerd that runs on a node, by its default address. Pods are made in the node's cgroup.
    ///
    /// # Panics
    /// If it does not answer.
    pub fn on(node: &Node) -> Cri {
        Cri::at(&node.path(SOCKET), &format!("/{}", node.name()))
    }

    /// # Panics
    /// If nobody answers there.
    pub fn at(socket: &Path, cgroup_parent: &str) -> Cri {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime for a client");
        let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display())).expect("a socket's address");
        // A container may be given a minute to end.
        let channel = runtime.block_on(endpoint.timeout(PATIENCE * 4).connect()).expect("containerd listens");
        let cri = Cri { runtime, channel, cgroup_parent: cgroup_parent.to_owned() };
        eventually("the CRI plugin is ready", || {
            cri.call::<_, Version>("Version", Version { version: "v1".into(), ..Version::default() }).ok()
        });
        cri
    }

    /// One call of the runtime service.
    ///
    /// # Errors
    /// containerd's.
    pub fn call<Q, A>(&self, name: &str, request: Q) -> Result<A, Status>
    where
        Q: Message + Default + 'static,
        A: Message + Default + 'static,
    {
        self.call_of("RuntimeService", name, request)
    }

    fn call_of<Q, A>(&self, service: &str, name: &str, request: Q) -> Result<A, Status>
    where
        Q: Message + Default + 'static,
        A: Message + Default + 'static,
    {
        let path: PathAndQuery = format!("/runtime.v1.{service}/{name}").parse().expect("a path");
        self.runtime.block_on(async {
            let mut client = Grpc::new(self.channel.clone());
            client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
            let codec = ProstCodec::<Q, A>::default();
            Ok(client.unary(tonic::Request::new(request), path, codec).await?.into_inner())
        })
    }

    /// Pulls an image.
    ///
    /// # Errors
    /// containerd's.
    pub fn pull(&self, image: &str) -> Result<(), Status> {
        let request = PullImage { image: Some(Id { id: image.into() }) };
        self.call_of("ImageService", "PullImage", request).map(|Id { .. }| ())
    }

    /// A sandbox's configuration, in the test's cgroup.
    pub fn sandbox(&self, name: &str) -> SandboxConfig {
        SandboxConfig {
            metadata: Some(SandboxMetadata {
                name: name.into(),
                uid: format!("uid-{name}"),
                namespace: "default".into(),
                attempt: 0,
            }),
            hostname: name.into(),
            linux: Some(LinuxSandbox { cgroup_parent: self.cgroup_parent.clone(), ..LinuxSandbox::default() }),
            ..SandboxConfig::default()
        }
    }

    /// The same in the network of the node, whose name it has then.
    pub fn sandbox_in_node_network(&self, name: &str) -> SandboxConfig {
        let sandbox = self.sandbox(name);
        let namespaces = Some(Namespaces { network: NODE, ..Namespaces::default() });
        let security = Some(SandboxSecurity { namespaces, ..SandboxSecurity::default() });
        let linux = sandbox.linux.map(|linux| LinuxSandbox { security, ..linux });
        SandboxConfig { hostname: String::new(), linux, ..sandbox }
    }

    /// # Errors
    /// containerd's.
    pub fn try_run(&self, config: SandboxConfig) -> Result<Pod, Status> {
        let request = RunPodSandbox { config: Some(config.clone()), runtime_handler: "wasmbox".into() };
        let Id { id } = self.call("RunPodSandbox", request)?;
        Ok(Pod { id, config })
    }

    /// Runs a sandbox with the runtime handler `wasmbox`.
    ///
    /// # Panics
    /// With containerd's error, if it fails.
    pub fn run(&self, config: SandboxConfig) -> Pod {
        self.try_run(config).expect("the sandbox runs")
    }

    fn pod_status(&self, pod: &Pod) -> SandboxStatus {
        let answer: PodStatus = self.call("PodSandboxStatus", Id { id: pod.id.clone() }).expect("the pod is there");
        answer.status.expect("the pod has a status")
    }

    /// Whether its sandbox runs.
    ///
    /// # Panics
    /// With containerd's error, if it fails.
    pub fn is_ready(&self, pod: &Pod) -> bool {
        /// `PodSandboxState.SANDBOX_READY`.
        const READY: i32 = 0;
        self.pod_status(pod).state == READY
    }

    /// The pod's address.
    ///
    /// # Panics
    /// If it has none.
    pub fn address(&self, pod: &Pod) -> IpAddr {
        let network = self.pod_status(pod).network.expect("the pod has a network");
        network.ip.parse().expect("an address")
    }

    /// # Errors
    /// containerd's.
    pub fn try_create(&self, pod: &Pod, config: ContainerConfig) -> Result<String, Status> {
        let request =
            CreateContainer { sandbox: pod.id.clone(), config: Some(config), sandbox_config: Some(pod.config.clone()) };
        self.call("CreateContainer", request).map(|Id { id }| id)
    }

    /// # Errors
    /// containerd's.
    pub fn try_start(&self, container: &str) -> Result<(), Status> {
        self.call("StartContainer", Id { id: container.into() }).map(|Nothing {}| ())
    }

    /// Creates and starts a container; gives its id.
    ///
    /// # Panics
    /// With containerd's error, if it fails.
    pub fn start(&self, pod: &Pod, config: ContainerConfig) -> String {
        let id = self.try_create(pod, config).expect("the container is created");
        self.try_start(&id).expect("the container starts");
        id
    }

    /// # Panics
    /// With containerd's error, if it fails.
    pub fn status(&self, container: &str) -> ContainerStatus {
        let answer: ContainerStatusAnswer =
            self.call("ContainerStatus", Id { id: container.into() }).expect("the container is there");
        answer.status.expect("the container has a status")
    }

    /// Waits for a container's end, and gives its last status.
    pub fn ended(&self, container: &str) -> ContainerStatus {
        eventually("the container's end", || {
            Some(self.status(container)).filter(|status| status.state == ContainerState::Exited as i32)
        })
    }

    /// A command in a container, to its end: exit code, standard output and standard error.
    ///
    /// # Errors
    /// containerd's.
    pub fn exec(&self, container: &str, words: &[&str]) -> Result<(i32, String, String), Status> {
        let request = ExecSync {
            container: container.into(),
            command: words.iter().map(|&word| word.into()).collect(),
            timeout: PATIENCE.as_secs().try_into().expect("seconds"),
        };
        let answer: ExecSyncAnswer = self.call("ExecSync", request)?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok((answer.exit_code, text(answer.stdout), text(answer.stderr)))
    }

    /// SIGTERM, then after `grace` SIGKILL.
    ///
    /// # Panics
    /// With containerd's error, if it fails.
    pub fn stop(&self, container: &str, grace: Duration) {
        let timeout = grace.as_secs().try_into().expect("seconds");
        let request = StopContainer { container: container.into(), timeout };
        self.call::<_, Nothing>("StopContainer", request).expect("the container stops");
    }

    /// # Panics
    /// With containerd's error, if it fails.
    pub fn remove_container(&self, container: &str) {
        self.call::<_, Nothing>("RemoveContainer", Id { id: container.into() }).expect("the container goes");
    }

    /// Stops and removes a pod with all of its containers.
    ///
    /// # Panics
    /// With containerd's error, if it fails.
    pub fn remove(&self, pod: &Pod) {
        self.call::<_, Nothing>("StopPodSandbox", Id { id: pod.id.clone() }).expect("the pod stops");
        self.call::<_, Nothing>("RemovePodSandbox", Id { id: pod.id.clone() }).expect("the pod goes");
    }

    /// # Panics
    /// With containerd's error, if it fails.
    pub fn stats(&self, container: &str) -> ContainerStats {
        let answer: ContainerStatsAnswer =
            self.call("ContainerStats", Id { id: container.into() }).expect("the container has statistics");
        answer.stats.expect("the container has statistics")
    }

    /// Changes a container's limits.
    ///
    /// # Panics
    /// With containerd's error, if it fails.
    pub fn update(&self, container: &str, resources: Resources) {
        let request = UpdateResources { container: container.into(), linux: Some(resources) };
        self.call::<_, Nothing>("UpdateContainerResources", request).expect("the limits can be changed");
    }

    /// Where containerd streams an exec, an attachment or a forwarded port.
    ///
    /// # Panics
    /// With containerd's error, if it fails.
    pub fn stream<Q: Message + Default + 'static>(&self, name: &str, request: Q) -> String {
        let Id { id: url } = self.call(name, request).expect("containerd streams");
        url
    }
}
