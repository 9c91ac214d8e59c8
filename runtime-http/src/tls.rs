//! TLS to servers: who vouches for them, which versions of HTTP are offered. A server for which nobody vouches is not talked to.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    CertificateError, ClientConfig, RootCertStore,
    client::Resumption,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::invocation::Host;

/// The most bytes that wait to be encrypted or sent.
const BUFFER: usize = 16 << 10;

#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    #[error("{setting} {}: {reason}; let it be a readable file with certificates in PEM", path.display())]
    File { setting: &'static str, path: PathBuf, reason: String },
}

/// Why there is no TLS connection.
#[derive(Debug, thiserror::Error)]
pub enum TlsFailure {
    #[error("its name cannot be in a certificate")]
    Name,
    #[error("{0}")]
    Certificate(CertificateError),
    #[error("{0}")]
    Tls(rustls::Error),
    #[error("{0}")]
    Io(io::Error),
}

impl TlsFailure {
    /// rustls' errors come inside of those of the socket.
    fn of(error: io::Error) -> TlsFailure {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::InvalidCertificate(reason)) => TlsFailure::Certificate(reason.clone()),
            Some(other) => TlsFailure::Tls(other.clone()),
            None => TlsFailure::Io(error),
        }
    }
}

/// Who vouches for servers.
#[derive(Debug, Clone)]
pub struct Roots {
    store: Arc<RootCertStore>,
    origin: Origin,
    /// By which the operator names a file.
    setting: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    System,
    File,
}

impl Roots {
    /// Nobody: where nothing is granted.
    pub fn none() -> Roots {
        Roots { store: Arc::new(RootCertStore::empty()), origin: Origin::System, setting: "" }
    }

    /// Those in `file`, which `setting` names, else the system's. It reads files that the box can no longer reach later.
    ///
    /// # Errors
    /// If there is none in `file`. A system may have none.
    pub fn load(file: Option<&Path>, setting: &'static str) -> Result<Roots, RootsError> {
        let roots = Roots { setting, ..Roots::none() };
        let Some(path) = file else {
            let mut store = RootCertStore::empty();
            // What is not found or cannot be used is left out: what is missing is said when it is needed.
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            return Ok(Roots { store: Arc::new(store), ..roots });
        };
        roots.and(path)
    }

    /// These, and those in `file` beside them.
    ///
    /// # Errors
    /// If there is none in `file`.
    pub fn and(mut self, file: &Path) -> Result<Roots, RootsError> {
        let error = |reason| RootsError::File { setting: self.setting, path: file.to_owned(), reason };
        add_certificates(Arc::make_mut(&mut self.store), file).map_err(error)?;
        Ok(Roots { origin: Origin::File, ..self })
    }

    /// What to do about a server for which these do not vouch.
    fn remedy(&self) -> String {
        let setting = self.setting;
        match self.origin {
            Origin::File => format!("if it is to be trusted, add who has issued its certificate to {setting}"),
            Origin::System if self.store.is_empty() => {
                format!("this system has no certificates (/etc/ssl/certs): add them, or name a file with {setting}")
            }
            Origin::System => {
                format!("if it is to be trusted, name a file with who has issued its certificate by {setting}")
            }
        }
    }
}

/// Adds the certificates of a file in PEM.
///
/// # Errors
/// If there is none, or one is none, in words.
fn add_certificates(store: &mut RootCertStore, path: &Path) -> Result<(), String> {
    let before = store.len();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| error.to_string())? {
        store.add(certificate.map_err(|error| error.to_string())?).map_err(|error| error.to_string())?;
    }
    if store.len() == before { Err("it has no certificate".into()) } else { Ok(()) }
}

/// A client of TLS, for all functions or for the box itself. It remembers nothing of one connection for the next: sessions would be shared.
pub struct TlsClient {
    connector: TlsConnector,
    remedy: Arc<str>,
}

/// Protocols that a server may choose from.
pub const HTTP_2_AND_1: [&[u8]; 2] = [b"h2", b"http/1.1"];
pub const HTTP_1: [&[u8]; 1] = [b"http/1.1"];

impl TlsClient {
    pub fn new(roots: &Roots, protocols: &[&[u8]]) -> TlsClient {
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider has the suites of TLS 1.2 and 1.3")
            .with_root_certificates(roots.store.clone())
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        config.resumption = Resumption::disabled();
        TlsClient { connector: TlsConnector::from(Arc::new(config)), remedy: roots.remedy().into() }
    }

    /// What to do about a server that is not trusted.
    pub fn remedy(&self) -> &Arc<str> {
        &self.remedy
    }

    /// # Errors
    /// If the server is none of TLS, or not `host` by the word of somebody who vouches.
    pub async fn connect(&self, host: &Host, stream: TcpStream) -> Result<TlsStream<TcpStream>, TlsFailure> {
        let name = match host {
            Host::Name(name) => ServerName::try_from(name.clone()).map_err(|_| TlsFailure::Name)?,
            Host::Address(address) => ServerName::from(*address),
        };
        let connect = self.connector.connect_with(name, stream, |connection| connection.set_buffer_limit(Some(BUFFER)));
        connect.await.map_err(TlsFailure::of)
    }
}

/// Whether the server has chosen HTTP/2.
pub fn is_http2(stream: &TlsStream<TcpStream>) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(b"h2")
}
