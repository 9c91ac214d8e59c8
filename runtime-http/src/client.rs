//! A client for the box's own ports: one GET, plain HTTP/1.1. For `wasmbox status` and `wasmbox doctor`.

use std::{io, time::Duration};

use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

/// For the whole exchange: a box answers at once, however busy.
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

/// Asks `address` (`HOST:PORT`) for `path`; gives status and body.
///
/// # Errors
/// [`ClientError`], if there is no whole answer.
pub async fn get(address: &str, path: &str) -> Result<(StatusCode, Vec<u8>), ClientError> {
    timeout(PATIENCE, async {
        let stream = TcpStream::connect(address).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let request = Request::get(path).header(header::HOST, address).body(Empty::<bytes::Bytes>::new())?;
        let exchange = async {
            let (head, body) = sender.send_request(request).await?.into_parts();
            let body = Limited::new(body, LARGEST_ANSWER).collect().await.map_err(|error| {
                if error.is::<LengthLimitError>() { ClientError::TooLarge } else { ClientError::Body(error) }
            })?;
            Ok((head.status, body.to_bytes().to_vec()))
        };
        // The connection does the work; if it ends first, the exchange says how.
        let mut exchange = std::pin::pin!(exchange);
        tokio::select! {
            answer = &mut exchange => answer,
            _ = connection => exchange.await,
        }
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
