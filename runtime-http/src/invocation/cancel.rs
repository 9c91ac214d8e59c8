//! Ending a running invocation from another thread.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
};

use futures_util::task::AtomicWaker;

/// Why a running invocation is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum CancelReason {
    Deadline = 1,
    ClientGone = 2,
    OutputLimit = 3,
    Draining = 4,
    /// Memory was needed for others.
    Evicted = 5,
    /// What the box allocated for it is more than its limit.
    MemoryLimit = 6,
}

impl CancelReason {
    const ALL: [CancelReason; 6] = [
        CancelReason::Deadline,
        CancelReason::ClientGone,
        CancelReason::OutputLimit,
        CancelReason::Draining,
        CancelReason::Evicted,
        CancelReason::MemoryLimit,
    ];
}

/// Lifts the CPU quota of a guest from another thread than its own, which cannot while it is throttled.
pub trait QuotaLift: fmt::Debug + Send + Sync {
    fn lift(&self);
}

/// A request to end, seen by the worker at its guest's next yield or blocked host call. The first reason stays.
#[derive(Debug, Clone, Default)]
pub struct CancelToken(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// 0, or a [`CancelReason`].
    reason: AtomicU8,
    worker: AtomicWaker,
    /// While the guest runs in a cgroup, and its quota has not been lifted.
    quota: Mutex<Option<Arc<dyn QuotaLift>>>,
}

impl CancelToken {
    /// Whether this is the reason that stays. The quota is lifted, too: a throttled guest does not see the request until its period ends, or
    /// until many have, when it is in the middle of a long instruction. What it still uses until it sees it is at most one such instruction.
    pub fn cancel(&self, reason: CancelReason) -> bool {
        let first = self.0.reason.compare_exchange(0, reason as u8, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if first {
            self.lift();
            self.0.worker.wake();
        }
        first
    }

    fn lift(&self) {
        // If it is locked the worker begins or ends just now. It is not waited for: it may be throttled right there.
        let Ok(mut quota) = self.0.quota.try_lock() else { return };
        if let Some(quota) = quota.take() {
            quota.lift();
        }
    }

    /// The guest begins, under a quota that may be lifted.
    pub fn begin(&self, quota: Option<Arc<dyn QuotaLift>>) {
        *self.0.quota.lock().unwrap_or_else(PoisonError::into_inner) = quota;
        // Who cancelled before had nothing to lift.
        if self.reason().is_some() {
            self.lift();
        }
    }

    /// The guest has ended. From now on its quota is not lifted; gives whether it was.
    pub fn end(&self) -> bool {
        self.0.quota.lock().unwrap_or_else(PoisonError::into_inner).take().is_none()
    }

    /// Why it is to end, if it is.
    pub fn reason(&self) -> Option<CancelReason> {
        let reason = self.0.reason.load(Ordering::Acquire);
        CancelReason::ALL.into_iter().find(|known| *known as u8 == reason)
    }

    /// `waker` is woken by the next [`CancelToken::cancel`].
    pub fn register(&self, waker: &std::task::Waker) {
        self.0.worker.register(waker);
    }
}

/// Held by the client's side of an invocation: dropped before [`CancelOnDrop::release`], it cancels the worker's side.
#[derive(Debug)]
pub struct CancelOnDrop(Option<CancelToken>);

impl CancelOnDrop {
    pub fn new(cancel: CancelToken) -> Self {
        CancelOnDrop(Some(cancel))
    }

    pub fn release(&mut self) {
        self.0 = None;
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        if let Some(cancel) = &self.0 {
            cancel.cancel(CancelReason::ClientGone);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Debug, Default)]
    struct Count(AtomicUsize);

    impl QuotaLift for Count {
        fn lift(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn every_reason_lifts_the_quota_once_and_the_first_stays() {
        for reason in CancelReason::ALL {
            let (cancel, quota) = (CancelToken::default(), Arc::new(Count::default()));
            cancel.begin(Some(quota.clone()));
            assert_eq!(cancel.reason(), None);
            assert!(cancel.cancel(reason));
            assert!(!cancel.cancel(CancelReason::Evicted));
            assert_eq!((cancel.reason(), quota.0.load(Ordering::Relaxed)), (Some(reason), 1));
            assert!(cancel.end(), "it was lifted");
        }
    }

    #[test]
    fn who_was_cancelled_before_it_began_has_no_quota_and_who_has_ended_keeps_it() {
        let (cancel, quota) = (CancelToken::default(), Arc::new(Count::default()));
        cancel.cancel(CancelReason::ClientGone);
        cancel.begin(Some(quota.clone()));
        assert_eq!(quota.0.load(Ordering::Relaxed), 1);
        let (cancel, quota) = (CancelToken::default(), Arc::new(Count::default()));
        cancel.begin(Some(quota.clone()));
        assert!(!cancel.end());
        cancel.cancel(CancelReason::ClientGone);
        assert_eq!(quota.0.load(Ordering::Relaxed), 0);
    }
}
