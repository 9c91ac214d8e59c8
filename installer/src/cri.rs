//! Asks containerd's CRI which handlers it has: what counts is what runs, not what files say.

use std::{collections::HashMap, io, path::Path, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use http::{Method, Request, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::{net::UnixStream, time};

const TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum CriError {
    #[error("connecting: {0}")]
    Connect(#[from] io::Error),
    #[error("gRPC: {0}")]
    Http(#[from] hyper::Error),
    #[error("gRPC status {code}: {message}")]
    Grpc { code: String, message: String },
    #[error("the answer cannot be read: {0}")]
    Protobuf(#[from] prost::DecodeError),
    #[error("the answer has no configuration in it")]
    NoConfiguration,
    #[error("the configuration in the answer: {0}")]
    Json(#[from] serde_json::Error),
    #[error("no answer within {} s", TIMEOUT.as_secs())]
    Timeout(#[from] time::error::Elapsed),
}

/// `runtime.v1.StatusRequest`.
#[derive(Clone, PartialEq, Message)]
struct StatusRequest {
    #[prost(bool, tag = "1")]
    verbose: bool,
}

/// `runtime.v1.StatusResponse`, as far as it is read here.
#[derive(Clone, PartialEq, Message)]
struct StatusResponse {
    #[prost(map = "string, string", tag = "2")]
    info: HashMap<String, String>,
}

/// Whether the CRI behind this socket has the handler.
///
/// # Errors
/// [`CriError`], if it does not answer.
pub async fn has_handler(socket: &Path, name: &str) -> Result<bool, CriError> {
    let status = time::timeout(TIMEOUT, status(socket)).await??;
    let config = status.info.get("config").ok_or(CriError::NoConfiguration)?;
    let config: serde_json::Value = serde_json::from_str(config)?;
    Ok(config["containerd"]["runtimes"].get(name).is_some())
}

/// A single unary call of gRPC is one HTTP/2 request: a whole client would be larger than this program.
async fn status(socket: &Path) -> Result<StatusResponse, CriError> {
    let stream = TokioIo::new(UnixStream::connect(socket).await?);
    let (mut client, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await?;
    let call = async {
        let message = StatusRequest { verbose: true }.encode_to_vec();
        // Not compressed, the length, the message.
        let mut frame = BytesMut::with_capacity(5 + message.len());
        frame.put_u8(0);
        frame.put_u32(u32::try_from(message.len()).expect("two bytes"));
        frame.put_slice(&message);
        let request = Request::builder()
            .method(Method::POST)
            .uri("http://localhost/runtime.v1.RuntimeService/Status")
            .header(CONTENT_TYPE, "application/grpc")
            .header("te", "trailers")
            .body(Full::new(frame.freeze()))
            .expect("a well-formed request");
        let response = client.send_request(request).await?;
        let mut headers = response.headers().clone();
        let body = response.into_body().collect().await?;
        headers.extend(body.trailers().cloned().unwrap_or_default());
        let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("missing").to_owned();
        let code = header("grpc-status");
        if code != "0" {
            return Err(CriError::Grpc { code, message: header("grpc-message") });
        }
        let bytes: Bytes = body.to_bytes();
        Ok(StatusResponse::decode(bytes.get(5..).unwrap_or_default())?)
    };
    tokio::select! {
        answer = call => answer,
        // It carries the call, and ends first only by an error.
        ended = connection => Err(ended.err().map_or_else(|| io::Error::from(io::ErrorKind::ConnectionReset).into(), CriError::Http)),
    }
}
