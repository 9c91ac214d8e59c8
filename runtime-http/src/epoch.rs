//! When the engines' epochs advance, so that running guests yield to whoever drives them: on workers every [`PERIOD`], by the one thread of
//! [`Ticker`]; on a connection's thread by a timer of its CPU time ([`mod@slice`]), which costs nothing while it does not run.
//!
//! The ticker sleeps while nothing runs on workers: an idle box does not wake the CPU.

pub mod slice;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use self::slice::Slice;
use crate::engine::Engines;

/// Between two yields of a busy guest; the precision of timeouts and cancellation.
pub const PERIOD: Duration = Duration::from_millis(10);
/// The ticker goes to sleep after this many periods in which nothing ran.
const IDLE_PERIODS: u32 = 100;

/// Owns the thread; dropping it ends and joins the thread.
pub struct Ticker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    engines: Engines,
    /// Something ran on a worker since the ticker last looked.
    active: AtomicBool,
    asleep: AtomicBool,
    ended: AtomicBool,
}

/// Keeps the ticker awake; cloned into each worker.
#[derive(Clone)]
pub struct Awake {
    shared: Arc<Shared>,
    thread: thread::Thread,
}

impl Ticker {
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(engines: Engines) -> io::Result<Ticker> {
        let shared = Arc::new(Shared {
            engines,
            active: AtomicBool::default(),
            asleep: AtomicBool::default(),
            ended: AtomicBool::default(),
        });
        let thread = {
            let shared = shared.clone();
            thread::Builder::new().name("epoch".into()).spawn(move || shared.tick())?
        };
        Ok(Ticker { shared, thread: Some(thread) })
    }

    pub fn awake(&self) -> Awake {
        let thread = self.thread.as_ref().expect("the thread is taken only by drop").thread().clone();
        Awake { shared: self.shared.clone(), thread }
    }
}

impl Shared {
    fn tick(&self) {
        let mut idle_periods = 0;
        while !self.ended.load(Ordering::Acquire) {
            if idle_periods < IDLE_PERIODS {
                thread::park_timeout(PERIOD);
            } else {
                self.sleep();
            }
            self.engines.increment_epoch();
            idle_periods = if self.active.swap(false, Ordering::SeqCst) { 0 } else { idle_periods + 1 };
        }
    }

    fn sleep(&self) {
        self.asleep.store(true, Ordering::SeqCst);
        if ![&self.active, &self.ended].into_iter().any(|flag| flag.load(Ordering::SeqCst)) {
            thread::park();
        }
        self.asleep.store(false, Ordering::SeqCst);
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

    /// From now on a guest on this thread yields when it has used more than a slice, which began when the thread had used `cpu`, and again and
    /// again. A thread runs one slice at a time. `None` if it has no timer.
    pub fn slice(&self, cpu: Duration) -> Option<Slice<'_>> {
        Slice::begin(&self.shared.engines, cpu)
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
