//! A collector of OpenTelemetry: takes OTLP by HTTP as the test tells it to, and remembers what came. The messages are those of the specification
//! (opentelemetry-proto 1.x), read apart from how the box writes them.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use prost::Message;
use rustls::ServerConfig;
use tokio::{net::TcpListener, runtime::Runtime, time::sleep};
use tokio_rustls::TlsAcceptor;

use crate::eventually;

mod message {
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Request {
        #[prost(message, repeated, tag = "1")]
        pub resource_spans: Vec<ResourceSpans>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct ResourceSpans {
        #[prost(message, optional, tag = "1")]
        pub resource: Option<Resource>,
        #[prost(message, repeated, tag = "2")]
        pub scope_spans: Vec<ScopeSpans>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Resource {
        #[prost(message, repeated, tag = "1")]
        pub attributes: Vec<KeyValue>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct ScopeSpans {
        #[prost(message, repeated, tag = "2")]
        pub spans: Vec<Span>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Span {
        #[prost(bytes = "vec", tag = "1")]
        pub trace_id: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")]
        pub span_id: Vec<u8>,
        #[prost(string, tag = "3")]
        pub trace_state: String,
        #[prost(bytes = "vec", tag = "4")]
        pub parent_span_id: Vec<u8>,
        #[prost(string, tag = "5")]
        pub name: String,
        #[prost(int32, tag = "6")]
        pub kind: i32,
        #[prost(fixed64, tag = "7")]
        pub start: u64,
        #[prost(fixed64, tag = "8")]
        pub end: u64,
        #[prost(message, repeated, tag = "9")]
        pub attributes: Vec<KeyValue>,
        #[prost(message, repeated, tag = "11")]
        pub events: Vec<Event>,
        #[prost(message, optional, tag = "15")]
        pub status: Option<Status>,
        #[prost(fixed32, tag = "16")]
        pub flags: u32,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Event {
        #[prost(fixed64, tag = "1")]
        pub time: u64,
        #[prost(string, tag = "2")]
        pub name: String,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Status {
        #[prost(string, tag = "2")]
        pub message: String,
        #[prost(int32, tag = "3")]
        pub code: i32,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct KeyValue {
        #[prost(string, tag = "1")]
        pub key: String,
        #[prost(message, optional, tag = "2")]
        pub value: Option<AnyValue>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct AnyValue {
        #[prost(oneof = "Value", tags = "1, 3")]
        pub value: Option<Value>,
    }
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Value {
        #[prost(string, tag = "1")]
        Text(String),
        #[prost(int64, tag = "3")]
        Number(i64),
    }
}

/// A span, with identifiers as digits.
#[derive(Debug, Clone)]
pub struct Span {
    pub trace: String,
    pub id: String,
    pub parent: String,
    pub state: String,
    pub name: String,
    pub kind: i32,
    pub start: u64,
    pub end: u64,
    pub attributes: BTreeMap<String, String>,
    pub events: Vec<String>,
    /// The status' code and message.
    pub status: (i32, String),
    pub flags: u32,
}

/// How the next requests are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    Takes,
    /// With this status, and a pause in seconds.
    Refuses(u16, Option<u32>),
    /// But for so many spans, fewer than 128.
    Rejects(u8),
    /// Never.
    Silent,
    /// With as many bytes, all that it is given time for.
    Talks(u64),
}

#[derive(Default)]
struct Seen {
    requests: Vec<HeaderMap>,
    times: Vec<Instant>,
    spans: Vec<Span>,
    resource: BTreeMap<String, String>,
    largest: usize,
    /// Bytes of its answers that somebody has read.
    talked: u64,
}

/// A running collector; it ends when this is dropped.
pub struct Collector {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    mood: Arc<Mutex<Mood>>,
    runtime: Option<Runtime>,
}

fn digits(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn attributes(pairs: Vec<message::KeyValue>) -> BTreeMap<String, String> {
    let text = |value: Option<message::AnyValue>| match value.and_then(|value| value.value) {
        Some(message::Value::Text(text)) => text,
        Some(message::Value::Number(number)) => number.to_string(),
        None => panic!("an attribute without a value"),
    };
    pairs.into_iter().map(|pair| (pair.key, text(pair.value))).collect()
}

impl From<message::Span> for Span {
    fn from(span: message::Span) -> Span {
        Span {
            trace: digits(&span.trace_id),
            id: digits(&span.span_id),
            parent: digits(&span.parent_span_id),
            state: span.trace_state,
            name: span.name,
            kind: span.kind,
            start: span.start,
            end: span.end,
            attributes: attributes(span.attributes),
            events: span.events.into_iter().map(|event| event.name).collect(),
            status: span.status.map(|status| (status.code, status.message)).unwrap_or_default(),
            flags: span.flags,
        }
    }
}

impl Seen {
    fn take(&mut self, headers: HeaderMap, body: &[u8]) {
        let request = message::Request::decode(body).expect("an ExportTraceServiceRequest");
        self.requests.push(headers);
        self.largest = self.largest.max(body.len());
        for of_resource in request.resource_spans {
            self.resource = attributes(of_resource.resource.expect("a resource").attributes);
            self.spans.extend(of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans).map(Span::from));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Collector {
    /// One without TLS that takes all.
    pub fn start() -> Collector {
        Collector::at("127.0.0.1:0", None)
    }

    /// # Panics
    /// If the address is taken.
    pub fn at(address: &str, tls: Option<Arc<ServerConfig>>) -> Collector {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a thread");
        let listener = runtime.block_on(async {
            let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
            // For one that takes the place of another.
            socket.set_reuseaddr(true).expect("an option");
            socket.bind(address.parse().expect("an address")).expect("a free port");
            socket.listen(64).expect("a listener")
        });
        let address = listener.local_addr().expect("a bound socket");
        let (seen, mood) = (Arc::<Mutex<Seen>>::default(), Arc::new(Mutex::new(Mood::Takes)));
        runtime.spawn(serve(listener, tls.map(TlsAcceptor::from), seen.clone(), mood.clone()));
        Collector { address, seen, mood, runtime: Some(runtime) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn set(&self, mood: Mood) {
        *lock(&self.mood) = mood;
    }

    /// Requests that came, whatever they were answered.
    pub fn requests(&self) -> Vec<HeaderMap> {
        lock(&self.seen).requests.clone()
    }

    /// When they came.
    pub fn times(&self) -> Vec<Instant> {
        lock(&self.seen).times.clone()
    }

    /// The most bytes of one of them.
    pub fn largest(&self) -> usize {
        lock(&self.seen).largest
    }

    pub fn talked(&self) -> u64 {
        lock(&self.seen).talked
    }

    pub fn resource(&self) -> BTreeMap<String, String> {
        lock(&self.seen).resource.clone()
    }

    pub fn spans(&self) -> Vec<Span> {
        lock(&self.seen).spans.clone()
    }

    /// Waits for the server spans of `number` invocations, and gives all spans.
    pub fn wait_for(&self, number: usize) -> Vec<Span> {
        eventually(&format!("{number} invocations at the collector"), || {
            let spans = self.spans();
            (spans.iter().filter(|span| span.kind == 2).count() >= number).then_some(spans)
        })
    }

    /// Ends it, and gives its address for another one.
    pub fn stop(mut self) -> String {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(1));
        }
        self.address.to_string()
    }
}

async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, seen: Arc<Mutex<Seen>>, mood: Arc<Mutex<Mood>>) {
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        let (tls, seen, mood) = (tls.clone(), seen.clone(), mood.clone());
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let (seen, mood) = (seen.clone(), mood.clone());
                async move { Ok::<_, Infallible>(answer(request, &seen, &mood).await) }
            });
            let http = http1::Builder::new();
            match tls {
                None => drop(http.serve_connection(TokioIo::new(stream), service).await),
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        drop(http.serve_connection(TokioIo::new(stream), service).await);
                    }
                }
            }
        });
    }
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

async fn answer(request: Request<Incoming>, seen: &Arc<Mutex<Seen>>, mood: &Mutex<Mood>) -> Response<Body> {
    let (head, body) = request.into_parts();
    lock(seen).times.push(Instant::now());
    assert_eq!((head.method.as_str(), head.uri.path()), ("POST", "/v1/traces"));
    assert_eq!(head.headers["content-type"], "application/x-protobuf");
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let mood = *lock(mood);
    if mood == Mood::Silent {
        sleep(Duration::from_secs(3600)).await;
    }
    let response = Response::builder();
    let (response, length) = match mood {
        Mood::Refuses(status, pause) => {
            lock(seen).requests.push(head.headers.clone());
            let response = response.status(status);
            (pause.into_iter().fold(response, |response, pause| response.header("retry-after", pause)), 0)
        }
        Mood::Talks(length) => (response, length),
        Mood::Takes | Mood::Rejects(_) | Mood::Silent => (response, 0),
    };
    // An ExportTraceServiceResponse with an ExportTracePartialSuccess.
    let said = if let Mood::Rejects(spans) = mood { Bytes::from(vec![0x0a, 2, 0x08, spans]) } else { Bytes::new() };
    if matches!(mood, Mood::Takes | Mood::Rejects(_) | Mood::Talks(_)) {
        lock(seen).take(head.headers, &body);
    }
    let seen = seen.clone();
    let pieces = (0..length.div_ceil(64 << 10)).map(move |_| {
        lock(&seen).talked += 64 << 10;
        Ok(Frame::data(Bytes::from_static(&[0; 64 << 10])))
    });
    response
        .body(StreamBody::new(stream::iter([Ok(Frame::data(said))].into_iter().chain(pieces))).boxed_unsync())
        .expect("a response")
}
