//! Connections to registries: TCP, TLS, one request of HTTP/1.1 each; and bodies, of which no more is read than was expected.

use std::{
    collections::VecDeque,
    convert::Infallible,
    fmt,
    net::SocketAddr,
    path::Path,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::select_ok;
use http::{Request, Response, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use indicatif::ProgressBar;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{sleep, timeout},
};

use super::{RegistryError, origin::Origin};
use crate::tls::{HTTP_1, Roots, TlsClient};

/// For a connection, with TLS.
const CONNECT: Duration = Duration::from_secs(15);
/// How long an address has before the next one is tried beside it (RFC 8305, section 5).
const HEAD_START: Duration = Duration::from_millis(250);
/// For what a registry has to think about, and from one piece of a body to the next.
const PAUSE: Duration = Duration::from_secs(60);
/// What is given to the connection at once.
const PIECE: usize = 64 << 10;

/// What is sent: pieces that are there already. It can be sent again.
#[derive(Clone)]
pub struct Payload {
    pieces: VecDeque<Bytes>,
    length: u64,
    progress: Option<ProgressBar>,
}

impl Payload {
    pub fn new(pieces: impl IntoIterator<Item = Bytes>) -> Payload {
        let pieces: VecDeque<Bytes> = pieces.into_iter().collect();
        Payload { length: pieces.iter().map(|piece| piece.len() as u64).sum(), pieces, progress: None }
    }

    pub fn empty() -> Payload {
        Payload::new([])
    }

    #[must_use]
    pub fn shown_by(self, progress: &ProgressBar) -> Payload {
        Payload { progress: Some(progress.clone()), ..self }
    }

    /// Bytes.
    pub fn length(&self) -> u64 {
        self.length
    }
}

impl Body for Payload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(first) = self.pieces.front_mut() else { return Poll::Ready(None) };
        let piece = first.split_to(first.len().min(PIECE));
        if first.is_empty() {
            self.pieces.pop_front();
        }
        self.length -= piece.len() as u64;
        if let Some(progress) = &self.progress {
            progress.inc(piece.len() as u64);
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length)
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Connects to the first of `addresses` that answers, of which there is one at least.
async fn first(addresses: Vec<SocketAddr>) -> Result<TcpStream, String> {
    let attempts = (0_u32..).zip(addresses).map(|(place, address)| async move {
        sleep(HEAD_START * place).await;
        TcpStream::connect(address).await.map_err(|error| format!("{address}: {error}"))
    });
    select_ok(attempts.map(Box::pin)).await.map(|(stream, _)| stream)
}

/// Makes connections, and trusts who is vouched for by the system's certificates, or those of a file.
pub struct Transport {
    tls: TlsClient,
}

impl Transport {
    /// # Errors
    /// [`RegistryError::Ca`]
    pub fn new(ca: Option<&Path>) -> Result<Transport, RegistryError> {
        let mut roots = Roots::load(None, "--ca")?;
        if let Some(path) = ca {
            roots = roots.and(path)?;
        }
        Ok(Transport { tls: TlsClient::new(&roots, &HTTP_1) })
    }

    async fn connect(&self, origin: &Origin) -> Result<Box<dyn Stream>, RegistryError> {
        let authority = origin.authority();
        let failed = |reason: String| RegistryError::Connect { authority: authority.clone(), reason };
        let stream = first(origin.addresses().await.map_err(failed)?).await.map_err(failed)?;
        if !origin.is_tls {
            return Ok(Box::new(stream));
        }
        let stream = self.tls.connect(&origin.host, stream).await.map_err(|error| {
            let (reason, remedy) = (error.to_string(), self.tls.remedy().clone());
            RegistryError::Tls { authority: authority.clone(), reason, remedy }
        })?;
        Ok(Box::new(stream))
    }

    /// Sends `request`, whose address is whole, on a connection of its own; gives the head of the answer, and its body as it comes.
    ///
    /// # Errors
    /// [`RegistryError`], if there is no head of an answer in time. While something is sent, only the whole command's time counts.
    pub async fn send(&self, mut request: Request<Payload>) -> Result<Response<Incoming>, RegistryError> {
        let origin = Origin::of(request.uri())?;
        let authority = origin.authority();
        let silent = |what, pause| RegistryError::Silent { authority: authority.clone(), what, pause };
        let broken =
            |error: &dyn fmt::Display| RegistryError::Http { authority: authority.clone(), reason: error.to_string() };
        let late = |_| RegistryError::Connect {
            authority: authority.clone(),
            reason: format!("there is no connection after {CONNECT:?}"),
        };
        let stream = timeout(CONNECT, self.connect(&origin)).await.map_err(late)??;
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let path = path.parse().map_err(|error: http::uri::InvalidUri| broken(&error))?;
        let host = authority.parse().map_err(|error: header::InvalidHeaderValue| broken(&error))?;
        *request.uri_mut() = path;
        request.headers_mut().insert(header::HOST, host);
        let agent = header::HeaderValue::from_static(concat!("wasmbox/", env!("CARGO_PKG_VERSION")));
        request.headers_mut().insert(header::USER_AGENT, agent);
        let is_short = request.body().length() <= PIECE as u64;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
        // If it ends first, the exchange says how. It ends when the answer is read or dropped.
        tokio::spawn(connection);
        let answer = sender.send_request(request);
        let answer =
            if is_short { timeout(PAUSE, answer).await.map_err(|_| silent("an answer", PAUSE))? } else { answer.await };
        answer.map_err(|error| broken(&error))
    }
}

/// Reads a body of at most `bound` bytes, each piece into `take`.
///
/// # Errors
/// [`RegistryError`]: what `take` says, or if it is longer, breaks off, or pauses for long.
pub async fn read(
    mut body: Incoming,
    bound: u64,
    about: (&str, &'static str, &'static str),
    mut take: impl FnMut(&[u8]) -> Result<(), RegistryError>,
) -> Result<(), RegistryError> {
    let (authority, what, remedy) = about;
    let authority = || authority.to_owned();
    let too_large = || RegistryError::TooLarge { authority: authority(), what, bound, remedy };
    if body.size_hint().lower() > bound {
        return Err(too_large());
    }
    let mut read = 0;
    loop {
        let frame = timeout(PAUSE, body.frame()).await;
        let frame = frame.map_err(|_| RegistryError::Silent { authority: authority(), what, pause: PAUSE })?;
        let Some(frame) = frame else { return Ok(()) };
        let broken = |error: hyper::Error| RegistryError::Http { authority: authority(), reason: error.to_string() };
        if let Ok(data) = frame.map_err(broken)?.into_data() {
            read += data.len() as u64;
            if read > bound {
                return Err(too_large());
            }
            take(&data)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    #[tokio::test]
    async fn an_address_that_does_not_answer_leaves_the_time_to_others() {
        let alive = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let silent = socket.listen(0).unwrap();
        let (alive, silent) = ((alive.local_addr().unwrap(), alive), (silent.local_addr().unwrap(), silent));
        // With one that waits to be accepted there is no place for another: what else comes is not answered.
        let _waits = TcpStream::connect(silent.0).await.unwrap();
        let stream = timeout(CONNECT, first(vec![silent.0, silent.0, alive.0])).await.unwrap().unwrap();
        assert_eq!(stream.peer_addr().unwrap(), alive.0);
        let closed = "127.0.0.1:1".parse().unwrap();
        assert_eq!(first(vec![closed, alive.0]).await.unwrap().peer_addr().unwrap(), alive.0);
        assert!(first(vec![closed]).await.unwrap_err().contains("127.0.0.1:1: "));
    }
}
