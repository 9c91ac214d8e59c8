//! A box that is asked over its admin port, with a token: at an address, or in a cluster.

use std::{env, io, path::PathBuf, time::Duration};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, Response, StatusCode, header, request::Builder};
use http_body::Body;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use serde::{Deserialize, de::DeserializeOwned};
use tokio::{runtime::Runtime, time::timeout};

use super::{
    cluster::{Cluster, ClusterArgs, Forward, error::ClusterError},
    token::{TokenArgs, TokenError},
};
use crate::{
    client::{self, ClientError},
    registry::RegistryError,
};

/// Where `wasmbox serve` has its admin port, on this machine.
const USUAL: &str = "http://127.0.0.1:8086";
const PORT: &str = ":8086";
const LARGEST_ANSWER: usize = 16 << 20;
/// How long a node may take to say why a connection has ended.
const REFUSAL_TIME: Duration = Duration::from_secs(5);
/// How often a box that has no place is asked again.
const TRIES: u32 = 6;

#[derive(Debug, clap::Args)]
pub struct RemoteArgs {
    /// The box's admin port [default: http://127.0.0.1:8086]
    #[arg(long, value_name = "http://HOST:PORT", env = "WASMBOX_URL")]
    pub url: Option<String>,
    #[command(flatten)]
    pub token: TokenArgs,
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

impl RemoteArgs {
    /// One that was said on the command line: what variables say is for all commands.
    pub fn said(&self) -> Option<&'static str> {
        let flags = [(self.says_url(), "--url"), (self.token.is_said(), "--token-file")];
        flags.into_iter().find_map(|(is_said, flag)| is_said.then_some(flag)).or(self.cluster.said())
    }

    fn says_url(&self) -> bool {
        self.url.as_ref().is_some_and(|url| env::var("WASMBOX_URL").as_ref() != Ok(url))
    }

    /// One box is named once.
    fn check(&self) -> Result<(), RemoteError> {
        match self.cluster.named() {
            Some(_) if self.says_url() => Err(RemoteError::Flag {
                flag: "--url",
                what: "a box at an address",
                remedy: "--service and --pod find one in a cluster; leave one of them out",
            }),
            None if self.cluster.context.is_some() => Err(RemoteError::Flag {
                flag: "--context",
                what: "a box in a cluster",
                remedy: "name its Service with --service NAMESPACE/NAME, or leave the flag out",
            }),
            Some(_) | None => Ok(()),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    #[error("{flag} is for {what}, and there is none: {remedy}")]
    Flag { flag: &'static str, what: &'static str, remedy: &'static str },
    #[error("no token: name its file with --token-file (WASMBOX_TOKEN_FILE), or set WASMBOX_TOKEN")]
    NoToken,
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(
        "--url {url}: the admin port speaks HTTP without TLS; go through a cluster with --service NAMESPACE/NAME, `kubectl port-forward POD 8086`, or ssh -L"
    )]
    Tls { url: String },
    #[error("no box answers at {}: {source}; is `wasmbox serve` running? {}", asked.name, asked.remedy)]
    NoAnswer { asked: Asked, source: ClientError },
    #[error("what answers at {} is not the admin port of a box: {reason}; {}", asked.name, asked.remedy)]
    NoBox { asked: Asked, reason: String },
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error("{detail}\n`wasmbox explain {code}` says more")]
    Refused { status: StatusCode, code: String, detail: String },
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{text:?} is no function's name: 1 to 128 letters, digits, '.', '_' or '-'; --name NAME says another")]
    Name { text: String },
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error("{0}")]
    Request(#[from] http::Error),
    #[error("this process cannot wait for answers: {0}")]
    Runtime(io::Error),
    #[error("the output cannot be written: {0}")]
    Output(io::Error),
}

/// Whom somebody asks, as errors name it.
#[derive(Debug, Clone)]
pub struct Asked {
    name: String,
    /// How to ask somebody else.
    remedy: &'static str,
}

/// A box.
pub struct Remote {
    way: Way,
    asked: Asked,
    token: String,
    runtime: Runtime,
}

/// How each connection to it is made.
enum Way {
    Tcp { address: String },
    Forwarded(Cluster),
}

impl Way {
    fn new(arguments: &RemoteArgs, runtime: &Runtime) -> Result<Way, RemoteError> {
        if let Some(cluster) = runtime.block_on(Cluster::find(&arguments.cluster))? {
            return Ok(Way::Forwarded(cluster));
        }
        let url = arguments.url.as_deref().filter(|url| !url.is_empty()).unwrap_or(USUAL);
        if url.starts_with("https://") {
            return Err(RemoteError::Tls { url: url.to_owned() });
        }
        let host = client::host_and_port(url);
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        Ok(Way::Tcp { address: if has_port { host.to_owned() } else { format!("{host}{PORT}") } })
    }

    fn asked(&self) -> Asked {
        match self {
            Way::Tcp { address } => {
                Asked { name: address.clone(), remedy: "--url http://HOST:PORT (WASMBOX_URL) names another admin port" }
            }
            Way::Forwarded(cluster) => {
                Asked { name: cluster.to_string(), remedy: "--service and --pod name another pod" }
            }
        }
    }

    /// What the box is called in requests. A forwarded connection comes to it from its own machine.
    fn host(&self) -> &str {
        match self {
            Way::Tcp { address } => address,
            Way::Forwarded(_) => "localhost",
        }
    }
}

/// A good answer.
pub struct Good {
    asked: Asked,
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Good {
    /// # Errors
    /// [`RemoteError::NoBox`] if it is something else.
    pub fn document<T: DeserializeOwned>(&self) -> Result<T, RemoteError> {
        let no_box =
            |error: serde_json::Error| RemoteError::NoBox { asked: self.asked.clone(), reason: error.to_string() };
        serde_json::from_slice(&self.body).map_err(no_box)
    }
}

impl Remote {
    /// # Errors
    /// [`RemoteError`], if it is not said who is asked, or as whom.
    pub fn new(arguments: &RemoteArgs) -> Result<Remote, RemoteError> {
        arguments.check()?;
        let token = arguments.token.token()?.ok_or(RemoteError::NoToken)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(RemoteError::Runtime)?;
        let way = Way::new(arguments, &runtime)?;
        Ok(Remote { asked: way.asked(), way, token, runtime })
    }

    /// A request without a body.
    ///
    /// # Errors
    /// [`RemoteError`]
    pub fn ask(&self, request: Builder) -> Result<Good, RemoteError> {
        self.runtime.block_on(self.exchange(request, Full::<Bytes>::default()))
    }

    /// What `request` gives a request is sent; again while the box has no place for it.
    ///
    /// # Errors
    /// [`RemoteError`]
    pub fn send<B>(&self, mut request: impl FnMut() -> Result<(Builder, B), RemoteError>) -> Result<Good, RemoteError>
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let mut tries = 0;
        loop {
            let (head, body) = request()?;
            match self.runtime.block_on(self.exchange(head, body)) {
                Err(RemoteError::Refused { status: StatusCode::SERVICE_UNAVAILABLE, .. }) if tries < TRIES => {
                    tries += 1;
                    std::thread::sleep(Duration::from_secs(1 << tries.min(4)));
                }
                answer => return answer,
            }
        }
    }

    /// A request without a body, whose answer goes to `take` as it comes.
    ///
    /// # Errors
    /// [`RemoteError`], also that of `take`, and if the answer is broken off.
    pub fn stream(
        &self,
        request: Builder,
        mut take: impl FnMut(&[u8]) -> Result<(), RemoteError>,
    ) -> Result<(), RemoteError> {
        self.runtime.block_on(async {
            let (head, mut body) = self.begin(request, Full::<Bytes>::default()).await?.into_parts();
            if !head.status.is_success() {
                return Err(self.refused(head.status, &self.whole(body).await?));
            }
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|error| self.no_answer(ClientError::Body(error.into())))?;
                if let Some(bytes) = frame.data_ref() {
                    take(bytes)?;
                }
            }
            Ok(())
        })
    }

    /// What answers is something else.
    pub fn no_box(&self, reason: &str) -> RemoteError {
        RemoteError::NoBox { asked: self.asked.clone(), reason: reason.to_owned() }
    }

    fn no_answer(&self, source: ClientError) -> RemoteError {
        RemoteError::NoAnswer { asked: self.asked.clone(), source }
    }

    async fn whole(&self, body: Incoming) -> Result<Bytes, RemoteError> {
        let body = Limited::new(body, LARGEST_ANSWER).collect().await;
        Ok(body.map_err(|error| self.no_answer(ClientError::Body(error)))?.to_bytes())
    }

    fn refused(&self, status: StatusCode, body: &[u8]) -> RemoteError {
        #[derive(Deserialize)]
        struct Problem {
            code: String,
            detail: String,
        }
        match serde_json::from_slice::<Problem>(body) {
            Ok(Problem { code, detail }) => RemoteError::Refused { status, code, detail },
            Err(_) => self.no_box(&format!("it answers {status}")),
        }
    }

    async fn exchange<B>(&self, request: Builder, body: B) -> Result<Good, RemoteError>
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (head, body) = self.begin(request, body).await?.into_parts();
        let body = self.whole(body).await?;
        if head.status.is_success() {
            return Ok(Good { asked: self.asked.clone(), status: head.status, headers: head.headers, body });
        }
        Err(self.refused(head.status, &body))
    }

    async fn begin<B>(&self, request: Builder, body: B) -> Result<Response<Incoming>, RemoteError>
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let request = request
            .header(header::HOST, self.way.host())
            .header(header::USER_AGENT, concat!("wasmbox/", env!("CARGO_PKG_VERSION")))
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
            .body(body)?;
        let answer = match &self.way {
            Way::Tcp { address } => client::send(address, request).await,
            Way::Forwarded(cluster) => {
                let Forward { stream, refusal } = cluster.connect().await?;
                let refusal = refusal.shared();
                let answer = tokio::select! {
                    biased;
                    Some(reason) = refusal.clone() => return Err(cluster.refused(&reason).into()),
                    answer = client::send_over(stream, request) => answer,
                };
                // The node says why on a stream of its own, which may come after the end of the other one.
                if answer.is_err()
                    && let Ok(Some(reason)) = timeout(REFUSAL_TIME, refusal).await
                {
                    return Err(cluster.refused(&reason).into());
                }
                answer
            }
        };
        answer.map_err(|source| self.no_answer(source))
    }
}
