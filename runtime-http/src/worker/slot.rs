//! Where one worker is given a job, and can be told to end it.

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
    /// The memory of the invocation that is running, and its cancel token.
    running: Mutex<Option<Arc<MemoryReservation>>>,
}

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

    pub fn set_running(&self, memory: Arc<MemoryReservation>) {
        *lock(&self.running) = Some(memory);
    }

    /// Gives back what was running. It must be dropped without the lock: that may let those in who wait for memory.
    pub fn take_running(&self) -> Option<Arc<MemoryReservation>> {
        lock(&self.running).take()
    }

    pub fn running(&self) -> Option<Arc<MemoryReservation>> {
        lock(&self.running).clone()
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
