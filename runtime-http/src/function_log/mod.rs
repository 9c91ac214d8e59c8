//! The last lines of each function's log, for whoever follows it over the admin port with a token. Without a token there is none of this.
//!
//! The lines are those of the box's log with the target `guest`, and why invocations failed. Whoever logs one only puts it into a bounded queue, without
//! a lock, as with the [log](crate::logging) itself: a thread that its CPU quota stops must hold nothing that others wait for. A thread of the
//! box's own puts them into rings, one for each function. Rings are bounded in bytes, each and all of them; the oldest lines go.
//!
//! - [`mod@line`]: a line, and how it is shown; [`sender`]: on its way; [`rings`]: what is kept; [`follower`]: whoever reads it

pub mod follower;
pub mod line;
pub mod rings;
pub mod sender;

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

pub use self::{
    line::Entry,
    sender::{FunctionLog, LogSender},
};
use self::{line::Line, rings::Rings, sender::Queue};
use crate::threads::ThreadStart;

/// What all rings may hold: this part of the box's memory, at most and at least so many bytes.
const PART: u64 = 128;
const LEAST: u64 = 256 << 10;
const MOST: u64 = 8 << 20;
/// A queue has a quarter of that.
const QUEUE_PART: usize = 4;
/// Who reads at once.
const FOLLOWERS: usize = 16;

/// The logs of all functions.
pub struct FunctionLogs {
    shared: Arc<Shared>,
    places: Arc<Semaphore>,
    /// When it is cancelled followers get what is there, and no more.
    end: CancellationToken,
    queue: Arc<Queue>,
    /// Puts lines into their rings; joined when this is dropped.
    collector: Option<JoinHandle<()>>,
}

struct Shared {
    /// Never locked by a thread that runs guests.
    rings: Mutex<Rings>,
    news: Notify,
}

impl Shared {
    fn rings(&self) -> MutexGuard<'_, Rings> {
        self.rings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, lines: Vec<Line>) {
        let gone: Vec<_> = {
            let mut rings = self.rings();
            lines.into_iter().flat_map(|line| rings.push(line)).collect()
        };
        self.news.notify_waiters();
        // Without the lock.
        drop(gone);
    }
}

impl FunctionLogs {
    /// For a box with so many bytes of memory; gives the way to it, too. `thread_start`: what its thread does first.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(memory_limit: u64, thread_start: ThreadStart) -> io::Result<(Arc<FunctionLogs>, LogSender)> {
        let bytes = usize::try_from((memory_limit / PART).clamp(LEAST, MOST)).unwrap_or(LEAST as usize);
        let shared = Arc::new(Shared { rings: Mutex::new(Rings::new(bytes)), news: Notify::new() });
        let (lines, collector) = sender::queue(bytes / QUEUE_PART);
        let queue = collector.queue();
        let thread = thread::Builder::new().name("function-logs".into()).spawn({
            let shared = shared.clone();
            move || {
                thread_start();
                collector.run(|lines| shared.take(lines));
            }
        })?;
        let sender = LogSender::new(lines, queue.clone(), thread.thread().clone());
        let places = Arc::new(Semaphore::new(FOLLOWERS));
        let logs = FunctionLogs { shared, places, end: CancellationToken::new(), queue, collector: Some(thread) };
        Ok((Arc::new(logs), sender))
    }

    /// Whether there are lines of `function`.
    pub fn knows(&self, function: &str) -> bool {
        self.shared.rings().knows(function)
    }

    /// The right to read, if there are not too many who do.
    pub fn place(&self) -> Option<OwnedSemaphorePermit> {
        self.places.clone().try_acquire_owned().ok()
    }

    /// Ends all who follow.
    pub fn end(&self) {
        self.end.cancel();
    }
}

impl Drop for FunctionLogs {
    fn drop(&mut self) {
        self.queue.close();
        if let Some(thread) = self.collector.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}
