//! OCI bundle specs: which container is a WasmBox, and what its spec becomes.
//!
//! Pure functions from a `config.json` to a decision or to another `config.json`; no file is touched here.
//!
//! - [`spec`]: a spec of which nothing is lost, known or not
//! - [`kind`]: what a container is
//! - [`edit`]: a WasmBox's spec, rewritten

#![forbid(unsafe_code)]

pub mod edit;
pub mod kind;
pub mod spec;

pub use self::{
    edit::{CGROUP, Edit, EditError, NodeCache},
    kind::{Entry, Kind, KindError},
    spec::{Spec, SpecError},
};
