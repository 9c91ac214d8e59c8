//! An instance that serves several requests of its function, as the function's author has asked.
//!
//! It has no directories: descriptors for those are for invocations that run. What a request leaves in it is there for the next: the guest's memory, and the handles that it keeps. What belongs to the request itself
//! must be gone, its body and its answer, or those would not end; an instance that holds on to such a thing is not kept.

use std::{num::NonZeroU32, sync::Arc};

use wasmtime::Store;
use wasmtime_wasi_http::{p2::bindings::Proxy, p3::bindings::Service};

use super::{Setup, component::ComponentHost, instances::KeptInstances, program::HttpComponent, stderr::Stderr};
use crate::{invocation::InvocationId, limits::Limits, memory::KeptMemory};

/// What of an instance is called.
pub(super) enum Handler {
    P2(Proxy),
    P3(Service),
}

/// An instance between two requests.
pub struct Instance {
    pub(super) handler: Handler,
    pub(super) store: Store<ComponentHost>,
    pub(super) stderr: Stderr,
    /// How many requests it has served.
    pub(super) served: u32,
}

/// How the instances of a function are reused.
#[derive(Clone)]
pub struct Reuse {
    /// Where they are kept.
    pub instances: Arc<KeptInstances>,
    pub program: Arc<HttpComponent>,
    /// The most requests that one serves.
    pub most: NonZeroU32,
}

/// Whether an invocation has an instance of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstanceUse {
    Fresh,
    /// It has served others before.
    Reused,
    /// It was serving others when the invocation came.
    Joined,
}

impl InstanceUse {
    /// The word for it in headers and the log.
    pub fn as_str(self) -> &'static str {
        match self {
            InstanceUse::Fresh => "fresh",
            InstanceUse::Reused => "reused",
            InstanceUse::Joined => "joined",
        }
    }
}

impl Reuse {
    /// One for an invocation with `limits`, and the memory that it holds.
    pub fn take(&self, limits: &Limits) -> Option<(Instance, KeptMemory)> {
        self.instances.take(&self.program, limits)
    }

    /// An invocation has joined others in their instance.
    pub fn joined(&self) {
        self.instances.metrics().joined.inc();
    }
}

impl Instance {
    /// For the invocation `id` from now on: gives its standard error.
    pub fn begin(&self, id: InvocationId) -> Stderr {
        self.stderr.renew(id);
        self.stderr.clone()
    }

    /// Its store for another invocation.
    pub(super) fn renew(&mut self, setup: &Setup) {
        self.store.data_mut().renew(setup);
        self.store.set_epoch_deadline(1);
    }
}
