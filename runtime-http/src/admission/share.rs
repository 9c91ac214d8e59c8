//! What each function has in flight: what admission compares to be fair.

use std::sync::atomic::{AtomicU64, Ordering};

/// Identifies a [`Share`], in the order of their making.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ShareId(u64);

/// One function's units in flight. Whoever admits holds it, so that admitting needs no look-up by name.
#[derive(Debug)]
pub struct Share {
    id: ShareId,
    /// Written by the one state that the share is used with, which is borrowed exclusively then; atomic only to be shared.
    units: AtomicU64,
}

impl Share {
    #[expect(clippy::new_without_default, reason = "each is another function's")]
    pub fn new() -> Share {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Share { id: ShareId(NEXT.fetch_add(1, Ordering::Relaxed)), units: AtomicU64::new(0) }
    }

    pub(super) fn id(&self) -> ShareId {
        self.id
    }

    /// Units in flight.
    pub fn units(&self) -> u64 {
        self.units.load(Ordering::Relaxed)
    }

    pub(super) fn take(&self, units: u64) {
        self.units.store(self.units() + units, Ordering::Relaxed);
    }

    pub(super) fn give_back(&self, units: u64) {
        self.units.store(self.units() - units, Ordering::Relaxed);
    }
}
