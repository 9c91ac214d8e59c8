//! What each function has in flight: what admission compares to be fair.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

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

/// The shares of all functions, by name. A function that is loaded anew keeps its share as long as something of it is left.
#[derive(Debug, Default)]
pub struct Shares(Mutex<HashMap<Arc<str>, Weak<Share>>>);

/// Below this many names none are tidied away.
const FEW: usize = 64;

impl Shares {
    /// The share of function `name`.
    pub fn of(&self, name: &Arc<str>) -> Arc<Share> {
        let mut shares = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = shares.get(name).and_then(Weak::upgrade) {
            return known;
        }
        if shares.len() >= FEW && shares.len() == shares.capacity() {
            shares.retain(|_, share| share.strong_count() > 0);
        }
        let share = Arc::new(Share::new());
        shares.insert(name.clone(), Arc::downgrade(&share));
        share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_lives_as_long_as_somebody_holds_it() {
        let shares = Shares::default();
        let name = |number: usize| -> Arc<str> { format!("f{number}").into() };
        let first = shares.of(&name(0));
        assert!(Arc::ptr_eq(&first, &shares.of(&name(0))));
        for number in 1..10_000 {
            drop(shares.of(&name(number)));
        }
        assert!(Arc::ptr_eq(&first, &shares.of(&name(0))), "tidying keeps what is held");
        assert!(shares.0.lock().unwrap().len() < 1000, "names of the past do not pile up");
        let id = first.id();
        drop(first);
        assert_ne!(shares.of(&name(0)).id(), id);
    }
}
