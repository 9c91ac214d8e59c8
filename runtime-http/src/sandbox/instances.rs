//! The instances that wait for their functions' next requests.
//!
//! They are spare: memory that somebody needs, a slot of the engine's pools that somebody needs, and time without a request end them. Those
//! that have waited for longest go first. To end one takes its time, so that is done by a thread of their own, which is nobody's.

mod shelf;

use std::{
    fmt, io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use self::shelf::Shelf;
use super::{ADVANCE, OVERHEAD, instance::Instance, program::HttpComponent};
use crate::{
    limits::Limits,
    memory::{KeptMemory, reclaim::Spare},
    metrics::{InstanceMetrics, gauge},
};

/// What may be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InstanceBounds {
    /// Bytes in all.
    pub memory: u64,
    /// Instances, with invocations that run: each has a slot of the engine's pools.
    pub slots: usize,
    /// How long one waits for its next request.
    pub idle: Duration,
}

/// The instances of all functions.
pub struct KeptInstances {
    bounds: InstanceBounds,
    metrics: InstanceMetrics,
    /// As many as are on the shelf; changed under its lock.
    count: AtomicUsize,
    shelf: Mutex<Shelf<Waiting>>,
    /// Those that end, of which there are no more than slots. Nobody is there any more when the box ends.
    ending: Arc<Ending>,
    reaper: Reaper,
}

/// What is on its way out.
#[derive(Default)]
struct Ending {
    instances: AtomicUsize,
    bytes: AtomicU64,
}

/// The thread that ends them, joined when this is dropped.
struct Reaper {
    instances: Option<mpsc::SyncSender<Box<Waiting>>>,
    thread: Option<JoinHandle<()>>,
}

/// One that waits. Its store is dropped before its memory is given back.
struct Waiting {
    instance: Instance,
    memory: KeptMemory,
    /// Its address is the key, as long as this is here.
    _program: Arc<HttpComponent>,
}

fn key(program: &Arc<HttpComponent>) -> usize {
    Arc::as_ptr(program).addr()
}

impl KeptInstances {
    /// `thread_start`: what its thread does first.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(
        bounds: InstanceBounds,
        metrics: InstanceMetrics,
        thread_start: impl FnOnce() + Send + 'static,
    ) -> io::Result<Arc<KeptInstances>> {
        let (sender, receiver) = mpsc::sync_channel::<Box<Waiting>>(bounds.slots);
        let ending = Arc::<Ending>::default();
        let thread = thread::Builder::new().name("instances".into()).spawn({
            let ending = ending.clone();
            move || {
                thread_start();
                for waiting in receiver {
                    let bytes = waiting.memory.bytes();
                    drop(waiting);
                    ending.bytes.fetch_sub(bytes, Ordering::AcqRel);
                    ending.instances.fetch_sub(1, Ordering::AcqRel);
                }
            }
        })?;
        let reaper = Reaper { instances: Some(sender), thread: Some(thread) };
        Ok(Arc::new(KeptInstances {
            bounds,
            metrics,
            count: AtomicUsize::new(0),
            shelf: Mutex::default(),
            ending,
            reaper,
        }))
    }

    pub(super) fn metrics(&self) -> &InstanceMetrics {
        &self.metrics
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf<Waiting>> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the shelf do something.
    fn with_shelf<T>(&self, act: impl FnOnce(&mut Shelf<Waiting>) -> T) -> T {
        let mut shelf = self.shelf();
        let result = act(&mut shelf);
        self.count.store(shelf.len(), Ordering::Release);
        self.metrics.kept.set(gauge(shelf.len()));
        self.metrics.kept_bytes.set(gauge(shelf.bytes()));
        result
    }

    /// An instance of `program` for an invocation with `limits`.
    pub fn take(&self, program: &Arc<HttpComponent>, limits: &Limits) -> Option<(Instance, KeptMemory)> {
        let limit = limits.memory.bytes();
        let most = limit.saturating_add(OVERHEAD - ADVANCE);
        let fits = |waiting: &Waiting| waiting.memory.fits(limit, most) && waiting.memory.is_settled();
        let taken = self.with_shelf(|shelf| shelf.take(key(program), fits));
        if taken.is_some() { &self.metrics.reused } else { &self.metrics.fresh }.inc();
        taken.map(|Waiting { instance, memory, .. }| (instance, memory))
    }

    /// Before an instance is made: `in_flight` invocations run, with the one that it is for.
    pub fn make_slot(&self, in_flight: usize) {
        if self.count.load(Ordering::Acquire) == 0 {
            return;
        }
        let too_many = |shelf: &Shelf<Waiting>| {
            shelf.len() + self.ending.instances.load(Ordering::Acquire) + in_flight > self.bounds.slots
        };
        // Here, since the slot is needed now.
        while let Some(waiting) = self.with_shelf(|shelf| too_many(shelf).then(|| shelf.take_oldest()).flatten()) {
            self.metrics.ended_for_memory.inc();
            drop(waiting);
        }
    }

    /// Keeps an instance of `program`.
    pub(super) fn put(&self, program: Arc<HttpComponent>, instance: Instance, memory: KeptMemory) {
        let (key, bytes) = (key(&program), memory.bytes());
        let waiting = Waiting { instance, memory, _program: program };
        self.with_shelf(|shelf| shelf.put(key, waiting, bytes, Instant::now()));
        let most = self.bounds.memory;
        self.end(
            |shelf, _| (shelf.bytes() > most).then(|| shelf.take_oldest()).flatten(),
            &self.metrics.ended_for_memory,
        );
    }

    /// Ends those that have waited for too long.
    pub fn expire(&self, now: Instant) {
        if self.count.load(Ordering::Acquire) > 0 {
            self.end(|shelf, _| shelf.take_expired(self.bounds.idle, now), &self.metrics.ended_idle);
        }
    }

    /// Has those ended that `next` takes, given how many bytes went before; gives how many bytes that are.
    fn end(&self, next: impl Fn(&mut Shelf<Waiting>, u64) -> Option<Waiting>, ended: &prometheus::IntCounter) -> u64 {
        let mut bytes = 0;
        loop {
            let taken = self.with_shelf(|shelf| {
                let taken = next(shelf, bytes);
                if let Some(waiting) = &taken {
                    // While it counts as one that waits.
                    self.ending.instances.fetch_add(1, Ordering::AcqRel);
                    self.ending.bytes.fetch_add(waiting.memory.bytes(), Ordering::AcqRel);
                }
                taken
            });
            let Some(waiting) = taken else { return bytes };
            bytes += waiting.memory.bytes();
            ended.inc();
            if let Some(reaper) = &self.reaper.instances {
                // It is there as long as this is.
                let _ = reaper.send(Box::new(waiting));
            }
        }
    }
}

impl Spare for KeptInstances {
    fn give_back(&self, bytes: u64) -> u64 {
        // What others have asked for already is on its way to them; but whoever waits first gets it.
        let coming = self.ending.bytes.load(Ordering::Acquire);
        if coming >= bytes || self.count.load(Ordering::Acquire) == 0 {
            return coming;
        }
        let bytes = bytes - coming;
        let oldest = |shelf: &mut Shelf<Waiting>, gone| (gone < bytes).then(|| shelf.take_oldest()).flatten();
        coming + self.end(oldest, &self.metrics.ended_for_memory)
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        drop(self.instances.take());
        if let Some(thread) = self.thread.take() {
            // A panic there was reported by the panic hook.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for KeptInstances {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeptInstances").field("count", &self.count).finish_non_exhaustive()
    }
}
