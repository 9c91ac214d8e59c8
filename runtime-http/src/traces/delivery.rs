//! One request to the collector, whose answers are bounded in size and time: nobody says that it is a good one.

use std::{io, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
    rt::{Read, Write},
};
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::{net::TcpStream, time::timeout};

use super::{
    endpoint::{Endpoint, OtlpHeaders},
    otlp::ExportResponse,
};
use crate::{client::address, tasks::Owned, tls::TlsClient};

/// The most of an answer's head, and of its body. What is longer is not read.
const MOST_HEAD: usize = 16 << 10;
const MOST_BODY: usize = 64 << 10;
/// How long it may take until an answer begins, connecting included.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the body may take, which is a few bytes.
const BODY_TIME: Duration = Duration::from_secs(2);
/// How long a connection may take to be ready again, once an answer is read.
const READY_TIME: Duration = Duration::from_millis(100);
/// The longest pause that a collector may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What became of a request that was answered.
#[derive(Debug, PartialEq, Eq)]
pub enum Answered {
    /// How many spans of it were not wanted.
    Taken { rejected: u64 },
    /// The same request would be refused again.
    Refused(StatusCode),
    /// It may be taken later.
    Later { status: StatusCode, after: Option<Duration> },
}

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub enum Undelivered {
    #[error("{0}")]
    Connect(#[from] io::Error),
    #[error("{0}")]
    Tls(String),
    #[error("no answer within {PATIENCE:?}")]
    Late,
    #[error("{0}")]
    Http(#[from] hyper::Error),
}

/// The way to a collector, with the connection that is left of the last request.
pub struct Delivery {
    endpoint: Endpoint,
    headers: OtlpHeaders,
    tls: Option<TlsClient>,
    connection: Option<Connection>,
}

struct Connection {
    sender: SendRequest<Full<Bytes>>,
    _driver: Owned<()>,
}

impl Delivery {
    /// `tls`: for an endpoint that wants it.
    pub fn new(endpoint: Endpoint, headers: OtlpHeaders, tls: Option<TlsClient>) -> Delivery {
        Delivery { endpoint, headers, tls, connection: None }
    }

    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Sends `body`. Dropping this before its end closes the connection.
    ///
    /// # Errors
    /// [`Undelivered`], if there is no head of an answer. Once there is one, nothing makes it an error any more: the spans would be sent again.
    pub async fn post(&mut self, body: Bytes) -> Result<Answered, Undelivered> {
        let sent = timeout(PATIENCE, self.send(body)).await;
        let (mut connection, response) = sent.map_err(|_| Undelivered::Late)??;
        let (answered, is_read) = read(response).await;
        // One whose answer is not read, or that waits for something else, is not used any more.
        let is_ready = is_read && timeout(READY_TIME, connection.sender.ready()).await.is_ok_and(|ready| ready.is_ok());
        self.connection = is_ready.then_some(connection);
        Ok(answered)
    }

    async fn send(&mut self, body: Bytes) -> Result<(Connection, Response<Incoming>), Undelivered> {
        loop {
            let kept = self.connection.take().filter(|kept| kept.sender.is_ready());
            let is_kept = kept.is_some();
            let mut connection = match kept {
                Some(kept) => kept,
                None => self.connect().await?,
            };
            match connection.sender.send_request(self.request(body.clone())).await {
                Ok(response) => return Ok((connection, response)),
                // It may have closed a connection that was idle. If it had read the request before, it gets the same spans twice, by the same names.
                Err(error) if is_kept => tracing::debug!("the collector has closed the connection: {error}"),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn request(&self, body: Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::post(self.endpoint.path.as_str());
        if let Some(headers) = request.headers_mut() {
            headers.extend(self.headers.0.clone());
            let default = if self.endpoint.secure { 443 } else { 80 };
            let host = match self.endpoint.port {
                port if port == default => self.endpoint.host.to_string(),
                port => format!("{}:{port}", self.endpoint.host),
            };
            headers.extend(HeaderValue::try_from(host).ok().map(|host| (header::HOST, host)));
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
            headers
                .insert(header::USER_AGENT, HeaderValue::from_static(concat!("wasmbox/", env!("CARGO_PKG_VERSION"))));
        }
        request.body(Full::new(body)).expect("the parts were read before")
    }

    async fn connect(&self) -> Result<Connection, Undelivered> {
        let host = self.endpoint.host.to_string();
        let stream = TcpStream::connect(address(host.trim_matches(['[', ']']), self.endpoint.port)).await?;
        stream.set_nodelay(true)?;
        match &self.tls {
            None => handshake(TokioIo::new(stream)).await,
            Some(tls) => {
                let stream = tls.connect(&self.endpoint.host, stream).await;
                let stream = stream.map_err(|error| Undelivered::Tls(format!("{error}; {}", tls.remedy())))?;
                handshake(TokioIo::new(stream)).await
            }
        }
    }
}

async fn handshake<T: Read + Write + Unpin + Send + 'static>(stream: T) -> Result<Connection, Undelivered> {
    let (sender, connection) = http1::Builder::new().max_buf_size(MOST_HEAD).handshake(stream).await?;
    let driver = tokio::spawn(async move {
        // Whoever sends a request is told of errors.
        let _ = connection.await;
    });
    Ok(Connection { sender, _driver: Owned(driver) })
}

/// What an answer says, and whether it was read to its end. By then its status has said what counts.
async fn read(response: Response<Incoming>) -> (Answered, bool) {
    let (head, body) = response.into_parts();
    let after = head.headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let after = after.map(|seconds| Duration::from_secs(seconds).min(LONGEST_PAUSE));
    let body = timeout(BODY_TIME, Limited::new(body, MOST_BODY).collect()).await;
    let body = body.ok().and_then(Result::ok).map(|body| body.to_bytes());
    let answered = match head.status {
        status if status.is_success() => {
            let said = body.clone().and_then(|body| ExportResponse::decode(body).ok()?.partial_success);
            Answered::Taken { rejected: said.map_or(0, |said| said.rejected_spans.try_into().unwrap_or(0)) }
        }
        // OTLP, "failures": these may be sent again, no others.
        status @ (StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT) => Answered::Later { status, after },
        status => Answered::Refused(status),
    };
    (answered, body.is_some())
}
