//! Manifests and blobs, on their ways.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use indicatif::ProgressBar;

use super::{
    RegistryError,
    client::{Answer, Ask, MANIFEST, Registry},
    digest::{Digest, Hasher},
    document::{ACCEPTED, Descriptor, Document},
    origin::{parse, resolve},
    transport::{Payload, read},
};

/// What registries are to take (distribution specification, "Pushing Manifests").
pub(super) const LARGEST_MANIFEST: u64 = 4 << 20;
const MANIFEST_REMEDY: &str = "no manifest is that large";
/// By which a registry says what it has sent.
const CONTENT_DIGEST: &str = "docker-content-digest";

pub(super) fn ask(method: Method, address: Uri, what: &'static str) -> Ask {
    Ask { method, address, headers: HeaderMap::new(), payload: Payload::empty(), what }
}

pub(super) fn header_text<'a>(answer: &'a Answer, name: &str) -> &'a str {
    answer.head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

impl Registry {
    /// The document of this reference, with its digest.
    ///
    /// # Errors
    /// [`RegistryError`]
    pub async fn document(&mut self) -> Result<(Document, Digest), RegistryError> {
        self.manifest(&self.reference.target(), self.reference.digest(), MANIFEST, LARGEST_MANIFEST).await
    }

    /// A document of the repository by a tag or a digest, which is `expected` then; of at most `bound` bytes.
    ///
    /// # Errors
    /// [`RegistryError`]
    pub(super) async fn manifest(
        &mut self,
        target: &str,
        expected: Option<Digest>,
        what: &'static str,
        bound: u64,
    ) -> Result<(Document, Digest), RegistryError> {
        let mut ask = ask(Method::GET, self.address(&format!("manifests/{target}"))?, what);
        ask.headers.insert(header::ACCEPT, HeaderValue::from_static(ACCEPTED));
        let answer = self.ask(ask).await?;
        self.read_manifest(answer, expected, what, bound).await
    }

    /// The document of an answer.
    ///
    /// # Errors
    /// [`RegistryError`]
    pub(super) async fn read_manifest(
        &self,
        answer: Answer,
        expected: Option<Digest>,
        what: &'static str,
        bound: u64,
    ) -> Result<(Document, Digest), RegistryError> {
        let content_type = header_text(&answer, "content-type").to_owned();
        // Of a tag it says what it has sent, which may have been changed on its way.
        let expected = expected.or_else(|| header_text(&answer, CONTENT_DIGEST).parse().ok());
        let mut bytes = Vec::new();
        let about = (answer.authority.as_str(), "a manifest", MANIFEST_REMEDY);
        read(answer.body, bound, about, |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })
        .await?;
        let found = Digest::of(&bytes);
        if let Some(expected) = expected.filter(|&expected| expected != found) {
            return Err(RegistryError::Digest { authority: answer.authority, what, expected, found });
        }
        let wrong = |reason| RegistryError::Document { reference: self.reference.to_string(), what, reason };
        let document = Document::read(&bytes, &content_type).map_err(wrong)?;
        Ok((document, found))
    }

    /// Reads a blob into `take`, which is told of each piece before the whole is known to be right.
    ///
    /// # Errors
    /// [`RegistryError`], also if it is not the one that `blob` describes.
    pub async fn blob(
        &mut self,
        blob: &Descriptor,
        what: &'static str,
        mut take: impl FnMut(&[u8]) -> Result<(), RegistryError>,
    ) -> Result<(), RegistryError> {
        let address = self.address(&format!("blobs/{}", blob.digest))?;
        let answer = self.ask(ask(Method::GET, address, what)).await?;
        let (mut hasher, mut got) = (Hasher::default(), 0);
        let about = (answer.authority.as_str(), what, "its manifest says so much");
        read(answer.body, blob.size, about, |piece| {
            hasher.update(piece);
            got += piece.len() as u64;
            take(piece)
        })
        .await?;
        let authority = answer.authority;
        if got != blob.size {
            return Err(RegistryError::Short { authority, what, got, expected: blob.size });
        }
        let (expected, found) = (blob.digest, hasher.finish());
        if expected != found {
            return Err(RegistryError::Digest { authority, what, expected, found });
        }
        Ok(())
    }

    /// Sends a blob, if it is not there.
    ///
    /// # Errors
    /// [`RegistryError`]
    pub async fn put_blob(
        &mut self,
        digest: Digest,
        payload: Payload,
        what: &'static str,
        progress: &ProgressBar,
    ) -> Result<(), RegistryError> {
        let address = self.address(&format!("blobs/{digest}"))?;
        match self.ask(ask(Method::HEAD, address, what)).await {
            Ok(_) => {
                progress.inc(payload.length());
                return Ok(());
            }
            // Who may only write is not told, and asks for what is needed to write. Where a registry's blobs are, signatures may be for GET alone.
            Err(
                RegistryError::NotFound { .. }
                | RegistryError::Unauthorised { .. }
                | RegistryError::Refused { status: StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, .. },
            ) => {}
            Err(error) => return Err(error),
        }
        let begin = self.address("blobs/uploads/")?;
        let answer = self.ask(ask(Method::POST, begin.clone(), what)).await?;
        let location = header_text(&answer, "location");
        let location = resolve(&begin, location)?;
        let joint = if location.query().is_some() { '&' } else { '?' };
        let mut ask = ask(Method::PUT, parse(&format!("{location}{joint}digest={digest}"))?, what);
        ask.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        ask.payload = payload.shown_by(progress);
        self.ask(ask).await.map(drop)
    }

    /// Sends a manifest or an index, by a tag or its digest.
    ///
    /// # Errors
    /// [`RegistryError`]
    pub async fn put_manifest(
        &mut self,
        target: &str,
        media_type: &'static str,
        manifest: Bytes,
    ) -> Result<(), RegistryError> {
        let mut ask = ask(Method::PUT, self.address(&format!("manifests/{target}"))?, MANIFEST);
        ask.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
        ask.payload = Payload::new([manifest.clone()]);
        let answer = self.ask(ask).await?;
        let (expected, said) = (Digest::of(&manifest), header_text(&answer, CONTENT_DIGEST).parse());
        match said {
            Ok(found) if found != expected => {
                Err(RegistryError::Stored { authority: answer.authority, expected, found })
            }
            _ if answer.head.status == StatusCode::CREATED => Ok(()),
            _ => Err(RegistryError::Refused {
                authority: answer.authority,
                status: answer.head.status,
                what: MANIFEST,
                detail: String::new(),
            }),
        }
    }
}
