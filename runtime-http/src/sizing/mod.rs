//! What follows from the memory limit, as it is now: a pod may be resized in place, and its box goes on with what it then has.
//!
//! Capacity, the default of `Memory-Request` and its cap follow, and readiness, the marks of the [`crate::sampler`] and the status read the
//! limit here. What was reserved at the start stays: slots for invocations, budgets of connections, allowances for compiling.

pub mod admitted;

use std::sync::{PoisonError, RwLock};

use self::admitted::{Admitted, AdmittedByLimit};
use crate::{
    admission::Capacity,
    limits::{LimitCaps, Limits},
};

#[derive(Debug)]
pub struct Sizing {
    by_limit: AdmittedByLimit,
    /// [`Capacity::invocations`].
    invocations: usize,
    now: RwLock<Admitted>,
}

impl Sizing {
    /// At first, with so many bytes of memory.
    pub fn new(by_limit: AdmittedByLimit, available: u64, invocations: usize) -> Sizing {
        let now = RwLock::new(by_limit.at(available));
        Sizing { by_limit, invocations, now }
    }

    pub fn now(&self) -> Admitted {
        *self.now.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Now there are so many bytes. Gives what changed.
    pub fn follow(&self, available: u64) -> Option<(Admitted, Capacity)> {
        let admitted = self.by_limit.at(available);
        let mut now = self.now.write().unwrap_or_else(PoisonError::into_inner);
        if *now == admitted {
            return None;
        }
        *now = admitted;
        Some((admitted, admitted.capacity(self.invocations)))
    }
}

impl Admitted {
    /// What requests get that name nothing, with the memory as it is now.
    pub fn defaults(&self, defaults: Limits) -> Limits {
        Limits { memory: self.default_request, ..defaults }
    }

    /// The operator's caps, with that of memory as it is now.
    pub fn caps(&self, caps: LimitCaps) -> LimitCaps {
        LimitCaps { memory: self.cap, ..caps }
    }
}
