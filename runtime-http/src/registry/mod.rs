//! Registries of images, as a store of functions: what `wasmbox push FILE oci://...` and `wasmbox pull` need of the OCI distribution specification.
//!
//! A function is an artifact as the CNCF's working group for WebAssembly has agreed
//! (<https://tag-runtime.cncf.io/wgs/wasm/deliverables/wasm-oci-artifact/>): other tools read it. Whatever a registry says is taken for hostile: nothing
//! of it is longer than a bound, what is kept has the digest that was asked for, and no name of it becomes a path.
//!
//! Nothing of this is part of a box that serves.
//!
//! - [`reference`](mod@reference): names of artifacts; [`digest`]: names of contents; [`document`]: manifests and configurations; [`artifact`]: what a function is there
//! - [`origin`]: who is talked to, and where addresses lead; [`transport`]: connections, TLS and bounded bodies
//! - [`challenge`]: how a registry asks who it is; [`credentials`]: and what is answered; [`token`]: tokens for both
//! - [`client`]: requests, with authentication and redirects; [`transfer`]: manifests and blobs
//! - [`signature`]: who has signed a function
//! - [`image`]: an image of functions, for volumes of Kubernetes; [`landing`]: files that are there whole, or not at all
//! - [`error`]: what can be wrong

pub mod artifact;
pub mod challenge;
pub mod client;
pub mod credentials;
pub mod digest;
pub mod document;
pub mod error;
pub mod image;
pub mod landing;
pub mod origin;
pub mod reference;
pub mod signature;
pub mod token;
pub mod transfer;
pub mod transport;

pub use self::{client::Registry, error::RegistryError, reference::Reference};
