//! What guests' linear memories and tables have grown to, and what the box has allocated for them, in sum and each; growth of the former
//! that does not fit waits here.
//!
//! As long as nobody waits and there is room, a growth is a few atomic operations. Those who wait are served by seniority, and nobody
//! overtakes them.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};

use prometheus::IntCounter;
use tokio::sync::oneshot;

use super::signed;
use crate::{
    allocator::{Charging, HostBytes},
    invocation::{CancelToken, InvocationId},
};

/// When an invocation was admitted, relative to others: the smaller, the earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seniority(u64);

/// The memory of all guests.
#[derive(Debug)]
pub struct MemoryBudget {
    /// Bytes that guests have grown to, and that are allocated for them.
    committed: AtomicU64,
    /// How far `committed` may go. Negative: the box itself is above the high mark.
    ceiling: AtomicI64,
    /// As many as are in `waiting`; changed under its lock.
    waiters: AtomicUsize,
    waiting: Mutex<Waiting>,
    next: AtomicU64,
    waits: IntCounter,
}

/// Bytes. What is allocated in the box for an invocation is in the budget to this precision.
const NOTICEABLE: u64 = 64 << 10;

#[derive(Debug, Default)]
struct Waiting {
    by_seniority: BTreeMap<Seniority, Waiter>,
    /// Since when somebody waits.
    since: Option<Instant>,
}

#[derive(Debug)]
struct Waiter {
    reservation: Arc<MemoryReservation>,
    bytes: u64,
    since: Instant,
    granted: oneshot::Sender<()>,
}

/// What one invocation holds. It is given back when this is dropped, which must be after the store, since that gives the pages back.
#[derive(Debug)]
pub struct MemoryReservation {
    budget: Arc<MemoryBudget>,
    pub id: InvocationId,
    pub seniority: Seniority,
    pub cancel: CancelToken,
    /// Bytes of linear memories and tables.
    held: AtomicU64,
    /// What is allocated for it in the box, and what of that is in the budget.
    host: HostBytes,
    host_counted: AtomicU64,
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
    /// Without a ceiling, until [`MemoryBudget::set_ceiling`]. `waits` counts the growths that had to wait.
    pub fn new(waits: IntCounter) -> Arc<MemoryBudget> {
        Arc::new(MemoryBudget {
            committed: AtomicU64::new(0),
            ceiling: AtomicI64::new(i64::MAX),
            waiters: AtomicUsize::new(0),
            waiting: Mutex::default(),
            next: AtomicU64::new(0),
            waits,
        })
    }

    /// For an invocation that was admitted just now.
    pub fn reserve(self: &Arc<Self>, id: InvocationId, cancel: CancelToken) -> Arc<MemoryReservation> {
        let seniority = Seniority(self.next.fetch_add(1, Ordering::Relaxed));
        Arc::new(MemoryReservation {
            budget: self.clone(),
            id,
            seniority,
            cancel,
            held: AtomicU64::new(0),
            host: HostBytes::default(),
            host_counted: AtomicU64::new(0),
        })
    }

    /// Bytes that all guests have grown to, and that are allocated for them.
    pub fn committed(&self) -> u64 {
        self.committed.load(Ordering::SeqCst)
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

    fn take(&self, bytes: u64) -> bool {
        let total = self.committed.fetch_add(bytes, Ordering::SeqCst) + bytes;
        if signed(total) <= self.ceiling.load(Ordering::SeqCst) {
            return true;
        }
        self.committed.fetch_sub(bytes, Ordering::SeqCst);
        false
    }

    fn give_back(&self, bytes: u64) {
        self.committed.fetch_sub(bytes, Ordering::SeqCst);
        if self.waiters.load(Ordering::SeqCst) > 0 {
            self.serve();
        }
    }

    fn serve(&self) {
        let mut waiting = self.waiting();
        while let Some(first) = waiting.by_seniority.first_entry() {
            if !self.take(first.get().bytes) {
                break;
            }
            let waiter = first.remove();
            self.waiters.fetch_sub(1, Ordering::SeqCst);
            // If the guest has ended meanwhile, the reservation gives it back.
            waiter.reservation.held.fetch_add(waiter.bytes, Ordering::SeqCst);
            let _ = waiter.granted.send(());
        }
        if waiting.by_seniority.is_empty() {
            waiting.since = None;
        }
    }
}

impl MemoryReservation {
    /// Takes `bytes`, if they are there and nobody waits.
    pub fn take(&self, bytes: u64) -> bool {
        let taken = self.budget.waiters.load(Ordering::SeqCst) == 0 && self.budget.take(bytes);
        if taken {
            self.held.fetch_add(bytes, Ordering::Relaxed);
        }
        taken
    }

    /// Takes `bytes` when they are there. Dropping the future leaves the queue. A guest grows one memory at a time, so it has one such
    /// future at most.
    pub async fn wait(self: &Arc<Self>, bytes: u64) {
        let (granted, grant) = oneshot::channel();
        let waiter = Waiter { reservation: self.clone(), bytes, since: Instant::now(), granted };
        self.budget.waits.inc();
        {
            let mut waiting = self.budget.waiting();
            waiting.since.get_or_insert(waiter.since);
            waiting.by_seniority.insert(self.seniority, waiter);
            self.budget.waiters.fetch_add(1, Ordering::SeqCst);
        }
        let _place = Place(self);
        // It may be the most senior, and fit; and memory may have become free before it was seen to wait.
        self.budget.serve();
        // The sender is dropped unsent only with this future.
        let _ = grant.await;
    }

    #[cfg(test)]
    fn give_back(&self, bytes: u64) {
        self.held.fetch_sub(bytes, Ordering::SeqCst);
        self.budget.give_back(bytes);
    }

    /// Charges what this thread allocates from now on.
    pub fn charge(&self) -> Charging<'_> {
        self.host.charge()
    }

    /// Brings the budget up to date with what is allocated in the box; gives what the invocation costs in all, bytes. That does not
    /// wait: it is there already. Called by its worker alone.
    pub fn settle(&self) -> u64 {
        let (now, counted) = (self.host.get(), self.host_counted.load(Ordering::Relaxed));
        if now.abs_diff(counted) >= NOTICEABLE {
            self.host_counted.store(now, Ordering::SeqCst);
            if now > counted {
                self.budget.committed.fetch_add(now - counted, Ordering::SeqCst);
            } else {
                self.budget.give_back(counted - now);
            }
        }
        self.held.load(Ordering::Relaxed).saturating_add(now)
    }

    /// What it costs in all, bytes, as of the last [`MemoryReservation::settle`].
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::SeqCst).saturating_add(self.host_counted.load(Ordering::SeqCst))
    }
}

impl Drop for MemoryReservation {
    fn drop(&mut self) {
        let held = *self.held.get_mut() + *self.host_counted.get_mut();
        if held > 0 {
            self.budget.give_back(held);
        }
    }
}

/// Leaves the queue.
struct Place<'a>(&'a MemoryReservation);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let budget = &self.0.budget;
        let left = budget.waiting().by_seniority.remove(&self.0.seniority);
        if left.is_some() {
            budget.waiters.fetch_sub(1, Ordering::SeqCst);
            // The next one may want less.
            budget.serve();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::{Pin, pin},
        task::{Context, Waker},
    };

    use super::*;

    fn budget(ceiling: i64) -> Arc<MemoryBudget> {
        let budget = MemoryBudget::new(IntCounter::new("waits", "of growths").unwrap());
        budget.set_ceiling(ceiling);
        budget
    }

    fn reserve(budget: &Arc<MemoryBudget>) -> Arc<MemoryReservation> {
        budget.reserve(InvocationId::next(), CancelToken::default())
    }

    fn is_ready(future: Pin<&mut impl Future<Output = ()>>) -> bool {
        future.poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn growth_waits_by_seniority_and_nobody_overtakes() {
        let budget = budget(100);
        let [old, young, youngest] = std::array::from_fn(|_| reserve(&budget));
        assert!(youngest.take(90));
        let mut second = pin!(young.wait(20));
        assert!(!is_ready(second.as_mut()));
        assert!(!old.take(5), "somebody waits");
        let mut first = pin!(old.wait(5));
        assert!(is_ready(first.as_mut()), "it is senior, and fits");
        assert_eq!(budget.first().map(|first| (first.seniority, first.missing)), Some((young.seniority, 15)));
        drop(youngest);
        assert!(is_ready(second.as_mut()));
        assert_eq!((budget.committed(), old.held(), young.held()), (25, 5, 20));
        assert!(budget.first().is_none());
        assert_eq!(budget.waits.get(), 2);
    }

    #[test]
    fn what_is_allocated_for_an_invocation_counts_and_is_given_back() {
        let budget = budget(1 << 20);
        let [one, other] = [reserve(&budget), reserve(&budget)];
        let small = {
            let _charging = one.charge();
            vec![0_u8; 1000]
        };
        assert_eq!((one.settle(), one.held(), budget.committed()), (1000, 0, 0), "not worth the trouble");
        let large = {
            let _charging = one.charge();
            vec![0_u8; 2 << 20]
        };
        assert_eq!(one.settle(), (2 << 20) + 1000);
        assert_eq!((one.held(), budget.committed()), ((2 << 20) + 1000, (2 << 20) + 1000), "even above the ceiling");
        assert!(!other.take(1000), "there is no room for others");
        drop(large);
        assert_eq!((one.settle(), budget.committed()), (1000, 1000));
        assert!(other.take(1000));
        drop((one, small, other));
        assert_eq!(budget.committed(), 0);
    }

    #[test]
    fn who_leaves_the_queue_lets_the_next_one_in_and_keeps_nothing() {
        let budget = budget(100);
        let [old, young] = std::array::from_fn(|_| reserve(&budget));
        {
            let mut small = pin!(young.wait(10));
            {
                let mut large = pin!(old.wait(101));
                assert!(!is_ready(large.as_mut()));
                assert!(!is_ready(small.as_mut()));
            }
            assert!(is_ready(small.as_mut()));
        }
        assert_eq!((old.held(), young.held()), (0, 10));
        drop(young);
        // Granted, but never polled again.
        {
            let mut waiting = pin!(old.wait(101));
            assert!(!is_ready(waiting.as_mut()));
            budget.set_ceiling(101);
        }
        assert_eq!(old.held(), 101);
        drop(old);
        assert_eq!(budget.committed(), 0);
    }

    #[test]
    fn nothing_is_lost_between_threads() {
        let budget = budget(1000);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let reservation = reserve(&budget);
                        for bytes in [50, 100, 250] {
                            if !reservation.take(bytes) {
                                // Whoever waits holds less than all: 8 * 150 are more than there is, so some must let go.
                                reservation.give_back(reservation.held());
                                runtime.handle().block_on(reservation.wait(bytes));
                            }
                            assert!(budget.committed() <= 1000 + 8 * 250, "a failed attempt shows for a moment");
                        }
                    }
                });
            }
        });
        assert_eq!(budget.committed(), 0);
        assert!(budget.first().is_none());
    }
}
