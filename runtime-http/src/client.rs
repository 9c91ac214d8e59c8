//! A client for the box's own ports: one request, plain HTTP/1.1. For `wasmbox status`, `doctor`, `invoke`, and `push` with what belongs to it.

use std::{io, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header, request::Builder};
use http_body::Body;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};

/// For connecting, and for the whole exchange with what answers at once, however busy.
const PATIENCE: Duration = Duration::from_secs(5);
const LARGEST_ANSWER: usize = 4 << 20;

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("{0}")]
    Connect(#[from] io::Error),
    #[error("it does not speak HTTP: {0}")]
    Http(#[from] hyper::Error),
    #[error("{0}")]
    Request(#[from] http::Error),
    #[error("it broke its answer off: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    #[error("its answer is larger than {LARGEST_ANSWER} bytes")]
    TooLarge,
    #[error("no answer within {PATIENCE:?}")]
    Silent,
}

/// `HOST:PORT`, with the brackets that an IPv6 address needs.
pub fn address(host: &str, port: u16) -> String {
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// The address by which a server that is bound to `host` is reached from the same machine.
pub fn reachable(host: &str, port: u16) -> String {
    let every = matches!(host.trim_matches(['[', ']']), "" | "0.0.0.0" | "::");
    address(if every { "127.0.0.1" } else { host }, port)
}

/// What follows `http://`, which need not be there.
pub fn host_and_port(address: &str) -> &str {
    let address = address.strip_prefix("http://").unwrap_or(address);
    address.strip_suffix('/').unwrap_or(address)
}

/// Sends `request` on a connection of its own, whose work a task does; gives the head of the answer, and the body as it comes.
///
/// # Errors
/// [`ClientError`], if there is no head of an answer.
pub async fn send<B>(address: &str, request: Request<B>) -> Result<Response<Incoming>, ClientError>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let stream = timeout(PATIENCE, TcpStream::connect(address)).await.map_err(|_| ClientError::Silent)??;
    send_over(stream, request).await
}

/// The same, on a connection that there is.
///
/// # Errors
/// The same.
pub async fn send_over<B>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<B>,
) -> Result<Response<Incoming>, ClientError>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // If it ends first, the exchange says how. It ends when the answer is read or dropped.
    tokio::spawn(connection);
    Ok(sender.send_request(request).await?)
}

/// Asks `address` (`HOST:PORT`) for `path`; gives status and body.
///
/// # Errors
/// [`ClientError`], if there is no whole answer.
pub async fn get(address: &str, path: &str) -> Result<(StatusCode, Vec<u8>), ClientError> {
    ask(address, Request::get(path)).await
}

/// Sends `request`, without a body, to `address` (`HOST:PORT`); gives status and body.
///
/// # Errors
/// [`ClientError`], if there is no whole answer.
pub async fn ask(address: &str, request: Builder) -> Result<(StatusCode, Vec<u8>), ClientError> {
    timeout(PATIENCE, async {
        let request = request.header(header::HOST, address).body(Full::<Bytes>::default())?;
        let (head, body) = send(address, request).await?.into_parts();
        let body = Limited::new(body, LARGEST_ANSWER).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() { ClientError::TooLarge } else { ClientError::Body(error) }
        })?;
        Ok((head.status, body.to_bytes().to_vec()))
    })
    .await
    .map_err(|_| ClientError::Silent)?
}

/// `get`, for a caller without an event loop.
///
/// # Errors
/// The same.
pub fn get_blocking(address: &str, path: &str) -> Result<(StatusCode, Vec<u8>), ClientError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(get(address, path))
}
