//! A box that is asked over its admin port, with a token.

use std::{env, fs, io, path::PathBuf, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, header, request::Builder};
use http_body::Body;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use serde::{Deserialize, de::DeserializeOwned};
use tokio::runtime::Runtime;

use crate::{
    client::{self, ClientError},
    registry::RegistryError,
};

/// Where `wasmbox serve` has its admin port, on this machine.
const USUAL: &str = "http://127.0.0.1:8086";
const PORT: &str = ":8086";
const LARGEST_ANSWER: usize = 16 << 20;
/// How often a box that has no place is asked again.
const TRIES: u32 = 6;

#[derive(Debug, clap::Args)]
pub struct RemoteArgs {
    /// The box's admin port [default: http://127.0.0.1:8086]
    #[arg(long, value_name = "http://HOST:PORT", env = "WASMBOX_URL")]
    pub url: Option<String>,
    /// File whose first line is a token of the box's --upload-token-file; without it, the token is that of the variable WASMBOX_TOKEN
    #[arg(long, value_name = "FILE", env = "WASMBOX_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
}

impl RemoteArgs {
    /// One that was said on the command line: what variables say is for all commands.
    pub fn said(&self) -> Option<&'static str> {
        let url = self.url.as_ref().is_some_and(|url| env::var("WASMBOX_URL").as_ref() != Ok(url));
        let file = self.token_file.as_ref();
        let file = file.is_some_and(|file| env::var_os("WASMBOX_TOKEN_FILE").as_ref() != Some(&file.into()));
        [(url, "--url"), (file, "--token-file")].into_iter().find_map(|(is_said, flag)| is_said.then_some(flag))
    }
}

#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    #[error("{flag} is for {what}, and there is none: {remedy}")]
    Flag { flag: &'static str, what: &'static str, remedy: &'static str },
    #[error("no token: name its file with --token-file (WASMBOX_TOKEN_FILE), or set WASMBOX_TOKEN")]
    NoToken,
    #[error("--token-file {}: {reason}; its first line is the token", path.display())]
    Token { path: PathBuf, reason: String },
    #[error(
        "--url {url}: the admin port speaks HTTP without TLS; go through `kubectl port-forward POD 8086`, or ssh -L"
    )]
    Tls { url: String },
    #[error(
        "no box answers at {address}: {source}; is `wasmbox serve` running? --url http://HOST:PORT (WASMBOX_URL) names another admin port"
    )]
    NoAnswer { address: String, source: ClientError },
    #[error(
        "what answers at {address} is not the admin port of a box: {reason}; --url http://HOST:PORT (WASMBOX_URL) names another"
    )]
    NoBox { address: String, reason: String },
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

/// A box.
pub struct Remote {
    address: String,
    token: String,
    runtime: Runtime,
}

/// A good answer.
pub struct Good {
    address: String,
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Good {
    /// # Errors
    /// [`RemoteError::NoBox`] if it is something else.
    pub fn document<T: DeserializeOwned>(&self) -> Result<T, RemoteError> {
        let no_box =
            |error: serde_json::Error| RemoteError::NoBox { address: self.address.clone(), reason: error.to_string() };
        serde_json::from_slice(&self.body).map_err(no_box)
    }
}

fn token(arguments: &RemoteArgs) -> Result<String, RemoteError> {
    let Some(path) = &arguments.token_file else {
        return env::var("WASMBOX_TOKEN").ok().filter(|token| !token.is_empty()).ok_or(RemoteError::NoToken);
    };
    let failed = |reason: String| RemoteError::Token { path: path.clone(), reason };
    let text = fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    let first = text.lines().map(str::trim).find(|line| !line.is_empty());
    first.map(str::to_owned).ok_or_else(|| failed("it is empty".into()))
}

impl Remote {
    /// # Errors
    /// [`RemoteError`], if it is not said who is asked, or as whom.
    pub fn new(arguments: &RemoteArgs) -> Result<Remote, RemoteError> {
        let url = arguments.url.as_deref().filter(|url| !url.is_empty()).unwrap_or(USUAL);
        if url.starts_with("https://") {
            return Err(RemoteError::Tls { url: url.to_owned() });
        }
        let host = client::host_and_port(url);
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let address = if has_port { host.to_owned() } else { format!("{host}{PORT}") };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Ok(Remote { address, token: token(arguments)?, runtime: runtime.map_err(RemoteError::Runtime)? })
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
        RemoteError::NoBox { address: self.address.clone(), reason: reason.to_owned() }
    }

    fn no_answer(&self, source: ClientError) -> RemoteError {
        RemoteError::NoAnswer { address: self.address.clone(), source }
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
            return Ok(Good { address: self.address.clone(), status: head.status, headers: head.headers, body });
        }
        Err(self.refused(head.status, &body))
    }

    async fn begin<B>(&self, request: Builder, body: B) -> Result<Response<Incoming>, RemoteError>
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let address = self.address.clone();
        let request = request
            .header(header::HOST, &address)
            .header(header::USER_AGENT, concat!("wasmbox/", env!("CARGO_PKG_VERSION")))
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
            .body(body)?;
        client::send(&address, request).await.map_err(|source| self.no_answer(source))
    }
}
