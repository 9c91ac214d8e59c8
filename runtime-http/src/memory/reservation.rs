//! What one invocation holds of the memory of all guests: what its memories have grown to, and what is allocated in the box for it.
//!
//! A part for the latter, the overhead, is taken before the guest starts, as if it were its first growth. What is allocated beyond
//! it is in the box already when it is seen, at the end of a host call or when the guest yields, so it cannot wait: whoever needs it when
//! there is none is evicted.

use std::{
    mem,
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use tokio::sync::oneshot;

use super::{
    budget::{MemoryBudget, Seniority, Waiter},
    kept::{KeptMemory, NOTICEABLE},
};
use crate::{
    allocator::{Charging, HeldBytes, HostBytes},
    invocation::{CancelReason, CancelToken, InvocationId},
};

/// What one invocation holds. It is given back when this is dropped, which must be after the store, since that gives the pages back.
#[derive(Debug)]
pub struct MemoryReservation {
    budget: Arc<MemoryBudget>,
    pub id: InvocationId,
    pub seniority: Seniority,
    pub cancel: CancelToken,
    /// Bytes of linear memories and tables.
    grown: AtomicU64,
    /// Bytes that were taken in advance for what is allocated for it.
    overhead: AtomicU64,
    /// What is allocated for it in the box, and what of that is in the budget.
    host: HostBytes,
    host_counted: AtomicU64,
    /// Both are its instance's again, which goes on without it.
    is_handed_on: AtomicBool,
    /// What of the host's bytes was its instance's own when it got it or when that was made, and what was left of earlier answers then.
    own: AtomicU64,
    carried: u64,
    /// What of the host's bytes is in other accounts.
    elsewhere: Arc<AtomicU64>,
}

/// Bytes that are allocated for an invocation and are in another account until this is dropped.
#[derive(Debug)]
pub struct AccountedElsewhere {
    elsewhere: Arc<AtomicU64>,
    bytes: u64,
}

impl Drop for AccountedElsewhere {
    fn drop(&mut self) {
        self.elsewhere.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl MemoryReservation {
    pub(super) fn new(
        budget: Arc<MemoryBudget>,
        id: InvocationId,
        seniority: Seniority,
        cancel: CancelToken,
    ) -> MemoryReservation {
        MemoryReservation {
            budget,
            id,
            seniority,
            cancel,
            grown: AtomicU64::new(0),
            overhead: AtomicU64::new(0),
            host: HostBytes::default(),
            host_counted: AtomicU64::new(0),
            is_handed_on: AtomicBool::new(false),
            own: AtomicU64::new(0),
            carried: 0,
            elsewhere: Arc::default(),
        }
    }

    /// Of an invocation whose instance has served others.
    pub(super) fn on(mut kept: KeptMemory, id: InvocationId, seniority: Seniority, cancel: CancelToken) -> Self {
        let mut reservation = MemoryReservation::new(kept.budget.clone(), id, seniority, cancel);
        reservation.host = kept.host.clone();
        *reservation.own.get_mut() = kept.own;
        reservation.carried = kept.host.get().saturating_sub(kept.own);
        *reservation.grown.get_mut() = mem::take(&mut kept.grown);
        *reservation.host_counted.get_mut() = mem::take(&mut kept.host_counted);
        reservation
    }

    /// Its guest has ended, and its instance is kept with all that it holds. `undelivered` bytes of its answer are still there.
    pub fn keep(&self, undelivered: u64) -> KeptMemory {
        self.settle_to(0);
        self.is_handed_on.store(true, Ordering::SeqCst);
        let host_counted = self.host_counted.swap(0, Ordering::SeqCst);
        self.give_back_overhead(host_counted);
        // Not less than it was, though what was left of earlier answers may be gone meanwhile.
        let own = host_counted.saturating_sub(undelivered + self.carried).max(self.own.load(Ordering::Relaxed));
        KeptMemory {
            budget: self.budget.clone(),
            grown: self.grown.swap(0, Ordering::SeqCst),
            host: self.host.clone(),
            host_counted,
            own,
        }
    }

    /// Takes `bytes` for a growth, if they are there and nobody waits.
    pub fn take(&self, bytes: u64) -> bool {
        let taken = !self.budget.somebody_waits() && self.budget.take(bytes);
        if taken {
            self.grown.fetch_add(bytes, Ordering::Relaxed);
        }
        taken
    }

    /// Takes `bytes` when they are there. Dropping the future leaves the queue. A guest grows one memory at a time, so it has one such
    /// future at most.
    pub async fn wait(self: &Arc<Self>, bytes: u64) {
        // What is spare is given back soon, to who waits.
        self.budget.make_room(bytes);
        let (granted, grant) = oneshot::channel();
        self.budget.enqueue(Waiter { reservation: self.clone(), bytes, since: Instant::now(), granted });
        let _place = Place(self);
        // It may be the most senior, and fit; and memory may have become free before it was seen to wait.
        self.budget.serve();
        // The sender is dropped unsent only with this future.
        let _ = grant.await;
    }

    /// What was waited for was given.
    pub(super) fn granted(&self, bytes: u64) {
        self.grown.fetch_add(bytes, Ordering::SeqCst);
    }

    /// Takes `bytes` in advance for what will be allocated for it, when they are there; once, before its guest starts.
    pub async fn reserve_overhead(self: &Arc<Self>, bytes: u64) {
        if !self.take(bytes) {
            self.wait(bytes).await;
        }
        let counted = self.host_counted.load(Ordering::SeqCst).min(bytes);
        self.budget.set_aside(bytes - counted);
        self.overhead.store(bytes, Ordering::SeqCst);
        self.grown.fetch_sub(bytes, Ordering::SeqCst);
        // That was in the budget already.
        self.budget.give_back(counted);
    }

    /// Charges what this thread allocates from now on.
    pub fn charge(&self) -> Charging<'_> {
        self.host.charge()
    }

    /// Counts `bytes` as allocated for it until what is given is dropped; `None` if it has no room for them: see [`Self::has_room`].
    pub fn hold(&self, bytes: NonZeroUsize, most: u64) -> Option<HeldBytes> {
        self.has_room(bytes.get() as u64, most).then(|| self.host.hold(bytes))
    }

    /// Brings the budget up to date with what is allocated in the box. Called by its worker alone.
    ///
    /// # Errors
    /// Why it must end: it costs more than `most` bytes in all, or more than was taken in advance and there is no more.
    pub fn check(&self, most: u64) -> Result<(), CancelReason> {
        let fits = self.settle();
        if self.cost() > most {
            Err(CancelReason::MemoryLimit)
        } else if fits {
            Ok(())
        } else {
            self.budget.evicts();
            Err(CancelReason::Evicted)
        }
    }

    /// Whether there was room for what was allocated since the last time; it is in the budget anyway.
    fn settle(&self) -> bool {
        self.settle_to(NOTICEABLE)
    }

    /// The same, to a precision of so many bytes.
    fn settle_to(&self, precision: u64) -> bool {
        if self.is_handed_on.load(Ordering::Relaxed) {
            return true;
        }
        let (now, counted) = (self.host_bytes(), self.host_counted.load(Ordering::Relaxed));
        if now.abs_diff(counted) < precision {
            return true;
        }
        self.host_counted.store(now, Ordering::SeqCst);
        let overhead = self.overhead.load(Ordering::Relaxed);
        self.budget.use_aside(counted.min(overhead), now.min(overhead));
        let (before, after) = (counted.max(overhead), now.max(overhead));
        if after <= before {
            self.budget.give_back(before - after);
            return true;
        }
        let bytes = after - before;
        self.budget.take(bytes) || {
            self.budget.take_anyway(bytes);
            // It is in the box already; what is spare is on its way out.
            self.budget.make_room(0)
        }
    }

    /// Whether `bytes` more can be allocated for it: then it costs at most `most` in all, and it is there.
    pub fn has_room(&self, bytes: u64, most: u64) -> bool {
        let after = self.host_bytes().saturating_add(bytes);
        let has = self.host_counted.load(Ordering::Relaxed).max(self.overhead.load(Ordering::Relaxed));
        let more = after.saturating_sub(has);
        self.grown.load(Ordering::Relaxed).saturating_add(after) <= most
            && (self.budget.has(more) || self.budget.make_room(more))
    }

    /// Bytes of linear memories and tables.
    pub fn grown(&self) -> u64 {
        self.grown.load(Ordering::Relaxed)
    }

    /// Its instance is made: what is allocated now is that instance's own.
    pub fn instance_made(&self) {
        self.own.store(self.host_bytes(), Ordering::Relaxed);
    }

    /// What it costs in all now, bytes.
    pub fn cost(&self) -> u64 {
        self.grown.load(Ordering::Relaxed).saturating_add(self.host_bytes())
    }

    /// What is allocated for it in the box, and is in no other account.
    fn host_bytes(&self) -> u64 {
        self.host.get().saturating_sub(self.elsewhere.load(Ordering::Relaxed))
    }

    /// `bytes` of what is allocated for it are in another account until what is given is dropped.
    pub fn accounted_elsewhere(&self, bytes: u64) -> AccountedElsewhere {
        self.elsewhere.fetch_add(bytes, Ordering::Relaxed);
        AccountedElsewhere { elsewhere: self.elsewhere.clone(), bytes }
    }

    /// The same, as of the last look.
    pub fn used(&self) -> u64 {
        self.grown.load(Ordering::SeqCst).saturating_add(self.host_counted.load(Ordering::SeqCst))
    }

    /// What it holds of the budget, bytes: also what it does not use yet.
    pub fn held(&self) -> u64 {
        let host = self.host_counted.load(Ordering::SeqCst).max(self.overhead.load(Ordering::SeqCst));
        self.grown.load(Ordering::SeqCst).saturating_add(host)
    }

    /// Its guest and all that it had are gone: what is left is the answer, as long as somebody holds that and this.
    pub fn guest_ended(&self) {
        self.settle();
        self.give_back_overhead(self.host_counted.load(Ordering::SeqCst));
        self.budget.give_back(self.grown.swap(0, Ordering::SeqCst));
    }

    /// What was taken in advance and is not used, as `counted` bytes are allocated.
    fn give_back_overhead(&self, counted: u64) {
        let overhead = self.overhead.swap(0, Ordering::SeqCst);
        self.budget.use_aside(counted.min(overhead), overhead);
        self.budget.give_back(overhead.saturating_sub(counted));
    }
}

impl Drop for MemoryReservation {
    fn drop(&mut self) {
        self.guest_ended();
        self.budget.give_back(*self.host_counted.get_mut());
    }
}

/// Leaves the queue.
struct Place<'a>(&'a MemoryReservation);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.budget.leave(self.0.seniority);
    }
}
