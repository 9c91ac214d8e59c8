//! Stopping a running invocation from another thread.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU8, Ordering},
};

use futures_util::task::AtomicWaker;

use crate::cgroup::leaf::Lift;

/// Why a running invocation is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum StopReason {
    Deadline = 1,
    ClientGone = 2,
    OutputLimit = 3,
    Draining = 4,
    /// Memory was needed for others.
    Evicted = 5,
}

/// A request to stop, seen by the worker at its guest's next yield or blocked host call. The first reason stays.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// 0, or a [`StopReason`].
    reason: AtomicU8,
    worker: AtomicWaker,
    /// While the guest runs in a cgroup, and its quota has not been lifted.
    quota: Mutex<Option<Lift>>,
}

impl Stop {
    /// Whether this is the reason that stays. Where the box needs the end soon, the quota is lifted, too: a throttled guest does not see
    /// the request until its period ends, or until many have, when the kernel noticed late that its budget was used up.
    pub fn request(&self, reason: StopReason) -> bool {
        let first = self.0.reason.compare_exchange(0, reason as u8, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if first {
            match reason {
                StopReason::Evicted | StopReason::Draining => self.lift(),
                StopReason::Deadline | StopReason::ClientGone | StopReason::OutputLimit => {}
            }
            self.0.worker.wake();
        }
        first
    }

    fn lift(&self) {
        // If it is locked the worker begins or ends just now. It is not waited for: it may be throttled right there.
        let Ok(mut quota) = self.0.quota.try_lock() else { return };
        if let Some(Err(errno)) = quota.take().map(|quota| quota.lift()) {
            tracing::debug!("a quota cannot be lifted: {errno}");
        }
    }

    /// The guest begins, under a quota that may be lifted.
    pub fn begin(&self, quota: Option<Lift>) {
        *self.0.quota.lock().unwrap_or_else(PoisonError::into_inner) = quota;
    }

    /// The guest has ended. From now on its quota is not lifted; gives whether it was.
    pub fn end(&self) -> bool {
        self.0.quota.lock().unwrap_or_else(PoisonError::into_inner).take().is_none()
    }

    pub fn requested(&self) -> Option<StopReason> {
        [
            StopReason::Deadline,
            StopReason::ClientGone,
            StopReason::OutputLimit,
            StopReason::Draining,
            StopReason::Evicted,
        ]
        .into_iter()
        .find(|reason| *reason as u8 == self.0.reason.load(Ordering::Acquire))
    }

    /// `waker` is woken by the next [`Stop::request`].
    pub fn register(&self, waker: &std::task::Waker) {
        self.0.worker.register(waker);
    }
}

/// Held by the client's side of an invocation: dropped before [`StopOnDrop::disarm`], it stops the worker's side.
#[derive(Debug)]
pub struct StopOnDrop(Option<Stop>);

impl StopOnDrop {
    pub fn new(stop: Stop) -> Self {
        StopOnDrop(Some(stop))
    }

    pub fn disarm(&mut self) {
        self.0 = None;
    }
}

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        if let Some(stop) = &self.0 {
            stop.request(StopReason::ClientGone);
        }
    }
}
