//! A server that functions send requests to: HTTP/1.1 or HTTP/2, with or without TLS. The path says what it does.

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    runtime::Runtime,
    time::sleep,
};
use tokio_rustls::TlsAcceptor;

/// A running server; it ends when this is dropped.
pub struct Upstream {
    address: SocketAddr,
    seen: Arc<Seen>,
    _runtime: Runtime,
}

#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    open: AtomicUsize,
    requests: AtomicUsize,
}

type Body = UnsyncBoxBody<Bytes, Broken>;

/// What breaks an answer off.
#[derive(Debug)]
struct Broken;

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("broken off on purpose")
    }
}

impl std::error::Error for Broken {}

impl Upstream {
    /// Without TLS.
    pub fn plain(address: &str) -> Upstream {
        Upstream::start(address, None)
    }

    pub fn secure(address: &str, config: Arc<ServerConfig>) -> Upstream {
        Upstream::start(address, Some(config))
    }

    fn start(address: &str, tls: Option<Arc<ServerConfig>>) -> Upstream {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a thread");
        let listener = runtime.block_on(TcpListener::bind(address)).expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let seen = Arc::<Seen>::default();
        runtime.spawn(serve(listener, tls.map(TlsAcceptor::from), seen.clone()));
        Upstream { address, seen, _runtime: runtime }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Connections that were ever opened to it.
    pub fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    /// Connections that are open now.
    pub fn open(&self) -> usize {
        self.seen.open.load(Ordering::SeqCst)
    }

    pub fn requests(&self) -> usize {
        self.seen.requests.load(Ordering::SeqCst)
    }
}

async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, seen: Arc<Seen>) {
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        let _ = stream.set_nodelay(true);
        let number = seen.connections.fetch_add(1, Ordering::SeqCst) + 1;
        seen.open.fetch_add(1, Ordering::SeqCst);
        let (tls, seen) = (tls.clone(), seen.clone());
        tokio::spawn(async move {
            match tls {
                None => connection(stream, number, &seen).await,
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        connection(stream, number, &seen).await;
                    }
                }
            }
            seen.open.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

async fn connection(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, number: usize, seen: &Arc<Seen>) {
    let service = service_fn(move |request| {
        seen.requests.fetch_add(1, Ordering::SeqCst);
        async move { Ok::<_, Infallible>(answer(request, number).await) }
    });
    let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
}

fn data(bytes: impl Into<Bytes>) -> Result<Frame<Bytes>, Broken> {
    Ok(Frame::data(bytes.into()))
}

type Frames = Pin<Box<dyn stream::Stream<Item = Result<Frame<Bytes>, Broken>> + Send>>;

fn one(text: impl Into<Bytes>) -> Frames {
    Box::pin(stream::iter([data(text)]))
}

fn after(millis: u64, text: &'static str) -> Frames {
    Box::pin(stream::once(async move {
        sleep(Duration::from_millis(millis)).await;
        data(text)
    }))
}

/// `/echo`, `/read` (its length and trailers), `/trailers`, `/slow-head?MS`, `/slow-body?MS`, `/steps?MS` (five parts, so long apart), `/broken`,
/// `/bytes?N`, `/close`, `/status?N`, `/field?N` (a field of that length), `/trace` (what came of a trace); all others say what came.
async fn answer(request: Request<Incoming>, number: usize) -> Response<Body> {
    let version = format!("{:?}", request.version());
    let header = |name: &str| {
        let values = request.headers().get_all(name).iter();
        values.map(|value| value.to_str().unwrap_or("?")).collect::<Vec<_>>().join("|")
    };
    let described = format!(
        "{} {} host={} authority={} te={}",
        request.method(),
        request.uri().path_and_query().map_or("", |path| path.as_str()),
        header("host"),
        request.uri().authority().map_or("", |authority| authority.as_str()),
        header("te"),
    );
    let query = request.uri().query().unwrap_or_default().to_owned();
    let number_of = || query.parse::<u64>().expect("a number");
    let mut response = Response::builder().header("x-version", version).header("x-connection", number);
    let frames: Frames = match request.uri().path() {
        // Otherwise it would be sent on HTTP/2.
        _ if request.method() == http::Method::HEAD => Box::pin(stream::empty()),
        "/echo" => {
            Box::pin(request.into_body().into_data_stream().map(|part| part.map(Frame::data).map_err(|_| Broken)))
        }
        "/read" => {
            let (length, trailers) = match request.into_body().collect().await {
                Ok(body) => {
                    let trailers = body.trailers().map(|trailers| format!("{trailers:?}")).unwrap_or_default();
                    (body.to_bytes().len().to_string(), trailers)
                }
                Err(_) => ("broken off".into(), String::new()),
            };
            one(format!("read {length} {trailers}"))
        }
        "/trailers" => {
            let trailers = HeaderMap::from_iter([(http::header::ETAG, HeaderValue::from_static("\"42\""))]);
            response = response.header("trailer", "etag");
            Box::pin(stream::iter([data("before"), Ok(Frame::trailers(trailers))]))
        }
        "/slow-head" => {
            sleep(Duration::from_millis(number_of())).await;
            one("late")
        }
        "/slow-body" => Box::pin(one("first ").chain(after(number_of(), "second"))),
        "/steps" => {
            let pause = number_of();
            Box::pin(stream::iter(0..5).then(move |_| async move {
                sleep(Duration::from_millis(pause)).await;
                data("step ")
            }))
        }
        "/broken" => Box::pin(one("first ").chain(after(50, "second ")).chain(stream::iter([Err(Broken)]))),
        "/bytes" => {
            let whole = vec![b'x'; 64 << 10];
            let left = number_of() as usize;
            let sizes = (0..left).step_by(64 << 10).map(move |from| (left - from).min(64 << 10));
            Box::pin(stream::iter(sizes.map(move |size| data(Bytes::copy_from_slice(&whole[..size])))))
        }
        "/close" => {
            response = response.header("connection", "close");
            one("closed")
        }
        "/status" => {
            response = response.status(number_of() as u16).header("location", "http://127.0.0.1:1/");
            one("as asked")
        }
        "/field" => {
            response = response.header("x-large", "x".repeat(number_of() as usize));
            one("")
        }
        "/trace" => one(format!("traceparent={} tracestate={}", header("traceparent"), header("tracestate"))),
        _ => one(described),
    };
    response.body(StreamBody::new(frames).boxed_unsync()).expect("a response")
}
