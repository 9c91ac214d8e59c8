//! Where a registry has signatures: below a tag that is made of the digest (cosign's own format), and among what refers to the digest (bundles).

use http::{HeaderValue, Method, header};

use super::{
    bundle,
    key::{Keys, PublicKey},
    refusal::{Refusal, Refusals},
    simple,
};
use crate::registry::{
    Registry, RegistryError,
    digest::Digest,
    document::{Descriptor, Document, INDEX},
    transfer::{LARGEST_MANIFEST, ask, header_text},
};

/// What is asked for, in words.
const SIGNATURES: &str = "the signatures";
const SIGNATURE: &str = "a signature";
/// Of a bundle, which names it and little else.
const LARGEST_ARTIFACT: u64 = 64 << 10;
/// What a list has instead of an artifact's type where its author did not know that there are such: cosign's, in registries without an API for it.
const EMPTY_CONFIG: &str = "application/vnd.oci.empty.v1+json";

/// `None` if it is not there.
fn there<T>(found: Result<T, RegistryError>) -> Result<Option<T>, RegistryError> {
    match found {
        Err(RegistryError::NotFound { .. }) => Ok(None),
        found => found.map(Some),
    }
}

/// What is wrong with one of them alone, and hides none of the others.
fn of_one<T>(found: Result<T, RegistryError>) -> Result<Result<T, Refusal>, RegistryError> {
    match found {
        Ok(found) => Ok(Ok(found)),
        Err(
            error @ (RegistryError::NotFound { .. }
            | RegistryError::Document { .. }
            | RegistryError::Digest { .. }
            | RegistryError::Short { .. }),
        ) => Ok(Err(Refusal::unreadable(error))),
        Err(error) => Err(error),
    }
}

/// Where the references to `digest` are, in a registry without an API for them (distribution specification, "Referrers Tag Schema").
fn referrers_tag(digest: Digest) -> String {
    digest.to_string().replace(':', "-")
}

impl Registry {
    /// The key by which the manifest with `digest` is signed.
    ///
    /// # Errors
    /// [`RegistryError::Unsigned`], [`RegistryError::Untrusted`], and what is wrong with the registry.
    pub async fn signer<'keys>(
        &mut self,
        digest: Digest,
        keys: &'keys Keys,
    ) -> Result<&'keys PublicKey, RegistryError> {
        let mut refusals = Refusals::default();
        if let Some(key) = self.simple_signer(digest, keys, &mut refusals).await? {
            return Ok(key);
        }
        if let Some(key) = self.bundle_signer(digest, keys, &mut refusals).await? {
            return Ok(key);
        }
        let (reference, name) = (self.reference.to_string(), self.reference.name());
        Err(if refusals.is_empty() {
            RegistryError::Unsigned { reference, name, digest, tag: simple::tag(digest) }
        } else {
            RegistryError::Untrusted { reference, name, digest, refusals }
        })
    }

    async fn simple_signer<'keys>(
        &mut self,
        digest: Digest,
        keys: &'keys Keys,
        refusals: &mut Refusals,
    ) -> Result<Option<&'keys PublicKey>, RegistryError> {
        let found = self.manifest(&simple::tag(digest), None, SIGNATURES, LARGEST_MANIFEST).await;
        let manifest = match of_one(there(found))? {
            Ok(None) => return Ok(None),
            Ok(Some((Document::Manifest(manifest), _))) => manifest,
            Ok(Some((Document::Index(_), _))) => {
                refusals.add(Refusal::unreadable("an index, and cosign makes a manifest"));
                return Ok(None);
            }
            Err(refusal) => {
                refusals.add(refusal);
                return Ok(None);
            }
        };
        let layers = manifest.layers.into_iter().filter(|layer| layer.media_type == simple::PAYLOAD).collect();
        for layer in refusals.newest(layers) {
            let signer = match layer.annotations.get(simple::SIGNATURE) {
                None => Err(Refusal::Encoding),
                Some(signature) => {
                    let payload = self.content(&layer, simple::LARGEST).await?;
                    payload.and_then(|payload| simple::signer(&payload, signature, digest, keys))
                }
            };
            match signer {
                Ok(key) => return Ok(Some(key)),
                Err(refusal) => refusals.add(refusal),
            }
        }
        Ok(None)
    }

    async fn bundle_signer<'keys>(
        &mut self,
        digest: Digest,
        keys: &'keys Keys,
        refusals: &mut Refusals,
    ) -> Result<Option<&'keys PublicKey>, RegistryError> {
        // Attestations are bundles, too, of which there may be one for each day.
        let may_be = |one: &Descriptor| {
            matches!(one.artifact_type.as_deref(), None | Some(bundle::BUNDLE | EMPTY_CONFIG))
                && one.annotations.get(bundle::PREDICATE).is_none_or(|predicate| predicate == bundle::PURPOSE)
        };
        let artifacts = self.referrers(digest).await?.into_iter().filter(may_be).collect();
        for artifact in refusals.newest(artifacts) {
            if artifact.size > LARGEST_ARTIFACT {
                refusals.add(Refusal::TooLarge(LARGEST_ARTIFACT));
                continue;
            }
            let (target, expected) = (artifact.digest.to_string(), Some(artifact.digest));
            let found = self.manifest(&target, expected, SIGNATURE, LARGEST_ARTIFACT).await;
            let manifest = match of_one(found)? {
                Ok((Document::Manifest(manifest), _)) => manifest,
                Ok((Document::Index(_), _)) => continue,
                Err(refusal) => {
                    refusals.add(refusal);
                    continue;
                }
            };
            let [layer] = manifest.layers.as_slice() else { continue };
            // Others refer to the same: lists of materials, results of tests.
            if layer.media_type != bundle::BUNDLE {
                continue;
            }
            let content = self.content(layer, bundle::LARGEST).await?;
            match content.and_then(|content| bundle::signer(&content, digest, keys)) {
                Ok(key) => return Ok(Some(key)),
                Err(refusal) => refusals.add(refusal),
            }
        }
        Ok(None)
    }

    /// What refers to `digest`, by the API for it, or by the tag for registries without.
    async fn referrers(&mut self, digest: Digest) -> Result<Vec<Descriptor>, RegistryError> {
        let filter = bundle::BUNDLE.replace('+', "%2B");
        let address = self.address(&format!("referrers/{digest}?artifactType={filter}"))?;
        let mut ask = ask(Method::GET, address, SIGNATURES);
        ask.headers.insert(header::ACCEPT, HeaderValue::from_static(INDEX));
        let found = match self.ask(ask).await {
            Ok(answer) if header_text(&answer, "content-type").starts_with(INDEX) => {
                Some(self.read_manifest(answer, None, SIGNATURES, LARGEST_MANIFEST).await?)
            }
            // A page for people, or a refusal of an address that it does not know.
            Ok(_) => None,
            Err(RegistryError::Refused { status, .. }) if status.is_client_error() => None,
            Err(error) => there(Err(error))?,
        };
        let found = match found {
            None => there(self.manifest(&referrers_tag(digest), None, SIGNATURES, LARGEST_MANIFEST).await)?,
            found => found,
        };
        match found {
            None => Ok(Vec::new()),
            Some((Document::Index(index), _)) => Ok(index.manifests),
            Some((Document::Manifest(_), _)) => Err(self.unreadable("what refers to it is no index")),
        }
    }

    /// A payload or bundle in memory, if it is no larger than `bound`.
    async fn content(&mut self, layer: &Descriptor, bound: u64) -> Result<Result<Vec<u8>, Refusal>, RegistryError> {
        if layer.size > bound {
            return Ok(Err(Refusal::TooLarge(bound)));
        }
        let mut bytes = Vec::new();
        let read = self.blob(layer, SIGNATURE, |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        });
        let read = read.await;
        Ok(of_one(read)?.map(|_| bytes))
    }

    fn unreadable(&self, reason: &str) -> RegistryError {
        let reference = self.reference.to_string();
        RegistryError::Document { reference, what: SIGNATURES, reason: reason.to_owned() }
    }
}
