//! HTTP requests that guests send: denied, unless the function's settings and the operator both name the host and port.
//!
//! Plain HTTP/1.1 only. A redirect is an answer like any other: following it is the guest's own, checked request.

use std::{sync::Arc, time::Duration};

use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use wasmtime_wasi_http::{Error, RequestOptions, Result, WasiBody, WasiHttpHooks};

use crate::invocation::{Grants, OutboundHost};

/// What a guest may write at once, and how often before its reader must take something.
const BODY_CHUNK: usize = 64 << 10;
const BODY_CHUNKS: usize = 16;
/// Between a guest and whoever reads its body.
pub const BODY_BYTES: usize = BODY_CHUNK * BODY_CHUNKS;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The hosts one guest may reach.
pub struct Outbound {
    grants: Arc<Grants>,
}

impl Outbound {
    pub fn new(grants: Arc<Grants>) -> Self {
        Outbound { grants }
    }

    fn allowed(&self, request: &http::Request<WasiBody>) -> Result<OutboundHost> {
        let uri = request.uri();
        let host = OutboundHost {
            host: uri.host().ok_or(Error::HttpRequestUriInvalid)?.to_ascii_lowercase(),
            port: uri.port_u16().unwrap_or(if uri.scheme() == Some(&http::uri::Scheme::HTTPS) { 443 } else { 80 }),
        };
        if !self.grants.outbound_hosts.contains(&host) {
            tracing::warn!(target: "guest", host = host.host, port = host.port, "outbound request denied; grant it with allowed-outbound-hosts");
            return Err(Error::HttpRequestDenied);
        }
        if uri.scheme() == Some(&http::uri::Scheme::HTTPS) {
            return Err(Error::TlsProtocolError);
        }
        Ok(host)
    }
}

type Io = Box<dyn Future<Output = Result<()>> + Send>;

impl WasiHttpHooks for Outbound {
    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _processed: Box<dyn Future<Output = Result<()>> + Send>,
    ) -> Box<dyn Future<Output = Result<(http::Response<WasiBody>, Io)>> + Send> {
        let allowed = self.allowed(&request);
        Box::new(async move { send(allowed?, request, options).await })
    }

    fn p2_outgoing_body_buffer_chunks(&mut self) -> usize {
        BODY_CHUNKS - 1
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        BODY_CHUNK
    }
}

async fn send(
    host: OutboundHost,
    mut request: http::Request<WasiBody>,
    options: Option<RequestOptions>,
) -> Result<(http::Response<WasiBody>, Io)> {
    let connect_timeout = options.and_then(|options| options.connect_timeout).unwrap_or(CONNECT_TIMEOUT);
    let connection = tokio::time::timeout(connect_timeout, TcpStream::connect((host.host.as_str(), host.port)));
    let stream = connection.await.map_err(|_| Error::ConnectionTimeout)?.map_err(Error::Connect)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(Error::Hyper)?;
    // The connection lives as long as its two users: this request and the response's body; the guest's end ends both.
    let io: Io = Box::new(async move { connection.await.map_err(Error::Hyper) });
    let path = request.uri().path_and_query().cloned().unwrap_or_else(|| http::uri::PathAndQuery::from_static("/"));
    *request.uri_mut() = path.into();
    let mut io = std::pin::Pin::from(io);
    let mut sending = std::pin::pin!(sender.send_request(request));
    let (response, io) = tokio::select! {
        response = &mut sending => (response, Box::new(io) as Io),
        // The server closed the connection, perhaps right after its answer: that is in the channel then.
        ended = &mut io => (sending.await, Box::new(async { ended }) as Io),
    };
    let response = response.map_err(Error::Hyper)?;
    let response = response.map(|body| body.map_err(Error::Hyper).boxed_unsync());
    Ok((response, io))
}
