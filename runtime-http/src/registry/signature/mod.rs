//! Signatures of functions: who asks for them by a key takes nothing that was not signed by it with cosign.
//!
//! What is signed is the digest of the manifest, which names all else: the module by its digest, the settings in an annotation. So the manifest is fetched once,
//! by whatever name; its digest is computed here, a signature of it is looked for, and what it names is fetched by digests. No tag is asked for twice.
//! A signature is checked over bytes as they were received, before these bytes are read for what they say.
//!
//! What is not done: certificates and logs of Sigstore's public services ("keyless") are not looked at, and a signature says nothing of names and tags.
//!
//! Why there is no library for it: the crate `sigstore` fetches by `oci-client` and `reqwest`, which read documents of any length; here a hostile registry is
//! read by [`transfer`](super::transfer), with bounds, and what is left of cosign's formats is little.
//!
//! - [`key`]: public keys; [`refusal`]: why a signature does not count
//! - [`simple`]: cosign's own format, below a tag; [`bundle`]: Sigstore's bundles, which refer to what they sign
//! - [`search`]: where a registry has them

pub mod bundle;
pub mod key;
pub mod refusal;
pub mod search;
pub mod simple;
