//! Certificates of a private authority, made for one test.

use std::{path::Path, sync::Arc};

use rcgen::{BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use rustls::{
    ConfigBuilder, RootCertStore, ServerConfig, WantsVerifier,
    crypto::ring,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    server::{WantsServerCert, WebPkiClientVerifier},
};

/// Whoever trusts it, trusts whom it names.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Default for Authority {
    fn default() -> Self {
        Authority::new()
    }
}

impl Authority {
    /// # Panics
    /// If keys cannot be made.
    pub fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test authority");
        let key = KeyPair::generate().expect("a key");
        Authority(CertifiedIssuer::self_signed(params, key).expect("a certificate"))
    }

    /// Writes its certificate, in PEM.
    ///
    /// # Panics
    /// If that fails.
    pub fn write(&self, path: &Path) {
        std::fs::write(path, self.0.pem()).expect("a file for the certificate");
    }

    /// What a server needs that is `names`: names of hosts, or addresses. It offers `protocols`.
    pub fn server(&self, names: &[&str], protocols: &[&str]) -> Arc<ServerConfig> {
        self.server_with(names, protocols, |_| {})
    }

    /// The same, whose certificate was good until some years ago.
    pub fn expired_server(&self, names: &[&str]) -> Arc<ServerConfig> {
        self.server_with(names, &["http/1.1"], |params| {
            params.not_before = date_time_ymd(2019, 1, 1);
            params.not_after = date_time_ymd(2020, 1, 1);
        })
    }

    /// Writes a server's certificate and its key, in PEM.
    ///
    /// # Panics
    /// If that fails.
    pub fn write_server(&self, names: &[&str], certificate: &Path, key: &Path) {
        let (issued, pair) = self.issue(names, |_| {});
        std::fs::write(certificate, issued.pem()).expect("a file for the certificate");
        std::fs::write(key, pair.serialize_pem()).expect("a file for the key");
    }

    /// A server that asks its clients for a certificate of this authority; who has none may come, too.
    ///
    /// # Panics
    /// If keys cannot be made.
    pub fn server_that_knows_clients(&self, names: &[&str]) -> Arc<ServerConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).expect("a certificate");
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).allow_unauthenticated();
        let verifier = verifier.build().expect("an authority");
        let issued = self.issue(names, |_| {});
        Arc::new(server(issued, |builder| builder.with_client_cert_verifier(verifier)))
    }

    fn issue(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> (Certificate, KeyPair) {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).expect("names that can be in a certificate");
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        (certificate, key)
    }

    fn server_with(
        &self,
        names: &[&str],
        protocols: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Arc<ServerConfig> {
        let mut config = server(self.issue(names, change), |builder| builder.with_no_client_auth());
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

fn server(
    (certificate, key): (Certificate, KeyPair),
    clients: impl FnOnce(ConfigBuilder<ServerConfig, WantsVerifier>) -> ConfigBuilder<ServerConfig, WantsServerCert>,
) -> ServerConfig {
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().expect("the provider's versions");
    clients(builder).with_single_cert(vec![certificate.der().clone()], key).expect("its own key")
}
