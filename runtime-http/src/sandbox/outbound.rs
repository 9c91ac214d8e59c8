//! HTTP requests that guests send: denied, unless the function's settings and the operator both name the host and port.
//!
//! Plain HTTP/1.1 only. A redirect is an answer like any other: following it is the guest's own, checked request.

use std::{sync::Arc, time::Duration};

use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use wasmtime_wasi_http::{Error, RequestOptions, Result, WasiBody, WasiHttpHooks};

use super::Setup;
use crate::invocation::{Grants, InvocationId, OutboundHost};

/// What a guest may write at once, and how often before its reader must take something.
const BODY_CHUNK: usize = 64 << 10;
const BODY_CHUNKS: usize = 16;
/// Between a guest and whoever reads its body.
pub const BODY_BYTES: usize = BODY_CHUNK * BODY_CHUNKS;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The hosts one guest may reach.
pub struct Outbound {
    grants: Arc<Grants>,
    function: Arc<str>,
    id: InvocationId,
    /// A request was denied: that is logged once.
    denied: bool,
}

impl Outbound {
    pub fn new(setup: &Setup) -> Self {
        Outbound { grants: setup.grants.clone(), function: setup.function.clone(), id: setup.id, denied: false }
    }

    fn allowed(&mut self, request: &http::Request<WasiBody>) -> Result<OutboundHost> {
        let uri = request.uri();
        let host = OutboundHost {
            host: uri.host().ok_or(Error::HttpRequestUriInvalid)?.to_ascii_lowercase(),
            port: uri.port_u16().unwrap_or(if uri.scheme() == Some(&http::uri::Scheme::HTTPS) { 443 } else { 80 }),
        };
        if !self.grants.outbound_hosts.contains(&host) {
            if !std::mem::replace(&mut self.denied, true) {
                tracing::warn!(
                    target: "guest", function = %self.function, id = %self.id, host = shortened(&host.host), port = host.port,
                    "outbound request denied, which is said once; grant it with allowed-outbound-hosts"
                );
            }
            return Err(Error::HttpRequestDenied);
        }
        if uri.scheme() == Some(&http::uri::Scheme::HTTPS) {
            return Err(Error::TlsProtocolError);
        }
        Ok(host)
    }
}

/// A host's name as the log has it: real ones have at most 253 bytes.
fn shortened(host: &str) -> &str {
    host.get(..253).unwrap_or(host)
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

/// The address in a URI's host, where one of IPv6 is in brackets (RFC 3986, section 3.2.2).
fn unbracketed(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

async fn send(
    host: OutboundHost,
    mut request: http::Request<WasiBody>,
    options: Option<RequestOptions>,
) -> Result<(http::Response<WasiBody>, Io)> {
    let connect_timeout = options.and_then(|options| options.connect_timeout).unwrap_or(CONNECT_TIMEOUT);
    let connection = tokio::time::timeout(connect_timeout, TcpStream::connect((unbracketed(&host.host), host.port)));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_ipv6_has_no_brackets() {
        for (host, address) in
            [("[::1]", "::1"), ("127.0.0.1", "127.0.0.1"), ("example.com", "example.com"), ("[", "[")]
        {
            assert_eq!(unbracketed(host), address);
        }
    }
}
