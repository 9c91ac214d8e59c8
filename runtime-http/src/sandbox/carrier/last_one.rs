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

impl Carrier {
    /// Ends it, if nobody waits for any of those who are in it: so its quota is lifted.
    pub(super) fn end_if_left(&self) {
        let reason = {
            let mut state = self.state();
            let is_left = state.arrived.is_empty() && state.present.iter().all(|carried| carried.cancelled().is_some());
            let reason = state.present.first().filter(|_| is_left).and_then(|carried| carried.cancelled());
            if reason.is_some() {
                state.places.close();
            }
            reason
        };
        if let Some(reason) = reason {
            self.cancel.cancel(reason);
        }
    }
}

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
