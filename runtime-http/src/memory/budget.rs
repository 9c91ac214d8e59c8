//! What guests' linear memories and tables have grown to, and what the box has allocated for them, in sum; growth of the former that does
//! not fit waits here. What each of them has is in [`super::reservation`].
//!
//! As long as nobody waits and there is room, a growth is a few atomic operations. Those who wait are served by seniority, and nobody
//! overtakes them.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};

use prometheus::IntCounter;
use tokio::sync::oneshot;

use super::{kept::KeptMemory, reclaim::Spare, reservation::MemoryReservation, signed};
use crate::invocation::{CancelToken, InvocationId};

/// When an invocation was admitted, relative to others: the smaller, the earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seniority(u64);

/// The memory of all guests.
#[derive(Debug)]
pub struct MemoryBudget {
    /// Bytes that guests have grown to, that are allocated for them, and that were taken for that in advance.
    committed: AtomicU64,
    /// What of that was taken in advance and is not used.
    aside: AtomicU64,
    /// How far `committed` may go. Negative: the box itself is above the high mark.
    ceiling: AtomicI64,
    /// As many as are in `waiting`; changed under its lock.
    waiters: AtomicUsize,
    waiting: Mutex<Waiting>,
    next: AtomicU64,
    waits: IntCounter,
    evicted: IntCounter,
    spare: OnceLock<Weak<dyn Spare>>,
}

#[derive(Debug, Default)]
struct Waiting {
    by_seniority: BTreeMap<Seniority, Waiter>,
    /// Since when somebody waits.
    since: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct Waiter {
    pub reservation: Arc<MemoryReservation>,
    pub bytes: u64,
    pub since: Instant,
    pub granted: oneshot::Sender<()>,
}

/// The growth that is served next.
#[derive(Debug, Clone, Copy)]
pub struct First {
    pub seniority: Seniority,
    pub since: Instant,
    /// Since when somebody waits, this one or others before it.
    pub short_since: Instant,
    /// How many bytes must become free for it.
    pub missing: u64,
    /// With what it holds already it is more than all guests together may have.
    pub impossible: bool,
}

impl MemoryBudget {
    /// Without a ceiling, until [`MemoryBudget::set_ceiling`]. `waits` counts the growths that had to wait, `evicted` those
    /// invocations that could not.
    pub fn new(waits: IntCounter, evicted: IntCounter) -> Arc<MemoryBudget> {
        Arc::new(MemoryBudget {
            committed: AtomicU64::new(0),
            aside: AtomicU64::new(0),
            ceiling: AtomicI64::new(i64::MAX),
            waiters: AtomicUsize::new(0),
            waiting: Mutex::default(),
            next: AtomicU64::new(0),
            waits,
            evicted,
            spare: OnceLock::new(),
        })
    }

    /// `spare` is asked for memory before anybody waits for some. The first one counts.
    pub fn set_spare(&self, spare: Weak<dyn Spare>) {
        let _ = self.spare.set(spare);
    }

    /// Has what nobody needs make room for `bytes` soon; whether there is so much.
    pub(super) fn make_room(&self, bytes: u64) -> bool {
        let Some(spare) = self.spare.get().and_then(Weak::upgrade) else { return false };
        let missing =
            signed(self.committed().saturating_add(bytes)).saturating_sub(self.ceiling.load(Ordering::SeqCst));
        let missing = u64::try_from(missing).unwrap_or(0);
        spare.give_back(missing) >= missing
    }

    /// For an invocation that was admitted just now.
    pub fn reserve(self: &Arc<Self>, id: InvocationId, cancel: CancelToken) -> Arc<MemoryReservation> {
        Arc::new(MemoryReservation::new(self.clone(), id, self.next_seniority(), cancel))
    }

    /// The same, which runs in an instance that holds `kept` already.
    pub fn take_over(&self, kept: KeptMemory, id: InvocationId, cancel: CancelToken) -> Arc<MemoryReservation> {
        Arc::new(MemoryReservation::on(kept, id, self.next_seniority(), cancel))
    }

    fn next_seniority(&self) -> Seniority {
        Seniority(self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Bytes that all guests have grown to, that are allocated for them, and that were taken for that in advance.
    pub fn committed(&self) -> u64 {
        self.committed.load(Ordering::SeqCst)
    }

    /// The same without what is not used yet of what was taken in advance.
    pub fn used(&self) -> u64 {
        self.committed().saturating_sub(self.aside.load(Ordering::SeqCst))
    }

    /// Sets how many bytes guests may grow to, and lets those who wait have what fits. What is held already stays, even above.
    pub fn set_ceiling(&self, bytes: i64) {
        self.ceiling.store(bytes, Ordering::SeqCst);
        self.serve();
    }

    /// Who waits and is served next.
    pub fn first(&self) -> Option<First> {
        if self.waiters.load(Ordering::SeqCst) == 0 {
            return None;
        }
        let waiting = self.waiting();
        let (seniority, waiter) = waiting.by_seniority.first_key_value()?;
        let wanted = signed(self.committed() + waiter.bytes);
        let ceiling = self.ceiling.load(Ordering::SeqCst);
        let missing = wanted.saturating_sub(ceiling);
        Some(First {
            seniority: *seniority,
            since: waiter.since,
            short_since: waiting.since.unwrap_or(waiter.since),
            missing: u64::try_from(missing).unwrap_or(0),
            impossible: signed(waiter.reservation.held() + waiter.bytes) > ceiling,
        })
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn somebody_waits(&self) -> bool {
        self.waiters.load(Ordering::SeqCst) > 0
    }

    /// Whether `bytes` are there, whoever waits.
    pub(super) fn has(&self, bytes: u64) -> bool {
        bytes == 0 || signed(self.committed().saturating_add(bytes)) <= self.ceiling.load(Ordering::SeqCst)
    }

    pub(super) fn take(&self, bytes: u64) -> bool {
        let total = self.committed.fetch_add(bytes, Ordering::SeqCst) + bytes;
        if signed(total) <= self.ceiling.load(Ordering::SeqCst) {
            return true;
        }
        self.committed.fetch_sub(bytes, Ordering::SeqCst);
        false
    }

    /// For what is there already, although it does not fit.
    pub(super) fn take_anyway(&self, bytes: u64) {
        self.committed.fetch_add(bytes, Ordering::SeqCst);
    }

    /// An invocation must end, since it has what does not fit.
    pub(super) fn evicts(&self) {
        self.evicted.inc();
    }

    pub(super) fn give_back(&self, bytes: u64) {
        if bytes == 0 {
            return;
        }
        self.committed.fetch_sub(bytes, Ordering::SeqCst);
        if self.somebody_waits() {
            self.serve();
        }
    }

    /// So much of what was taken is not used yet.
    pub(super) fn set_aside(&self, bytes: u64) {
        self.aside.fetch_add(bytes, Ordering::SeqCst);
    }

    /// Of what was set aside, `before` bytes were used, and now `now`.
    pub(super) fn use_aside(&self, before: u64, now: u64) {
        if now > before {
            self.aside.fetch_sub(now - before, Ordering::SeqCst);
        } else if before > now {
            self.aside.fetch_add(before - now, Ordering::SeqCst);
        }
    }

    pub(super) fn enqueue(&self, waiter: Waiter) {
        self.waits.inc();
        let mut waiting = self.waiting();
        waiting.since.get_or_insert(waiter.since);
        waiting.by_seniority.insert(waiter.reservation.seniority, waiter);
        self.waiters.fetch_add(1, Ordering::SeqCst);
    }

    /// It waits no more, if it still did.
    pub(super) fn leave(&self, seniority: Seniority) {
        let left = self.waiting().by_seniority.remove(&seniority);
        if left.is_some() {
            self.waiters.fetch_sub(1, Ordering::SeqCst);
            // The next one may want less.
            self.serve();
        }
    }

    pub(super) fn serve(&self) {
        let mut waiting = self.waiting();
        while let Some(first) = waiting.by_seniority.first_entry() {
            if !self.take(first.get().bytes) {
                break;
            }
            let waiter = first.remove();
            self.waiters.fetch_sub(1, Ordering::SeqCst);
            // If the guest has ended meanwhile, the reservation gives it back.
            waiter.reservation.granted(waiter.bytes);
            let _ = waiter.granted.send(());
        }
        if waiting.by_seniority.is_empty() {
            waiting.since = None;
        }
    }
}

#[cfg(test)]
mod tests;
