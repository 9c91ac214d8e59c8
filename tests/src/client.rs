//! Whole requests and whole answers, through hyper.

use std::{convert::Infallible, net::SocketAddr, sync::OnceLock};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, Response, Version, header, request::Builder};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::{net::TcpStream, runtime::Runtime, task::JoinHandle};

use crate::patience::PATIENCE;

/// In which a box is asked.
pub const VERSIONS: [Version; 2] = [Version::HTTP_11, Version::HTTP_2];

/// An answer, complete.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub version: Version,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: Option<HeaderMap>,
}

/// An answer that did not come, or was broken off.
#[derive(Clone)]
pub struct Broken {
    /// The status, if the head came.
    pub status: Option<u16>,
    /// What came of the body.
    pub body: Bytes,
    pub reason: String,
    /// Whether its end was waited for in vain.
    pub hangs: bool,
}

impl std::fmt::Debug for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "status {:?}, {} bytes, then {}", self.status, self.body.len(), self.reason)
    }
}

/// What an error's document says.
#[derive(Debug)]
pub struct Problem(Value);

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime for clients")
    })
}

/// Sends one request on a connection of its own, in HTTP/1.1 or, if the request says so, HTTP/2 without negotiation ("h2c").
///
/// # Errors
/// [`Broken`] if there is no whole answer.
pub fn exchange(address: SocketAddr, request: Builder, body: impl Into<Bytes>) -> Result<Answer, Broken> {
    runtime().block_on(patiently(address, request, body.into()))
}

/// As [`exchange`], on this thread alone: it may be in another network.
///
/// # Errors
/// [`Broken`] if there is no whole answer.
///
/// # Panics
/// If there cannot be a runtime.
pub fn exchange_alone(address: SocketAddr, request: Builder, body: Bytes) -> Result<Answer, Broken> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime for one request").block_on(patiently(address, request, body))
}

async fn patiently(address: SocketAddr, request: Builder, body: Bytes) -> Result<Answer, Broken> {
    let mut request = request.body(Full::new(body)).expect("the test's request is one");
    let is_http2 = request.version() == Version::HTTP_2;
    if is_http2 {
        let path = request.uri().path_and_query().expect("the test's request has a path");
        *request.uri_mut() = format!("http://{address}{path}").parse().expect("address and path are a URI");
    } else if !request.headers().contains_key(header::HOST) {
        let host = address.to_string().parse().expect("an address is a header's value");
        request.headers_mut().insert(header::HOST, host);
    }
    let answer = tokio::time::timeout(PATIENCE, send(address, is_http2, request)).await;
    let hanging = |_| {
        let reason = format!("no answer within {PATIENCE:?}");
        Err(Broken { status: None, body: Bytes::new(), reason, hangs: true })
    };
    answer.unwrap_or_else(hanging)
}

/// One HTTP/2 connection.
pub struct Http2 {
    address: SocketAddr,
    sender: http2::SendRequest<UnsyncBoxBody<Bytes, Infallible>>,
}

impl Http2 {
    /// # Panics
    /// If the server does not speak HTTP/2.
    pub fn connect(address: SocketAddr) -> Http2 {
        let sender = runtime().block_on(async {
            let stream = TokioIo::new(TcpStream::connect(address).await.expect("the server accepts connections"));
            let handshake = http2::handshake(TokioExecutor::new(), stream).await;
            let (sender, connection) = handshake.expect("the server speaks HTTP/2");
            tokio::spawn(connection);
            sender
        });
        Http2 { address, sender }
    }

    fn start(&self, path: &str) -> JoinHandle<hyper::Result<Response<Incoming>>> {
        self.begin(Request::get(format!("http://{}{path}", self.address)).body(Full::default().boxed_unsync()))
    }

    /// Sends a body whose length is not announced, with trailers after it.
    ///
    /// # Panics
    /// If it is not answered.
    pub fn post(&self, path: &str, body: impl Into<Bytes>, trailers: HeaderMap) -> Answer {
        let frames = [Frame::data(body.into()), Frame::trailers(trailers)].map(Ok);
        let body = StreamBody::new(futures_util::stream::iter(frames));
        let request = Request::post(format!("http://{}{path}", self.address)).body(body.boxed_unsync());
        let request = self.begin(request);
        runtime().block_on(async {
            let response = tokio::time::timeout(PATIENCE, request).await.expect("an answer in time");
            received(response.expect("no panic").expect("an answer")).await.expect("a whole answer")
        })
    }

    fn begin(
        &self,
        request: http::Result<Request<UnsyncBoxBody<Bytes, Infallible>>>,
    ) -> JoinHandle<hyper::Result<Response<Incoming>>> {
        let mut sender = self.sender.clone();
        runtime().spawn(async move {
            sender.ready().await?;
            sender.send_request(request.expect("the test's request is one")).await
        })
    }

    /// Sends all requests at once; the answers are in the requests' order.
    ///
    /// # Panics
    /// If one of them is not answered.
    pub fn get_all(&self, paths: &[String]) -> Vec<Answer> {
        let requests: Vec<_> = paths.iter().map(|path| self.start(path)).collect();
        let answer = async |request: JoinHandle<hyper::Result<Response<Incoming>>>| {
            let response = request.await.expect("no panic").expect("an answer");
            received(response).await.expect("a whole answer")
        };
        let answers = requests.into_iter().map(|request| {
            runtime().block_on(async { tokio::time::timeout(PATIENCE, answer(request)).await.expect("in time") })
        });
        answers.collect()
    }

    /// Sends one request and reads nothing but the head of its answer, as long as what is returned lives.
    ///
    /// # Panics
    /// If it is not answered.
    pub fn open(&self, path: &str) -> Response<Incoming> {
        let request = self.start(path);
        runtime().block_on(async {
            let response = tokio::time::timeout(PATIENCE, request).await.expect("an answer in time");
            response.expect("no panic").expect("an answer")
        })
    }

    /// Reads the rest of what was opened.
    ///
    /// # Errors
    /// [`Broken`] if it does not come to its end.
    pub fn rest(&self, response: Response<Incoming>) -> Result<Answer, Broken> {
        runtime().block_on(async { tokio::time::timeout(PATIENCE, received(response)).await.expect("in time") })
    }

    /// Sends all requests, and resets their streams after `meanwhile`.
    pub fn reset_all(&self, paths: &[String], meanwhile: impl FnOnce()) {
        let requests: Vec<_> = paths.iter().map(|path| self.start(path)).collect();
        meanwhile();
        for request in requests {
            request.abort();
        }
    }
}

async fn send(address: SocketAddr, is_http2: bool, request: Request<Full<Bytes>>) -> Result<Answer, Broken> {
    let nothing =
        |error: &dyn std::error::Error| Broken { status: None, body: Bytes::new(), reason: chain(error), hangs: false };
    let stream = TokioIo::new(TcpStream::connect(address).await.map_err(|error| nothing(&error))?);
    let response = if is_http2 {
        let (mut sender, connection) =
            http2::handshake(TokioExecutor::new(), stream).await.map_err(|error| nothing(&error))?;
        tokio::spawn(connection);
        sender.send_request(request).await
    } else {
        let (mut sender, connection) = http1::handshake(stream).await.map_err(|error| nothing(&error))?;
        tokio::spawn(connection);
        sender.send_request(request).await
    };
    received(response.map_err(|error| nothing(&error))?).await
}

async fn received(response: Response<Incoming>) -> Result<Answer, Broken> {
    let (head, mut incoming) = response.into_parts();
    let status = head.status.as_u16();
    let (mut body, mut trailers) = (BytesMut::new(), None);
    while let Some(frame) = incoming.frame().await {
        match frame.map(hyper::body::Frame::into_data) {
            Ok(Ok(data)) => body.extend_from_slice(&data),
            Ok(Err(other)) => trailers = other.into_trailers().ok(),
            Err(error) => {
                let (body, reason) = (body.freeze(), chain(&error));
                return Err(Broken { status: Some(status), body, reason, hangs: false });
            }
        }
    }
    Ok(Answer { status, version: head.version, headers: head.headers, body: body.freeze(), trailers })
}

fn chain(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {}", chain(source)))
}

impl Answer {
    /// The body as text.
    ///
    /// # Panics
    /// If it is none.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the answer's body is UTF-8")
    }

    /// The value of header `name`.
    ///
    /// # Panics
    /// If it is missing or no text.
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).unwrap_or_else(|| panic!("no header {name} in {self:?}"));
        value.to_str().expect("the header's value is text")
    }

    /// Header `name` as a number.
    ///
    /// # Panics
    /// If it is missing or no number.
    pub fn number(&self, name: &str) -> f64 {
        let value = self.header(name);
        value.parse().unwrap_or_else(|_| panic!("{name}: {value} is no number"))
    }

    /// This answer, which must have status 200.
    ///
    /// # Panics
    /// If it has not.
    #[track_caller]
    pub fn ok(self) -> Answer {
        assert_eq!(self.status, 200, "{self:?}");
        self
    }

    /// The problem that this answer must be, whole: status, code, and everything that each error has.
    ///
    /// # Panics
    /// If something differs.
    #[track_caller]
    pub fn problem(&self, status: u16, code: &str) -> Problem {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(self.header("wasmbox-error"), code);
        assert_eq!(self.header("cache-control"), "no-store");
        let document: Value = serde_json::from_slice(&self.body).expect("a problem is a JSON document");
        assert_eq!(document["code"], code);
        assert_eq!(document["status"], status);
        assert_eq!(document["type"], format!("urn:wasmbox:problem:{code}"));
        for member in ["title", "detail"] {
            assert!(document[member].as_str().is_some_and(|text| !text.is_empty()), "{member} in {document}");
        }
        let retry_after = self.headers.get("retry-after").map(|value| value.to_str().expect("digits").parse::<u32>());
        assert_eq!(retry_after.is_some(), status == 503, "Retry-After with 503, and only then: {self:?}");
        assert!(!matches!(retry_after, Some(Err(_) | Ok(0))), "{retry_after:?}");
        assert_eq!(self.headers.contains_key("allow"), status == 405, "Allow with 405, and only then: {self:?}");
        Problem(document)
    }
}

impl Problem {
    /// The explanation for people.
    ///
    /// # Panics
    /// If there is none.
    pub fn detail(&self) -> &str {
        self.0["detail"].as_str().expect("checked when it was made")
    }

    /// A member beside the standard ones.
    pub fn member(&self, name: &str) -> &Value {
        &self.0[name]
    }

    /// The detail must name all of `parts`.
    ///
    /// # Panics
    /// If it does not.
    #[track_caller]
    pub fn names(&self, parts: &[&str]) {
        for part in parts {
            assert!(self.detail().contains(part), "{part:?} is not in {:?}", self.detail());
        }
    }
}
