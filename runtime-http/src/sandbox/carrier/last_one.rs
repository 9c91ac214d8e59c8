//! Tells a carrier that somebody leaves, from whichever thread that is known on.
//!
//! A guest that its quota keeps from running does not see it; and of several requests each has a token of its own, which lifts no quota. When
//! nobody is left who waits for an answer the carrier itself is cancelled, as any other invocation is.

use std::{
    fmt,
    sync::{Arc, Weak},
};

use super::Carrier;
use crate::invocation::QuotaLift;

/// What a request's token lifts: its carrier, if it was the last one there that somebody waited for.
pub(super) struct LastOne(Weak<Carrier>);

impl LastOne {
    pub fn of(carrier: &Arc<Carrier>) -> Arc<LastOne> {
        Arc::new(LastOne(Arc::downgrade(carrier)))
    }
}

impl QuotaLift for LastOne {
    fn lift(&self) {
        if let Some(carrier) = self.0.upgrade() {
            carrier.end_if_left();
        }
    }
}

impl fmt::Debug for LastOne {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LastOne")
    }
}
