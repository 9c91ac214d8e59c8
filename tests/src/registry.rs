//! Registries of images: a real one, of the distribution project, and those that say what a test wants.

use std::{
    convert::Infallible,
    fmt::Write as _,
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{Request, Response};
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::runtime::Runtime;

use crate::{eventually, node::Node, temporary::TempDir, workspace};

/// Who may use a registry that asks.
pub const USER: &str = "ada";
pub const PASSWORD: &str = "open-sesame";
/// Both, as they are in docker's files.
pub const AUTH: &str = "YWRhOm9wZW4tc2VzYW1l";
/// The password, by bcrypt.
const HTPASSWD: &str = "ada:$2a$04$238Yo3t.dFGH7y7PQ16xm./v7nnVCEbfsq7734p2gffQhaT4cyb9q\n";

/// `sha256:...` of something.
pub fn digest(bytes: impl AsRef<[u8]>) -> String {
    Sha256::digest(bytes).iter().fold("sha256:".to_owned(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The distribution project's registry. Dropping it ends it.
pub struct RealRegistry {
    address: SocketAddr,
    child: Child,
    _directory: TempDir,
}

impl RealRegistry {
    /// Whom everybody may use, without TLS.
    pub fn open() -> RealRegistry {
        RealRegistry::start(false, None)
    }

    /// Who asks for a name and password, with TLS if there are files with a certificate and its key.
    ///
    /// # Panics
    /// With what to do about it, if there is no such registry.
    pub fn start(asks: bool, certificate: Option<(&Path, &Path)>) -> RealRegistry {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port");
        let registry = RealRegistry::listening(Command::new(RealRegistry::binary()), free, asks, certificate);
        eventually("the registry listens", || TcpStream::connect(free).ok());
        registry
    }

    /// On a node's network, for everybody there, without TLS.
    ///
    /// # Panics
    /// As [`RealRegistry::start`].
    pub fn on(node: &Node) -> RealRegistry {
        RealRegistry::listening_on(node, 5000, None)
    }

    /// On a node's network, for everybody there, with TLS at its usual port.
    ///
    /// # Panics
    /// As [`RealRegistry::start`].
    pub fn certified_on(node: &Node, certificate: (&Path, &Path)) -> RealRegistry {
        RealRegistry::listening_on(node, 443, Some(certificate))
    }

    fn listening_on(node: &Node, port: u16, certificate: Option<(&Path, &Path)>) -> RealRegistry {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let command = node.on_its_network(RealRegistry::binary());
        let registry = RealRegistry::listening(command, address, false, certificate);
        eventually("the registry listens", || node.connect(address).ok());
        registry
    }

    fn binary() -> PathBuf {
        workspace::root().join("target/tools/go/registry")
    }

    fn listening(
        mut command: Command,
        address: SocketAddr,
        asks: bool,
        certificate: Option<(&Path, &Path)>,
    ) -> RealRegistry {
        assert!(RealRegistry::binary().exists(), "there is no registry; `make e2e` builds it, with Go");
        let directory = TempDir::new();
        let root = directory.path().join("data");
        let mut config = json!({
            "version": "0.1",
            "log": {"level": "error", "accesslog": {"disabled": true}},
            "storage": {"filesystem": {"rootdirectory": root}},
            "http": {"addr": address.to_string()},
        });
        if asks {
            let path = directory.path().join("htpasswd");
            fs::write(&path, HTPASSWD).expect("a file");
            config["auth"] = json!({"htpasswd": {"realm": "test", "path": path}});
        }
        if let Some((certificate, key)) = certificate {
            config["http"]["tls"] = json!({"certificate": certificate, "key": key});
        }
        // JSON is YAML.
        let path = directory.path().join("config.yml");
        fs::write(&path, config.to_string()).expect("a file");
        command.arg("serve").arg(path).env("OTEL_TRACES_EXPORTER", "none").stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("the registry; `make e2e` builds it, with Go");
        RealRegistry { address, child, _directory: directory }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for RealRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How a registry of a test's own answers.
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Flow,
}

/// A body.
pub enum Flow {
    Whole(Vec<u8>),
    /// Zeros without end.
    Endless,
    /// These bytes, and then nothing for ever.
    Stalls(Vec<u8>),
}

impl Reply {
    pub fn of(status: u16, body: impl Into<Vec<u8>>) -> Reply {
        Reply { status, headers: Vec::new(), body: Flow::Whole(body.into()) }
    }

    pub fn flow(body: Flow) -> Reply {
        Reply { status: 200, headers: Vec::new(), body }
    }

    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl ToString) -> Reply {
        self.headers.push((name, value.to_string()));
        self
    }
}

/// What was asked, as far as it counts.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: String,
    /// With the query.
    pub path: String,
    pub authorization: String,
    pub body: Bytes,
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A registry that answers as it is told. It ends when this is dropped.
pub struct FakeRegistry {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    _runtime: Runtime,
}

impl FakeRegistry {
    /// # Panics
    /// If there is no port.
    pub fn new(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> FakeRegistry {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a thread");
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let (answer, seen) = (Arc::new(answer), asked.clone());
        runtime.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                let (answer, seen) = (answer.clone(), seen.clone());
                let service = service_fn(move |request| {
                    let (answer, seen) = (answer.clone(), seen.clone());
                    async move {
                        let asked = read(request).await;
                        seen.lock().expect("nobody panics").push(asked.clone());
                        Ok::<_, Infallible>(response(answer(&asked)))
                    }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        FakeRegistry { address, asked, _runtime: runtime }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// # Panics
    /// If an answer has panicked.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("nobody panics").clone()
    }
}

async fn read(request: Request<Incoming>) -> Asked {
    let (head, body) = request.into_parts();
    let authorization = head.headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    Asked {
        method: head.method.to_string(),
        path: head.uri.path_and_query().map_or_else(String::new, ToString::to_string),
        authorization: authorization.to_owned(),
        body,
    }
}

fn response(reply: Reply) -> Response<Body> {
    let frame = |bytes: Vec<u8>| Ok(Frame::data(Bytes::from(bytes)));
    let body: Body = match reply.body {
        Flow::Whole(bytes) => http_body_util::Full::new(Bytes::from(bytes)).boxed_unsync(),
        Flow::Endless => StreamBody::new(stream::repeat_with(move || frame(vec![0; 64 << 10]))).boxed_unsync(),
        Flow::Stalls(bytes) => StreamBody::new(stream::iter([frame(bytes)]).chain(stream::pending())).boxed_unsync(),
    };
    let mut response = Response::new(body);
    *response.status_mut() = reply.status.try_into().expect("a status");
    for (name, value) in reply.headers {
        response.headers_mut().insert(name, value.parse().expect("a header"));
    }
    response
}

/// The documents of a function, for a registry that is to change some of them.
pub struct Documents {
    pub module: Vec<u8>,
    pub config: Value,
    pub manifest: Value,
}

impl Documents {
    pub fn of(module: &[u8]) -> Documents {
        let config = json!({
            "created": "2025-01-01T00:00:00Z",
            "architecture": "wasm",
            "os": "wasip1",
            "layerDigests": [digest(module)],
        });
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.wasm.config.v0+json", "digest": "", "size": 0},
            "layers": [{"mediaType": "application/wasm", "digest": digest(module), "size": module.len()}],
        });
        Documents { module: module.to_vec(), config, manifest }
    }

    /// The manifest, which names the configuration as it is now, if it names one.
    pub fn manifest(&self) -> Vec<u8> {
        let mut manifest = self.manifest.clone();
        let config = self.config.to_string();
        if let Some(descriptor) = manifest.get_mut("config") {
            descriptor["digest"] = digest(&config).into();
            descriptor["size"] = config.len().into();
        }
        manifest.to_string().into_bytes()
    }

    /// As an honest registry answers.
    pub fn answer(&self, asked: &Asked) -> Reply {
        let config = self.config.to_string();
        if asked.path.contains("/manifests/") {
            Reply::of(200, self.manifest())
        } else if asked.path.ends_with(&digest(&config)) {
            Reply::of(200, config)
        } else if asked.path.ends_with(&digest(&self.module)) {
            Reply::of(200, self.module.clone())
        } else {
            Reply::of(404, "")
        }
    }
}
