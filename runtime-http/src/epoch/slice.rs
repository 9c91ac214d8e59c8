//! What interrupts guests on a thread that serves connections: a timer of the CPU time that the thread uses (timer_create(2)).
//!
//! The kernel looks at such timers when it ticks while the thread runs, so they need neither a system call at a slice's beginning or end nor
//! another thread that is awake; and they are as precise as its tick, 1 to 10 ms, which is enough for a guest that does not end. The signal comes to
//! the thread itself, whose handler advances the epoch if its slice is over.

#![allow(unsafe_code, reason = "a signal handler")]

use std::{
    cell::{Cell, RefCell},
    io,
    marker::PhantomData,
    ptr,
    sync::{
        OnceLock,
        atomic::{AtomicPtr, Ordering},
    },
    time::{Duration, Instant},
};

use nix::{
    sys::{
        signal::{SaFlags, SigAction, SigEvent, SigHandler, SigSet, SigevNotify, Signal, sigaction},
        time::TimeSpec,
        timer::{Expiration, Timer, TimerSetTimeFlags},
    },
    time::ClockId,
};

use crate::{engine::Engines, threads};

/// CPU time that a busy guest may use on a connection's thread until the kernel ticks.
pub const SLICE: Duration = Duration::from_micros(500);
/// The timers' signal, "virtual alarm clock", which nobody else uses.
const SIGNAL: Signal = Signal::SIGVTALRM;
/// CPU time between two expirations. The kernel rounds it up to its tick, and makes one signal of all that are in between.
const INTERVAL: Duration = Duration::from_micros(100);
/// A thread that got no timer asks for one again after this time.
const RETRY: Duration = Duration::from_secs(1);

thread_local! {
    /// Whose epochs advance when this thread's slice is over; null unless it runs one. Neither has a destructor, so a handler may use them.
    static ENGINES: AtomicPtr<Engines> = const { AtomicPtr::new(ptr::null_mut()) };
    /// What the thread had used when its slice began.
    static BEGAN: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    /// The timer, or when there was none.
    static TIMER: RefCell<Option<Result<Timer, Instant>>> = const { RefCell::new(None) };
}

/// While it exists, its thread runs a slice.
pub struct Slice<'a>(PhantomData<(&'a Engines, *const ())>);

impl Slice<'_> {
    pub(super) fn begin(engines: &Engines, cpu: Duration) -> Option<Slice<'_>> {
        can_be_ended().then(|| {
            BEGAN.set(cpu);
            ENGINES.with(|current| current.store(ptr::from_ref(engines).cast_mut(), Ordering::SeqCst));
            Slice(PhantomData)
        })
    }
}

impl Drop for Slice<'_> {
    fn drop(&mut self) {
        ENGINES.with(|current| current.store(ptr::null_mut(), Ordering::SeqCst));
    }
}

/// Whether this thread has a timer, which it is given when it first needs it. The thread's end deletes it.
pub fn can_be_ended() -> bool {
    TIMER.with_borrow_mut(|timer| {
        let is_due = match timer {
            None => true,
            Some(Ok(_)) => return true,
            Some(Err(failed)) => failed.elapsed() >= RETRY,
        };
        if is_due {
            let started = start_timer().map_err(|error| {
                tracing::warn!(
                    "no timer for a thread that serves connections, so guests of its connections begin on workers: {error}; the limit \
                     on pending signals (ulimit -i) may be too low"
                );
                Instant::now()
            });
            *timer = Some(started);
        }
        matches!(timer, Some(Ok(_)))
    })
}

fn start_timer() -> io::Result<Timer> {
    install_handler()?;
    // Whoever has started this process may have blocked it.
    SigSet::from(SIGNAL).thread_unblock()?;
    let thread_id = rustix::thread::gettid().as_raw_nonzero().get();
    let notify = SigevNotify::SigevThreadId { signal: SIGNAL, thread_id, si_value: 0 };
    let mut timer = Timer::new(ClockId::CLOCK_THREAD_CPUTIME_ID, SigEvent::new(notify))?;
    timer.set(Expiration::Interval(TimeSpec::from_duration(INTERVAL)), TimerSetTimeFlags::empty())?;
    Ok(timer)
}

/// Once for the process.
fn install_handler() -> io::Result<()> {
    static INSTALLED: OnceLock<nix::Result<()>> = OnceLock::new();
    let installed = INSTALLED.get_or_init(|| {
        // On the stack for signals: a guest may have used up its own.
        let flags = SaFlags::SA_SIGINFO | SaFlags::SA_ONSTACK | SaFlags::SA_RESTART;
        let action = SigAction::new(SigHandler::SigAction(expired), flags, SigSet::empty());
        // SAFETY: `expired` calls only what may be called in a handler.
        unsafe { sigaction(SIGNAL, &action) }.map(drop)
    });
    (*installed).map_err(io::Error::from)
}

/// Reads a clock, reads and adds to atomics, and nothing else; [`wasmtime::Engine::increment_epoch`] says that it may be called here.
extern "C" fn expired(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: with SA_SIGINFO the kernel passes one.
    if unsafe { (*info).si_code } != libc::SI_TIMER {
        return sent();
    }
    let engines = ENGINES.with(|current| current.load(Ordering::SeqCst));
    // SAFETY: it is null, or what a `Slice` of this thread borrows, which has not been dropped.
    if let Some(engines) = unsafe { engines.as_ref() }
        // Each advance makes the guests of all threads yield.
        && threads::cpu_time().saturating_sub(BEGAN.get()) >= SLICE
    {
        engines.increment_epoch();
    }
}

/// Somebody has sent the signal: what it does by default. The kernel spares the first process of a pid namespace (pid_namespaces(7)).
fn sent() {
    // SAFETY: all three may be called in a handler (signal-safety(7)).
    unsafe {
        if libc::getpid() != 1 {
            libc::signal(SIGNAL as libc::c_int, libc::SIG_DFL);
            libc::raise(SIGNAL as libc::c_int);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use wasmtime::{Instance, Module, Store, Trap};

    use super::*;
    use crate::engine::EngineSize;

    /// Counts down, for long enough that the timer expires many times.
    #[allow(clippy::disallowed_methods, reason = "no connection waits for this test")]
    fn count(engines: &Engines) -> Result<(), Trap> {
        let text = r#"(module (func (export "count") (local i64)
            (local.set 0 (i64.const 200_000_000))
            (loop (br_if 0 (i64.ne (local.tee 0 (i64.sub (local.get 0) (i64.const 1))) (i64.const 0))))))"#;
        let module = Module::new(engines.plain(), wat::parse_str(text).unwrap()).unwrap();
        let mut store = Store::new(engines.plain(), ());
        store.set_epoch_deadline(1);
        let count = Instance::new(&mut store, &module, &[]).unwrap().get_typed_func::<(), ()>(&mut store, "count");
        count.unwrap().call(&mut store, ()).map_err(|error| *error.downcast_ref().unwrap())
    }

    #[test]
    fn guests_are_interrupted_while_their_thread_runs_a_slice() {
        let engines = Engines::new(EngineSize::for_compiling(), false).unwrap();
        let other = Engines::new(EngineSize::for_compiling(), false).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                assert_eq!(count(&engines), Ok(()), "there is no slice yet");
                let slice = Slice::begin(&engines, threads::cpu_time()).unwrap();
                assert_eq!(count(&engines), Err(Trap::Interrupt));
                assert_eq!(count(&other), Ok(()), "it is no engine of the slice's");
                drop(slice);
                assert_eq!(count(&engines), Ok(()), "the slice is over");
                let _slice = Slice::begin(&other, threads::cpu_time()).unwrap();
                assert_eq!(count(&other), Err(Trap::Interrupt));
            });
        });
    }

    #[test]
    fn a_signal_that_was_blocked_comes_nevertheless() {
        let engines = Engines::new(EngineSize::for_compiling(), false).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                SigSet::from(SIGNAL).thread_block().unwrap();
                let _slice = Slice::begin(&engines, threads::cpu_time()).unwrap();
                assert_eq!(count(&engines), Err(Trap::Interrupt));
            });
        });
    }
}
