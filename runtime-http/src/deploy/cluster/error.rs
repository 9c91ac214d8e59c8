//! What goes wrong on the way to a box in a cluster, and what to do about it.

use std::{
    error::Error,
    fmt::{self, Display},
    io,
    path::PathBuf,
    time::Duration,
};

use kube::{client::AuthError, config::KubeconfigError};

use crate::excerpt::excerpt;

/// What somebody must be allowed in the namespace.
#[derive(Debug, Clone, Copy)]
pub enum Right {
    GetServices,
    ListPods,
    GetPods,
    ForwardPorts,
}

impl Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Right::GetServices => "`get services`",
            Right::ListPods => "`list pods`",
            Right::GetPods => "`get pods`",
            // The first is that of a WebSocket; newer clusters ask for both.
            Right::ForwardPorts => "`get` and `create pods/portforward`",
        })
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error("no kubeconfig: {}: {source}; KUBECONFIG names one, else it is ~/.kube/config", path.display())]
    NoKubeconfig { path: PathBuf, source: io::Error },
    #[error("the kubeconfig (KUBECONFIG, else ~/.kube/config) cannot be used: {reason}")]
    Kubeconfig { reason: String },
    #[error("the kubeconfig has no current context; --context NAME says one, of {known}")]
    NoContext { known: String },
    #[error("the kubeconfig has no context {context:?}; it has {known}")]
    UnknownContext { context: String, known: String },
    #[error("no credentials for the cluster: {reason}; the kubeconfig's `users` say where they come from")]
    Credentials { reason: String },
    #[error("the API server at {url} does not know who asks: {reason}; log in to the cluster again, as for kubectl")]
    Unauthorized { url: String, reason: String },
    #[error("the API server at {url} does not allow it: {reason}; it takes the right {right} in that namespace")]
    Forbidden { url: String, right: Right, reason: String },
    #[error("the API server at {url} refuses: {reason}")]
    Refused { url: String, reason: String },
    #[error(
        "no TLS with the API server at {url}: {reason}; the kubeconfig's `clusters` say whom it must be vouched for by (certificate-authority) and its name \
         (tls-server-name)"
    )]
    Tls { url: String, reason: String },
    #[error("no answer of the API server at {url}: {reason}")]
    Unreachable { url: String, reason: String },
    #[error("no answer of the API server at {url} within {patience:?}")]
    Silent { url: String, patience: Duration },
    #[error("no Service {namespace}/{name}; `kubectl get services --all-namespaces` shows which there are")]
    NoService { namespace: String, name: String },
    #[error("the Service {namespace}/{name} has no selector, so no pods; --pod NAMESPACE/NAME names one")]
    NoSelector { namespace: String, name: String },
    #[error(
        "no pod of the Service {namespace}/{name} is ready: there is {found}; `kubectl get pods --namespace {namespace} --selector {selector}` shows more"
    )]
    NoReadyPod { namespace: String, name: String, selector: String, found: String },
    #[error("no pod {namespace}/{name}; `kubectl get pods --namespace {namespace}` shows which there are")]
    NoPod { namespace: String, name: String },
    #[error(
        "the pod {namespace}/{pod} takes no connection at port {port}: {reason}; does a box run there, with its admin port? It is the containerPort named \
         `admin`, else 8086"
    )]
    NoPort { namespace: String, pod: String, port: u16, reason: String },
    #[error("the port-forward has no stream")]
    NoStream,
}

/// At most some of them.
pub fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    const MOST: usize = 10;
    let names: Vec<&str> = names.collect();
    let more = names.len().saturating_sub(MOST);
    match &names[..] {
        [] => "none".to_owned(),
        names if more == 0 => excerpt(names.join(", ")),
        names => format!("{} and {more} more", excerpt(names[..MOST].join(", "))),
    }
}

impl ClusterError {
    /// Of the kubeconfig itself.
    pub fn of_kubeconfig(error: KubeconfigError) -> ClusterError {
        match error {
            KubeconfigError::ReadConfig(source, path) => ClusterError::NoKubeconfig { path, source },
            // What it says may quote the file, which has keys and tokens.
            KubeconfigError::Parse(error) => {
                let place = error.location().map_or_else(String::new, |location| format!(", line {}", location.line()));
                ClusterError::Kubeconfig { reason: format!("it is no such YAML{place}") }
            }
            error => ClusterError::Kubeconfig { reason: excerpt(error) },
        }
    }

    pub fn refused(namespace: &str, pod: &str, port: u16, reason: &str) -> ClusterError {
        ClusterError::NoPort { namespace: namespace.into(), pod: pod.into(), port, reason: excerpt(reason.trim_end()) }
    }

    /// Of what the kubeconfig says of who asks.
    pub fn of_credentials(error: kube::Error) -> ClusterError {
        let reason = match error {
            kube::Error::InferKubeconfig(error) => return ClusterError::of_kubeconfig(error),
            // Its output may have a token.
            kube::Error::Auth(AuthError::AuthExecRun { cmd, out }) => {
                let said = String::from_utf8_lossy(&out.stderr);
                format!("{cmd} failed ({}) {}", out.status, said.trim_end())
            }
            kube::Error::Auth(AuthError::AuthExecParse(_)) => "its exec plugin printed no ExecCredential".to_owned(),
            error => cause(&error).to_string(),
        };
        ClusterError::Credentials { reason: excerpt(reason) }
    }

    /// Of the API server's answer to what takes `right`.
    pub fn of_answer(url: &str, right: Right, error: kube::Error) -> ClusterError {
        let url = url.to_owned();
        match error {
            kube::Error::Api(status) => {
                let reason = excerpt(&status.message);
                match status.code {
                    401 => ClusterError::Unauthorized { url, reason },
                    403 => ClusterError::Forbidden { url, right, reason },
                    code => ClusterError::Refused { url, reason: format!("{code}, {reason}") },
                }
            }
            error @ kube::Error::Auth(_) => ClusterError::of_credentials(error),
            error => {
                let is_tls = causes(&error).any(|error| error.is::<rustls::Error>());
                let reason = excerpt(cause(&error));
                if is_tls { ClusterError::Tls { url, reason } } else { ClusterError::Unreachable { url, reason } }
            }
        }
    }
}

/// The error and what is below it.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| {
        let error: &'a (dyn Error + 'static) = *error;
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        wrapped.map(|wrapped| wrapped as &(dyn Error + 'static)).or_else(|| error.source())
    })
}

/// Where it began.
fn cause<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    causes(error).last().unwrap_or(error)
}
