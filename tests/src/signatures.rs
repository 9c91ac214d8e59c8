//! Signatures of functions, as cosign makes them, in a registry of a test's own.

use std::path::Path;

use base64::{Engine, engine::general_purpose::STANDARD};
use rcgen::{KeyPair, SigningKey};
use serde_json::{Value, json};

use crate::registry::{Asked, Documents, Reply, digest};

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const STATEMENT: &str = "application/vnd.in-toto+json";

/// Who signs, with ECDSA on P-256.
pub struct Signer(KeyPair);

impl Default for Signer {
    fn default() -> Self {
        Signer::new()
    }
}

impl Signer {
    /// # Panics
    /// If a key cannot be made.
    pub fn new() -> Signer {
        Signer(KeyPair::generate().expect("a key"))
    }

    /// Writes the public key, in PEM.
    ///
    /// # Panics
    /// If that fails.
    pub fn write(&self, path: &Path) {
        std::fs::write(path, self.0.public_key_pem()).expect("a file for the key");
    }

    pub fn private_key(&self) -> String {
        self.0.serialize_pem()
    }

    /// In base64.
    ///
    /// # Panics
    /// If that fails.
    pub fn sign(&self, message: &[u8]) -> String {
        STANDARD.encode(self.0.sign(message).expect("a signature"))
    }

    /// A payload with its signature, as `cosign sign --new-bundle-format=false` makes them.
    pub fn payload(&self, digest: &str) -> Payload {
        let critical = json!({
            "identity": {"docker-reference": "registry.example/team/hello"},
            "image": {"docker-manifest-digest": digest},
            "type": "cosign container image signature",
        });
        self.payload_of(json!({"critical": critical, "optional": null}).to_string())
    }

    pub fn payload_of(&self, text: impl Into<Vec<u8>>) -> Payload {
        let content = text.into();
        Payload { signature: Some(self.sign(&content)), content }
    }

    /// A bundle, as cosign 3 makes it: that its signer stands for `digest`.
    pub fn bundle(&self, digest: &str) -> Vec<u8> {
        self.bundle_about(digest, "https://sigstore.dev/cosign/sign/v1")
    }

    /// One that says something of it.
    pub fn bundle_about(&self, digest: &str, predicate: &str) -> Vec<u8> {
        let digits = digest.trim_start_matches("sha256:");
        let statement = json!({
            "_type": "https://in-toto.io/Statement/v1", "subject": [{"digest": {"sha256": digits}}],
            "predicateType": predicate, "predicate": {},
        });
        let payload = statement.to_string();
        let signed = format!("DSSEv1 {} {STATEMENT} {} {payload}", STATEMENT.len(), payload.len());
        let envelope = json!({
            "payload": STANDARD.encode(&payload), "payloadType": STATEMENT,
            "signatures": [{"sig": self.sign(signed.as_bytes())}],
        });
        json!({
            "mediaType": BUNDLE,
            "verificationMaterial": {"publicKey": {"hint": "a hint"}, "timestampVerificationData": {}},
            "dsseEnvelope": envelope,
        })
        .to_string()
        .into_bytes()
    }
}

/// What is signed, and the annotation with its signature.
#[derive(Clone)]
pub struct Payload {
    pub content: Vec<u8>,
    pub signature: Option<String>,
}

/// Where a registry lists bundles.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Listing {
    /// The API of the distribution specification.
    Api,
    /// The tag for registries without it, which answer so.
    Tag(u16),
}

/// A function with the signatures that a registry has of it.
pub struct Signed {
    pub documents: Documents,
    pub payloads: Vec<Payload>,
    pub bundles: Vec<Vec<u8>>,
    /// Bundles that are listed as attestations.
    pub attestations: Vec<Vec<u8>>,
    pub listing: Listing,
}

impl Signed {
    pub fn of(documents: Documents) -> Signed {
        Signed { documents, payloads: Vec::new(), bundles: Vec::new(), attestations: Vec::new(), listing: Listing::Api }
    }

    /// Of the manifest, as it is now.
    pub fn digest(&self) -> String {
        digest(self.documents.manifest())
    }

    fn image(&self) -> String {
        let layer = |payload: &Payload| {
            let annotations =
                payload.signature.as_ref().map(|text| json!({"dev.cosignproject.cosign/signature": text}));
            json!({
                "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json",
                "digest": digest(&payload.content), "size": payload.content.len(), "annotations": annotations.unwrap_or(json!({})),
            })
        };
        let layers: Vec<Value> = self.payloads.iter().map(layer).collect();
        json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": empty("application/vnd.oci.image.config.v1+json"), "layers": layers}).to_string()
    }

    /// The artifact that a bundle is in.
    fn artifact(&self, bundle: &[u8]) -> String {
        let layer = json!({"mediaType": BUNDLE, "digest": digest(bundle), "size": bundle.len()});
        json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": BUNDLE, "config": empty("application/vnd.oci.empty.v1+json"),
            "layers": [layer], "subject": {"mediaType": MANIFEST, "digest": self.digest(), "size": self.documents.manifest().len()},
        })
        .to_string()
    }

    /// By which the artifact is asked for that a bundle is in.
    pub fn artifact_digest(&self, bundle: &[u8]) -> String {
        digest(self.artifact(bundle))
    }

    fn list(&self) -> Reply {
        let kind = match self.listing {
            Listing::Api => BUNDLE,
            // So cosign writes it.
            Listing::Tag(_) => "application/vnd.oci.empty.v1+json",
        };
        let one = |bundle: &Vec<u8>| {
            let artifact = self.artifact(bundle);
            json!({"mediaType": MANIFEST, "digest": digest(&artifact), "size": artifact.len(), "artifactType": kind})
        };
        let attestation = |bundle: &Vec<u8>| {
            let mut listed = one(bundle);
            listed["annotations"] =
                json!({"dev.sigstore.bundle.predicateType": "https://cosign.sigstore.dev/attestation/vuln/v1"});
            listed
        };
        let mut manifests: Vec<Value> = self.bundles.iter().map(one).collect();
        manifests.extend(self.attestations.iter().map(attestation));
        // Of others.
        manifests.push(json!({"mediaType": MANIFEST, "digest": digest("bill"), "size": 4, "artifactType": "application/spdx+json"}));
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
        Reply::of(200, index.to_string()).with("content-type", INDEX)
    }

    /// As an honest registry answers.
    pub fn answer(&self, asked: &Asked) -> Reply {
        let path = asked.path.as_str();
        let tag = self.digest().replace(':', "-");
        if path.ends_with(&format!("/manifests/{tag}.sig")) {
            return if self.payloads.is_empty() { Reply::of(404, "") } else { Reply::of(200, self.image()) };
        }
        if path.contains(&format!("/referrers/{}", self.digest())) {
            return match self.listing {
                Listing::Api => self.list(),
                Listing::Tag(status) => Reply::of(status, "<html>").with("content-type", "text/html"),
            };
        }
        if path.ends_with(&format!("/manifests/{tag}")) {
            return if self.listing == Listing::Api || self.bundles.is_empty() {
                Reply::of(404, "")
            } else {
                self.list()
            };
        }
        // Tags that are made of digests are for what refers to them.
        if path.contains("/manifests/sha256-") {
            return Reply::of(404, "");
        }
        let payloads = self.payloads.iter().map(|payload| payload.content.clone());
        let artifacts = self.bundles.iter().map(|bundle| self.artifact(bundle).into_bytes());
        let mut contents = payloads.chain(artifacts).chain(self.bundles.iter().cloned());
        match contents.find(|content| path.ends_with(&digest(content))) {
            Some(content) => Reply::of(200, content),
            None => self.documents.answer(asked),
        }
    }
}

fn empty(media_type: &str) -> Value {
    json!({"mediaType": media_type, "digest": digest("{}"), "size": 2})
}
