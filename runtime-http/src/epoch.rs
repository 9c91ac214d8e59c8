//! The one thread that advances the engines' epochs, so that running guests yield to whoever drives them: every [`PERIOD`] on a worker, and on
//! a connection's thread when their slice is over.
//!
//! It sleeps while nothing runs: an idle box does not wake the CPU. While slices begin it looks every [`LOOK`]; one that it finds
//! running twice is late. Beginning one is an atomic addition, and a wake-up only if no other has begun for about half a millisecond.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use thread_local::ThreadLocal;

use crate::engine::Engines;

/// Between two yields of a busy guest; the precision of timeouts and cancellation.
pub const PERIOD: Duration = Duration::from_millis(10);
/// A slice ends after one to two of these, if its guest is busy.
pub const LOOK: Duration = Duration::from_micros(200);
/// The ticker goes to sleep after this many periods in which nothing ran on a worker.
const IDLE_PERIODS: u32 = 100;
/// It stops looking for slices after this many looks at which none had begun or was running.
const QUIET_LOOKS: u32 = 1;

/// Owns the thread; dropping it ends and joins the thread.
pub struct Ticker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    /// Something ran on a worker since the ticker last looked.
    active: AtomicBool,
    asleep: AtomicBool,
    /// The ticker looks for late slices.
    looking: AtomicBool,
    ended: AtomicBool,
    /// Of each thread on which slices run.
    slices: ThreadLocal<Slices>,
}

/// The slices of one thread.
#[derive(Default)]
struct Slices {
    /// One more at the beginning and at the end of each: odd while one runs.
    count: AtomicU64,
    /// What the ticker has seen last.
    seen: AtomicU64,
}

/// Keeps the ticker awake; cloned into each worker.
#[derive(Clone)]
pub struct Awake {
    shared: Arc<Shared>,
    thread: thread::Thread,
}

/// While it exists, its thread runs a slice: a guest on it yields soon, and again and again.
pub struct Slice<'a>(&'a Slices);

impl Drop for Slice<'_> {
    fn drop(&mut self) {
        self.0.count.fetch_add(1, Ordering::SeqCst);
    }
}

impl Ticker {
    pub fn start(engines: Engines) -> io::Result<Ticker> {
        let shared = Arc::new(Shared::default());
        let thread = {
            let shared = shared.clone();
            thread::Builder::new().name("epoch".into()).spawn(move || shared.tick(&engines))?
        };
        Ok(Ticker { shared, thread: Some(thread) })
    }

    pub fn awake(&self) -> Awake {
        let thread = self.thread.as_ref().expect("the thread is taken only by drop").thread().clone();
        Awake { shared: self.shared.clone(), thread }
    }
}

impl Shared {
    fn tick(&self, engines: &Engines) {
        let (mut idle_periods, mut quiet_looks) = (0, 0);
        let mut ticked = Instant::now();
        while !self.ended.load(Ordering::Acquire) {
            if self.looking.load(Ordering::SeqCst) {
                thread::park_timeout(LOOK);
            } else if idle_periods < IDLE_PERIODS {
                thread::park_timeout(PERIOD);
            } else {
                self.sleep();
            }
            let is_late = self.looking.load(Ordering::SeqCst) && self.look(&mut quiet_looks);
            let is_due = ticked.elapsed() >= PERIOD;
            if is_late || is_due {
                engines.increment_epoch();
            }
            if is_due {
                ticked = Instant::now();
                idle_periods = if self.active.swap(false, Ordering::SeqCst) { 0 } else { idle_periods + 1 };
            }
        }
    }

    fn sleep(&self) {
        self.asleep.store(true, Ordering::SeqCst);
        if ![&self.active, &self.looking, &self.ended].into_iter().any(|flag| flag.load(Ordering::SeqCst)) {
            thread::park();
        }
        self.asleep.store(false, Ordering::SeqCst);
    }

    /// Whether a slice is late. Stops looking when there have been none for a while.
    fn look(&self, quiet_looks: &mut u32) -> bool {
        let (mut is_late, mut is_quiet) = (false, true);
        for slices in &self.slices {
            let count = slices.count.load(Ordering::SeqCst);
            let is_running = count % 2 == 1;
            let is_same = slices.seen.swap(count, Ordering::Relaxed) == count;
            is_late |= is_running && is_same;
            is_quiet &= is_same && !is_running;
        }
        *quiet_looks = if is_quiet { *quiet_looks + 1 } else { 0 };
        if is_quiet && *quiet_looks > QUIET_LOOKS {
            *quiet_looks = 0;
            self.looking.store(false, Ordering::SeqCst);
            // Who began meanwhile may have seen that it was looked for.
            let has_begun =
                |slices: &Slices| slices.count.load(Ordering::SeqCst) != slices.seen.load(Ordering::Relaxed);
            if self.slices.iter().any(has_begun) {
                self.looking.store(true, Ordering::SeqCst);
            }
        }
        is_late
    }
}

impl Awake {
    /// Called when an invocation starts on a worker, and at each of its yields.
    pub fn touch(&self) {
        if !self.shared.active.load(Ordering::Relaxed) {
            self.shared.active.store(true, Ordering::SeqCst);
        }
        if self.shared.asleep.load(Ordering::SeqCst) {
            self.thread.unpark();
        }
    }

    /// From now on this thread runs a slice. A thread runs one at a time.
    pub fn slice(&self) -> Slice<'_> {
        let slices = self.shared.slices.get_or_default();
        slices.count.fetch_add(1, Ordering::SeqCst);
        if !self.shared.looking.load(Ordering::SeqCst) {
            self.shared.looking.store(true, Ordering::SeqCst);
            self.thread.unpark();
        }
        Slice(slices)
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A panic of the ticker was already reported by the panic hook.
            let _ = thread.join();
        }
    }
}
