//! Stopping a running invocation from another thread.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use futures_util::task::AtomicWaker;

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
}

impl Stop {
    /// Whether this is the reason that stays.
    pub fn request(&self, reason: StopReason) -> bool {
        let first = self.0.reason.compare_exchange(0, reason as u8, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if first {
            self.0.worker.wake();
        }
        first
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
