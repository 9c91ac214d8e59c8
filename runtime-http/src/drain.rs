//! How the thread sleeps that takes things out of a queue, without a lock for those who put them in.
//!
//! Guests' threads put lines into queues, and their CPU quota may stop them anywhere: a lock that one of them holds would stop all who wait for it,
//! until its period ends. So the queue is a channel to which nobody sends while somebody blocks in receiving, and the thread that
//! receives looks for what is there, and parks when nothing is.

use std::{
    sync::atomic::{AtomicBool, Ordering, fence},
    thread,
    time::Duration,
};

/// What comes within this span is taken out together; it is seen this much later at most.
const GATHER: Duration = Duration::from_millis(5);

/// What both sides know of that thread.
#[derive(Debug, Default)]
pub struct Drain {
    /// It waits for the first thing, without a time limit.
    asleep: AtomicBool,
    closed: AtomicBool,
}

/// What was taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    Nothing,
    /// There may be more.
    Some,
    All,
}

impl Drain {
    /// Whether the thread must be unparked for what was just put into the queue.
    pub fn must_wake(&self) -> bool {
        // With the thread's: either this sees that it is asleep, or it sees what was put there.
        fence(Ordering::SeqCst);
        self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::Relaxed)
    }

    /// Nothing more comes. The thread takes out what is there, and must be unparked for that.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    /// Calls `take` on the thread that takes things out, until the queue is closed and empty.
    pub fn run(&self, mut take: impl FnMut() -> Taken) {
        loop {
            let closed = self.closed.load(Ordering::SeqCst);
            match take() {
                Taken::Nothing if closed => return,
                Taken::Nothing if self.asleep.load(Ordering::Relaxed) => {
                    thread::park();
                    self.asleep.store(false, Ordering::Relaxed);
                }
                Taken::Nothing => {
                    // Looks once more before it sleeps.
                    self.asleep.store(true, Ordering::Relaxed);
                    fence(Ordering::SeqCst);
                }
                taken => {
                    self.asleep.store(false, Ordering::Relaxed);
                    if taken == Taken::All && !closed {
                        thread::sleep(GATHER);
                    }
                }
            }
        }
    }
}
