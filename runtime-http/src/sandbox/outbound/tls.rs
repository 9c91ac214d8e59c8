//! TLS to servers: who vouches for them, which versions of HTTP are offered. A server for which nobody vouches is not talked to.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore,
    client::Resumption,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::failure;
use crate::invocation::Host;

/// The most bytes that wait to be encrypted or sent.
const BUFFER: usize = 16 << 10;

#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    #[error("--outbound-ca (OUTBOUND_CA) {}: {reason}; let it be a readable file with certificates in PEM", path.display())]
    File { path: PathBuf, reason: String },
}

/// Who vouches for servers.
#[derive(Debug, Clone)]
pub struct Roots {
    store: Arc<RootCertStore>,
    origin: Origin,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    System,
    File,
}

impl Roots {
    /// Nobody: where nothing is granted.
    pub fn none() -> Roots {
        Roots { store: Arc::new(RootCertStore::empty()), origin: Origin::System }
    }

    /// Those in `file`, else the system's. It reads files that the box can no longer reach later.
    ///
    /// # Errors
    /// If there is none in `file`. A system may have none.
    pub fn load(file: Option<&Path>) -> Result<Roots, RootsError> {
        let mut store = RootCertStore::empty();
        let Some(path) = file else {
            // What is not found or cannot be used is left out: what is missing is said when it is needed.
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            return Ok(Roots { store: Arc::new(store), origin: Origin::System });
        };
        let error = |reason: String| RootsError::File { path: path.to_owned(), reason };
        for certificate in CertificateDer::pem_file_iter(path).map_err(|source| error(source.to_string()))? {
            let certificate = certificate.map_err(|source| error(source.to_string()))?;
            store.add(certificate).map_err(|source| error(source.to_string()))?;
        }
        if store.is_empty() {
            return Err(error("it has no certificate".into()));
        }
        Ok(Roots { store: Arc::new(store), origin: Origin::File })
    }

    /// What to do about a server for which these do not vouch.
    fn remedy(&self) -> &'static str {
        match self.origin {
            Origin::File => "if it is to be trusted, add who has issued its certificate to --outbound-ca (OUTBOUND_CA)",
            Origin::System if self.store.is_empty() => {
                "this system has no certificates (/etc/ssl/certs): add them, or name a file with --outbound-ca (OUTBOUND_CA)"
            }
            Origin::System => {
                "if it is to be trusted, name a file with who has issued its certificate by --outbound-ca (OUTBOUND_CA)"
            }
        }
    }
}

/// A client of TLS for all functions. It remembers nothing of one connection for the next: sessions would be shared.
pub struct TlsClient {
    connector: TlsConnector,
    remedy: &'static str,
}

impl TlsClient {
    pub fn new(roots: &Roots) -> TlsClient {
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider has the suites of TLS 1.2 and 1.3")
            .with_root_certificates(roots.store.clone())
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.resumption = Resumption::disabled();
        TlsClient { connector: TlsConnector::from(Arc::new(config)), remedy: roots.remedy() }
    }

    /// What to do about a server that is not trusted.
    pub fn remedy(&self) -> &'static str {
        self.remedy
    }

    /// # Errors
    /// If the server is none of TLS, or not `host` by the word of somebody who vouches.
    pub async fn connect(&self, host: &Host, stream: TcpStream) -> Result<TlsStream<TcpStream>, failure::TlsFailure> {
        let name = match host {
            Host::Name(name) => ServerName::try_from(name.clone()).map_err(|_| failure::TlsFailure::Name)?,
            Host::Address(address) => ServerName::from(*address),
        };
        let connect = self.connector.connect_with(name, stream, |connection| connection.set_buffer_limit(Some(BUFFER)));
        connect.await.map_err(failure::TlsFailure::of)
    }
}

/// Whether the server has chosen HTTP/2.
pub fn is_http2(stream: &TlsStream<TcpStream>) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(b"h2")
}
