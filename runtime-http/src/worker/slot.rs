//! Where one worker is given a job, and where others see what a thread runs.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::Job;
use crate::memory::MemoryReservation;

/// One worker, seen from the others. Two slots are equal if they are the same.
#[derive(Default)]
pub(super) struct WorkerSlot {
    inbox: Mutex<Inbox>,
    filled: Condvar,
    pub running: Running,
}

/// The memory of the invocation that a thread runs, with its cancel token.
#[derive(Default)]
pub(super) struct Running(Mutex<Option<Arc<MemoryReservation>>>);

#[derive(Default)]
pub(super) enum Inbox {
    #[default]
    Empty,
    Job(Box<Job>),
    Closed,
}

impl PartialEq for WorkerSlot {
    fn eq(&self, other: &WorkerSlot) -> bool {
        std::ptr::eq(self, other)
    }
}

impl WorkerSlot {
    pub fn put(&self, content: Inbox) {
        *lock(&self.inbox) = content;
        self.filled.notify_one();
    }

    /// Waits for content; `Empty` after `patience`.
    pub fn wait(&self, patience: Duration) -> Inbox {
        let inbox = lock(&self.inbox);
        let (mut inbox, _) = self
            .filled
            .wait_timeout_while(inbox, patience, |inbox| matches!(inbox, Inbox::Empty))
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *inbox)
    }
}

impl Running {
    pub fn set(&self, memory: &Arc<MemoryReservation>) {
        *lock(&self.0) = Some(memory.clone());
    }

    /// It is dropped without the lock: that may let those in who wait for memory.
    pub fn clear(&self) {
        let ended = lock(&self.0).take();
        drop(ended);
    }

    pub fn get(&self) -> Option<Arc<MemoryReservation>> {
        lock(&self.0).clone()
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
