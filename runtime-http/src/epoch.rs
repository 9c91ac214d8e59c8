//! The one thread that advances the engine's epoch, so that running guests yield to their worker every [`PERIOD`].
//!
//! It sleeps while nothing runs: an idle box does not wake the CPU.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use wasmtime::Engine;

/// Between two yields of a busy guest; the precision of timeouts and cancellation.
pub const PERIOD: Duration = Duration::from_millis(10);
/// The ticker goes to sleep after this many periods in which no invocation started.
const IDLE_PERIODS: u32 = 100;

/// Owns the thread; dropping it ends and joins the thread.
pub struct Ticker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    /// An invocation started, or is running, since the ticker last looked.
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
    pub fn start(engine: Engine) -> io::Result<Ticker> {
        let shared = Arc::new(Shared {
            active: AtomicBool::new(false),
            asleep: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        });
        let thread = {
            let shared = shared.clone();
            thread::Builder::new().name("epoch".into()).spawn(move || shared.tick(&engine))?
        };
        Ok(Ticker { shared, thread: Some(thread) })
    }

    pub fn awake(&self) -> Awake {
        let thread = self.thread.as_ref().expect("the thread is taken only by drop").thread().clone();
        Awake { shared: self.shared.clone(), thread }
    }
}

impl Shared {
    fn tick(&self, engine: &Engine) {
        let mut idle_periods = 0;
        while !self.ended.load(Ordering::Acquire) {
            if idle_periods < IDLE_PERIODS {
                thread::park_timeout(PERIOD);
                engine.increment_epoch();
            } else {
                self.asleep.store(true, Ordering::SeqCst);
                if !self.active.load(Ordering::SeqCst) && !self.ended.load(Ordering::SeqCst) {
                    thread::park();
                }
                self.asleep.store(false, Ordering::SeqCst);
            }
            idle_periods = if self.active.swap(false, Ordering::SeqCst) { 0 } else { idle_periods + 1 };
        }
    }
}

impl Awake {
    /// Called when an invocation starts, and at each of its yields.
    pub fn touch(&self) {
        if !self.shared.active.load(Ordering::Relaxed) {
            self.shared.active.store(true, Ordering::SeqCst);
        }
        if self.shared.asleep.load(Ordering::SeqCst) {
            self.thread.unpark();
        }
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
