//! A box in a Kubernetes cluster: which pod is asked, and the way to its admin port.
//!
//! The cluster and who asks it are what kubectl would take, of a kubeconfig. The way is that of `kubectl port-forward`: the API server forwards a
//! stream to a port of the pod. Nothing listens on this machine.
//!
//! - [`pod`]: which one of a Service; [`error`]: what goes wrong, and what to do; [`name`]: how Services and pods are named on a command line
//! - [`proxy`]: whether the environment's is used

pub mod error;
pub mod name;
mod pod;
mod proxy;

use std::{pin::Pin, time::Duration};

use k8s_openapi::api::core::v1::{Pod, Service};
use kube::{
    Api, Client, Config,
    api::ListParams,
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::{io::DuplexStream, time::timeout};

use self::{
    error::{ClusterError, Right},
    name::ResourceName,
};

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Boxes in a Kubernetes cluster")]
pub struct ClusterArgs {
    /// The Service of the boxes; the API server forwards to one of its pods. A kubeconfig says who asks, as for kubectl
    #[arg(long, value_name = "[NAMESPACE/]NAME", conflicts_with = "pod")]
    pub service: Option<ResourceName>,
    /// The pod itself
    #[arg(long, value_name = "[NAMESPACE/]NAME")]
    pub pod: Option<ResourceName>,
    /// Context of the kubeconfig [default: its current one]
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
}

impl ClusterArgs {
    /// The flag that names a box, if there is one.
    pub fn named(&self) -> Option<&'static str> {
        let flags = [(self.service.is_some(), "--service"), (self.pod.is_some(), "--pod")];
        flags.into_iter().find_map(|(is_said, flag)| is_said.then_some(flag))
    }

    /// One that was said.
    pub fn said(&self) -> Option<&'static str> {
        self.named().or(self.context.is_some().then_some("--context"))
    }
}

/// For each answer of the API server.
const PATIENCE: Duration = Duration::from_secs(30);
/// For a connection to it.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
/// Of a Service with more pods it is one of the first so many, by name.
const MOST_PODS: u32 = 500;

/// A pod, and who forwards to it.
pub struct Cluster {
    server: Server,
    namespace: String,
    pod: String,
    port: u16,
}

/// A stream to the admin port.
pub struct Forward {
    pub stream: DuplexStream,
    /// What the node says if it cannot forward. `None` if the stream ends without that.
    pub refusal: Pin<Box<dyn Future<Output = Option<String>>>>,
}

impl Cluster {
    /// What the arguments name, if they name something.
    ///
    /// # Errors
    /// [`ClusterError`]
    pub async fn find(arguments: &ClusterArgs) -> Result<Option<Cluster>, ClusterError> {
        let found = match arguments {
            ClusterArgs { pod: Some(name), context, .. } => {
                let server = Server::new(context.as_deref()).await?;
                let (namespace, name) = server.full(name);
                server.pod(namespace, name).await
            }
            ClusterArgs { service: Some(name), context, .. } => {
                let server = Server::new(context.as_deref()).await?;
                let (namespace, name) = server.full(name);
                server.pod_of_service(namespace, name).await
            }
            ClusterArgs { pod: None, service: None, .. } => return Ok(None),
        };
        found.map(Some)
    }

    /// # Errors
    /// [`ClusterError`], if the API server does not forward.
    pub async fn connect(&self) -> Result<Forward, ClusterError> {
        let pods = Api::<Pod>::namespaced(self.server.client.clone(), &self.namespace);
        let mut forwarder = self.server.answer(Right::ForwardPorts, pods.portforward(&self.pod, &[self.port])).await?;
        let stream = forwarder.take_stream(self.port).ok_or(ClusterError::NoStream)?;
        let refusal = forwarder.take_error(self.port).ok_or(ClusterError::NoStream)?;
        Ok(Forward { stream, refusal: Box::pin(refusal) })
    }

    /// The node cannot forward, and says why.
    pub fn refused(&self, reason: &str) -> ClusterError {
        ClusterError::refused(&self.namespace, &self.pod, self.port, reason)
    }
}

impl std::fmt::Display for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "port {} of pod {}/{}", self.port, self.namespace, self.pod)
    }
}

/// An API server, and who asks it.
struct Server {
    client: Client,
    url: String,
    /// Of the context.
    namespace: String,
}

impl Server {
    async fn new(context: Option<&str>) -> Result<Server, ClusterError> {
        let kubeconfig = Kubeconfig::read().map_err(ClusterError::of_kubeconfig)?;
        let current = kubeconfig.current_context.clone().filter(|name| !name.is_empty());
        let known = kubeconfig.contexts.iter().map(|context| context.name.as_str());
        let context = match context.map(str::to_owned).or(current) {
            None => return Err(ClusterError::NoContext { known: error::list(known) }),
            Some(context) if known.clone().any(|name| name == context) => context,
            Some(context) => return Err(ClusterError::UnknownContext { context, known: error::list(known) }),
        };
        let options = KubeConfigOptions { context: Some(context.clone()), ..KubeConfigOptions::default() };
        let config = Config::from_custom_kubeconfig(kubeconfig.clone(), &options).await;
        let mut config = config.map_err(ClusterError::of_kubeconfig)?;
        if proxy::is_left_out(&kubeconfig, &context, config.cluster_url.host().unwrap_or_default()) {
            config.proxy_url = None;
        }
        config.connect_timeout = Some(CONNECT_PATIENCE);
        let (url, namespace) = (config.cluster_url.to_string(), config.default_namespace.clone());
        let client = Client::try_from(config).map_err(ClusterError::of_credentials)?;
        Ok(Server { client, url, namespace })
    }

    fn full(&self, name: &ResourceName) -> (String, String) {
        (name.namespace.clone().unwrap_or_else(|| self.namespace.clone()), name.name.clone())
    }

    /// What the API server answers, in time. `right` is what it takes.
    async fn answer<T>(&self, right: Right, asked: impl Future<Output = kube::Result<T>>) -> Result<T, ClusterError> {
        match timeout(PATIENCE, asked).await {
            Ok(answer) => answer.map_err(|error| ClusterError::of_answer(&self.url, right, error)),
            Err(_) => Err(ClusterError::Silent { url: self.url.clone(), patience: PATIENCE }),
        }
    }

    async fn pod(self, namespace: String, name: String) -> Result<Cluster, ClusterError> {
        let pods = Api::<Pod>::namespaced(self.client.clone(), &namespace);
        match self.answer(Right::GetPods, pods.get_opt(&name)).await? {
            Some(pod) => Ok(Cluster { server: self, namespace, port: pod::admin_port(&pod), pod: name }),
            None => Err(ClusterError::NoPod { namespace, name }),
        }
    }

    async fn pod_of_service(self, namespace: String, name: String) -> Result<Cluster, ClusterError> {
        let services = Api::<Service>::namespaced(self.client.clone(), &namespace);
        let Some(service) = self.answer(Right::GetServices, services.get_opt(&name)).await? else {
            return Err(ClusterError::NoService { namespace, name });
        };
        let selector = service.spec.and_then(|spec| spec.selector).filter(|selector| !selector.is_empty());
        let Some(selector) = selector else { return Err(ClusterError::NoSelector { namespace, name }) };
        let labels: Vec<String> = selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let selector = labels.join(",");
        let pods = Api::<Pod>::namespaced(self.client.clone(), &namespace);
        let parameters = ListParams::default().labels(&selector).limit(MOST_PODS);
        let pods = self.answer(Right::ListPods, pods.list(&parameters)).await?.items;
        let chosen = pod::chosen(&pods).and_then(|pod| Some((pod.metadata.name.clone()?, pod::admin_port(pod))));
        let Some((pod, port)) = chosen else {
            let states: Vec<String> = pods.iter().map(pod::state).collect();
            let found = error::list(states.iter().map(String::as_str));
            return Err(ClusterError::NoReadyPod { namespace, name, selector, found });
        };
        Ok(Cluster { server: self, namespace, pod, port })
    }
}
