//! A Kubernetes API server, as far as a client needs one that forwards a port: a Service, pods, who may do what, and the forwarding itself.
//!
//! What it says is the test's; how it speaks is that of the real one: TLS with a certificate of a private authority, clients by certificate or
//! token, errors as `Status`, and port-forwards by a WebSocket of the protocol `v4.channel.k8s.io`, as kubelets serve them.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, handshake::derive_accept_key, protocol::Role},
};

use crate::Authority;

/// Whoever has it is known.
pub const TOKEN: &str = "a-token-of-the-cluster";
/// That of a port-forward: data of the first port, and what its node has to say.
const PROTOCOL: &str = "v4.channel.k8s.io";
const DATA: u8 = 0;
const ERROR: u8 = 1;

/// What there is in the cluster.
#[derive(Default)]
pub struct Objects {
    /// Documents with `metadata.namespace` and `metadata.name`.
    pub services: Vec<Value>,
    pub pods: Vec<Value>,
    /// What listens at a port of a pod.
    pub listening: Vec<(&'static str, u16, SocketAddr)>,
    /// Ends of paths that nobody may ask for.
    pub forbidden: Vec<&'static str>,
}

/// How somebody was known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    Certificate,
    Token,
}

#[derive(Debug, Clone)]
pub struct Asked {
    pub by: Option<Known>,
    pub path: String,
}

/// A running server; it ends when this is dropped.
pub struct ApiServer {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    _runtime: Runtime,
}

impl ApiServer {
    /// With a certificate of `authority`, which vouches for its clients, too.
    ///
    /// # Panics
    /// If there is no port.
    pub fn start(authority: &Authority, objects: Objects) -> ApiServer {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a thread");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let tls = TlsAcceptor::from(authority.server_that_knows_clients(&["127.0.0.1"]));
        let (objects, asked) = (Arc::new(objects), Arc::<Mutex<Vec<Asked>>>::default());
        let seen = asked.clone();
        runtime.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                let (tls, objects, seen) = (tls.clone(), objects.clone(), seen.clone());
                tokio::spawn(async move {
                    let Ok(stream) = tls.accept(stream).await else { return };
                    let has_certificate = stream.get_ref().1.peer_certificates().is_some();
                    let service = service_fn(move |request| {
                        let answer = answer(&objects, &seen, has_certificate, request);
                        async { Ok::<_, Infallible>(answer) }
                    });
                    let connection = hyper::server::conn::http1::Builder::new();
                    let _ = connection.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
                });
            }
        });
        ApiServer { address, asked, _runtime: runtime }
    }

    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// # Panics
    /// If an answer has panicked.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("nobody panics").clone()
    }
}

type Answer = Response<Full<Bytes>>;

fn document(status: StatusCode, document: &Value) -> Answer {
    let mut answer = Response::new(Full::new(document.to_string().into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, "application/json".parse().expect("a header"));
    answer
}

fn failure(status: StatusCode, message: &str) -> Answer {
    // `NotFound`, as Kubernetes spells it.
    let reason = status.canonical_reason().unwrap_or_default().replace(' ', "");
    let text = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "reason": reason, "code": status.as_u16(),
    });
    document(status, &text)
}

fn answer(
    objects: &Arc<Objects>,
    seen: &Mutex<Vec<Asked>>,
    has_certificate: bool,
    request: Request<Incoming>,
) -> Answer {
    let has_token =
        request.headers().get(header::AUTHORIZATION).is_some_and(|value| value == &format!("Bearer {TOKEN}"));
    let by = if has_certificate { Some(Known::Certificate) } else { has_token.then_some(Known::Token) };
    let path = request.uri().path_and_query().expect("a path").to_string();
    seen.lock().expect("nobody panics").push(Asked { by, path });
    if by.is_none() {
        return failure(StatusCode::UNAUTHORIZED, "Unauthorized");
    }
    let path = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    if objects.forbidden.iter().any(|end| path.ends_with(end)) {
        return failure(StatusCode::FORBIDDEN, &format!("User \"jane\" cannot use {path}"));
    }
    match path.split('/').collect::<Vec<_>>()[..] {
        ["", "api", "v1", "namespaces", namespace, "services", name] => found(&objects.services, namespace, name),
        ["", "api", "v1", "namespaces", namespace, "pods", name] => found(&objects.pods, namespace, name),
        ["", "api", "v1", "namespaces", namespace, "pods"] => pods(objects, namespace, &query),
        ["", "api", "v1", "namespaces", _, "pods", pod, "portforward"] => forward(objects, pod, &query, request),
        _ => failure(StatusCode::NOT_FOUND, "the server could not find the requested resource"),
    }
}

fn is_in(object: &Value, namespace: &str) -> bool {
    object["metadata"]["namespace"] == namespace
}

fn found(objects: &[Value], namespace: &str, name: &str) -> Answer {
    match objects.iter().find(|object| is_in(object, namespace) && object["metadata"]["name"] == name) {
        Some(object) => document(StatusCode::OK, object),
        None => failure(StatusCode::NOT_FOUND, &format!("{name:?} not found")),
    }
}

/// Those that have all labels which the query asks for.
fn pods(objects: &Objects, namespace: &str, query: &str) -> Answer {
    let query = query.replace("%3D", "=").replace("%2C", ",").replace("%2F", "/");
    let selector = query.split('&').find_map(|part| part.strip_prefix("labelSelector=")).expect("a selector");
    let labels: Vec<(&str, &str)> = selector.split(',').map(|label| label.split_once('=').expect("a label")).collect();
    let has = |pod: &Value| labels.iter().all(|(key, value)| pod["metadata"]["labels"][key] == *value);
    let items: Vec<&Value> = objects.pods.iter().filter(|pod| is_in(pod, namespace) && has(pod)).collect();
    document(StatusCode::OK, &json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
}

fn forward(objects: &Objects, pod: &str, query: &str, mut request: Request<Incoming>) -> Answer {
    let port = query.split('&').find_map(|part| part.strip_prefix("ports=")).and_then(|port| port.parse::<u16>().ok());
    let Some(port) = port else { return failure(StatusCode::BAD_REQUEST, "one port is forwarded here") };
    let headers = request.headers();
    let has = |name, part: &str| header_text(headers, name).split(',').any(|has| has.trim().eq_ignore_ascii_case(part));
    if !has("upgrade", "websocket") || !has("sec-websocket-protocol", PROTOCOL) {
        return failure(StatusCode::BAD_REQUEST, "Upgrade request required");
    }
    let key = derive_accept_key(header_text(headers, "sec-websocket-key").as_bytes());
    let to = objects.listening.iter().find(|(name, at, _)| *name == pod && *at == port).map(|(_, _, address)| *address);
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        if let Ok(upgraded) = upgrade.await {
            // A client that is gone has had enough.
            let _ = carry(upgraded, port, to).await;
        }
    });
    let answer = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
    let answer = answer.header(header::CONNECTION, "Upgrade").header(header::UPGRADE, "websocket");
    let answer = answer.header("sec-websocket-accept", key).header("sec-websocket-protocol", PROTOCOL);
    answer.body(Full::default()).expect("an answer")
}

fn header_text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn message(channel: u8, content: &[u8]) -> Message {
    let mut bytes = vec![channel];
    bytes.extend(content);
    Message::Binary(bytes.into())
}

/// Carries bytes until one side ends, as a kubelet does; or says that nothing listens there.
async fn carry(
    upgraded: Upgraded,
    port: u16,
    to: Option<SocketAddr>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
    for channel in [DATA, ERROR] {
        socket.send(message(channel, &port.to_le_bytes())).await?;
    }
    let Some(to) = to else {
        let reason = format!("error forwarding port {port}: dial tcp4 127.0.0.1:{port}: connect: connection refused\n");
        socket.send(message(ERROR, reason.as_bytes())).await?;
        // A client that is still sending when the connection ends does not hear why: it ends it, when it has heard.
        while let Some(Ok(_)) = socket.next().await {}
        return Ok(());
    };
    let (mut from_box, mut to_box) = TcpStream::connect(to).await?.into_split();
    let (mut sink, mut source) = socket.split();
    let there = async {
        while let Some(Ok(next)) = source.next().await {
            match next {
                Message::Binary(bytes) if bytes.first() == Some(&DATA) => to_box.write_all(&bytes[1..]).await?,
                Message::Close(_) => break,
                _ => {}
            }
        }
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
    };
    let back = async {
        let mut piece = vec![0; 16 << 10];
        loop {
            match from_box.read(&mut piece).await? {
                0 => return Ok::<_, Box<dyn std::error::Error + Send + Sync>>(sink.close().await?),
                read => sink.send(message(DATA, &piece[..read])).await?,
            }
        }
    };
    tokio::select! {
        done = there => done,
        done = back => done,
    }
}
