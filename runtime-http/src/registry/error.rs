//! What can be wrong between a terminal and a registry. What a registry says is quoted shortened.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use http::StatusCode;
use indicatif::HumanBytes;

use super::{digest::Digest, reference::BadReference, signature::refusal::Refusals};
use crate::tls::RootsError;

#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error("{text:?}: {source}")]
    Reference { text: String, source: BadReference },
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{}: it is there already; --force replaces it, --output FILE names another file", path.display())]
    Exists { path: PathBuf },
    #[error("--output {}: {reason}", path.display())]
    Target { path: PathBuf, reason: &'static str },
    #[error(transparent)]
    Ca(#[from] RootsError),
    #[error("{}: {reason}", path.display())]
    Credentials { path: PathBuf, reason: String },
    #[error("{program}, which {} names: {reason}", file.display())]
    Helper { program: String, file: PathBuf, reason: String },
    #[error(
        "no registry answers at {authority}: {reason}; is its name right, and can this machine reach it? No proxy is used"
    )]
    Connect { authority: String, reason: String },
    #[error("{authority}: no TLS: {reason}; {remedy}; --plain-http speaks HTTP without TLS")]
    Tls { authority: String, reason: String, remedy: Arc<str> },
    #[error(
        "{registry} wants credentials to be sent to {authority} without TLS, where others can read them; --plain-http allows it"
    )]
    Exposed { registry: String, authority: String },
    #[error("{authority} does not speak HTTP as a registry does: {reason}")]
    Http { authority: String, reason: String },
    #[error("{authority} is silent for {pause:?} while {what} is awaited")]
    Silent { authority: String, what: &'static str, pause: Duration },
    #[error("not done after {bound:?}; --timeout TIME gives more")]
    TimedOut { bound: Duration },
    #[error("interrupted: nothing was written")]
    Interrupted,
    #[error(
        "{authority} refuses {what}{detail}: not authorised; {known}. `docker login {registry}` or `podman login {registry}` stores a name and password"
    )]
    Unauthorised { authority: String, registry: String, what: &'static str, detail: String, known: String },
    #[error(
        "{reference}: not found: {what}{detail}; {hint} A registry may say so of what these credentials may not see, too ({known})"
    )]
    NotFound { reference: String, what: &'static str, detail: String, hint: &'static str, known: String },
    #[error("{authority} answers {status} to {what}{detail}")]
    Refused { authority: String, status: StatusCode, what: &'static str, detail: String },
    #[error("{authority} redirects {what} {reason}")]
    Redirect { authority: String, what: &'static str, reason: String },
    #[error("{authority} sends {what} of more than {}; {remedy}", HumanBytes(*bound))]
    TooLarge { authority: String, what: &'static str, bound: u64, remedy: &'static str },
    #[error("{what} that {authority} sends ends after {got} of {expected} bytes")]
    Short { authority: String, what: &'static str, got: u64, expected: u64 },
    #[error(
        "{what} that {authority} sends is not what was asked for: its digest is {found}, not {expected}; it is not kept"
    )]
    Digest { authority: String, what: &'static str, expected: Digest, found: Digest },
    #[error(
        "{authority} says that it has stored the manifest as {found}, and it is {expected}; do not rely on what it has"
    )]
    Stored { authority: String, expected: Digest, found: Digest },
    #[error("{reference}: {what} cannot be read: {reason}")]
    Document { reference: String, what: &'static str, reason: String },
    #[error("{reference}: no function: {is}")]
    NotFunction { reference: String, is: String },
    #[error(
        "--key {}: {reason}; let it be a public key in PEM, of ECDSA on P-256, as `cosign generate-key-pair` writes it to cosign.pub", path.display()
    )]
    Key { path: PathBuf, reason: String },
    #[error("WASMBOX_KEY names no file; let it name files with public keys, separated by ':', or do not set it")]
    NoKey,
    #[error(
        "{reference}: not signed, so it is not taken: there is neither a tag {tag} nor a bundle of Sigstore for it. Who vouches for it signs it by `cosign sign --key cosign.key {name}@{digest}`"
    )]
    Unsigned { reference: String, name: String, digest: Digest, tag: String },
    #[error(
        "{reference}: not signed by a key of --key, so it is not taken. Of its signatures {refusals}. If another key is to be trusted, name it by --key, too; who vouches for it signs it by `cosign sign --key cosign.key {name}@{digest}`"
    )]
    Untrusted { reference: String, name: String, digest: Digest, refusals: Refusals },
    #[error("{}: {reason}", path.display())]
    Module { path: PathBuf, reason: String },
    #[error("{of}: the settings {reason}")]
    Settings { of: String, reason: String },
    #[error("{reference}: a push takes a tag, NAME:TAG, and no digest")]
    NoTag { reference: String },
    #[error("{url:?} is no address that a registry may name: {reason}")]
    Address { url: String, reason: &'static str },
    #[error("this process cannot wait for answers: {0}")]
    Runtime(io::Error),
    #[error("the output cannot be written: {0}")]
    Output(io::Error),
}
