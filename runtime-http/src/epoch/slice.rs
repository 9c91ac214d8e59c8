//! What interrupts guests on a thread that serves connections: a timer of the CPU time that the thread uses (timer_create(2)).
//!
//! The kernel looks at such timers when it ticks while the thread runs, so they need neither a system call at a slice's beginning or end nor
//! another thread that is awake; and they are as precise as its tick, 1 to 10 ms, which is enough for a guest that does not end. The signal comes to the
//! thread itself, whose handler advances the epoch.

#![allow(unsafe_code, reason = "a signal handler")]

use std::{
    cell::OnceCell,
    io,
    marker::PhantomData,
    ptr,
    sync::atomic::{AtomicPtr, Ordering},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::{
        signal::{SaFlags, SigAction, SigEvent, SigHandler, SigSet, SigevNotify, Signal, sigaction},
        time::TimeSpec,
        timer::{Expiration, Timer, TimerSetTimeFlags},
    },
    time::ClockId,
};

use crate::engine::Engines;

/// The timers' signal. Its name is "virtual alarm clock", and nobody else uses it: see
/// [`terminating_signals`](crate::terminating_signals).
pub const SIGNAL: Signal = Signal::SIGVTALRM;
/// CPU time between two expirations; the kernel rounds it up to its tick.
const INTERVAL: Duration = Duration::from_millis(1);

thread_local! {
    /// Whose epochs advance when this thread's timer expires; null unless it runs a slice. It needs no destructor, so a handler may use it.
    static ENGINES: AtomicPtr<Engines> = const { AtomicPtr::new(ptr::null_mut()) };
    /// `None` if the kernel gave none.
    static TIMER: OnceCell<Option<Timer>> = const { OnceCell::new() };
}

/// While it exists, its thread runs a slice.
pub struct Slice<'a>(PhantomData<(&'a Engines, *const ())>);

impl Slice<'_> {
    pub(super) fn begin(engines: &Engines) -> Option<Slice<'_>> {
        TIMER.with(|timer| timer.get_or_init(this_threads_timer).is_some()).then(|| {
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

/// Made when a thread first needs it; the thread's end deletes it.
fn this_threads_timer() -> Option<Timer> {
    let timer = start_timer();
    if let Err(error) = &timer {
        tracing::warn!(
            "no timer for a thread that serves connections, so all guests of its connections begin on workers: {error}; the limit on \
             pending signals (ulimit -i) may be too low"
        );
    }
    timer.ok()
}

fn start_timer() -> Result<Timer, Errno> {
    // Whoever has started this process may have blocked it.
    SigSet::from(SIGNAL).thread_unblock()?;
    let thread_id = rustix::thread::gettid().as_raw_nonzero().get();
    let notify = SigevNotify::SigevThreadId { signal: SIGNAL, thread_id, si_value: 0 };
    let mut timer = Timer::new(ClockId::CLOCK_THREAD_CPUTIME_ID, SigEvent::new(notify))?;
    timer.set(Expiration::Interval(TimeSpec::from_duration(INTERVAL)), TimerSetTimeFlags::empty())?;
    Ok(timer)
}

/// # Errors
/// If it is refused.
pub(super) fn install_handler() -> io::Result<()> {
    // On the stack for signals: a guest may have used up its own.
    let flags = SaFlags::SA_SIGINFO | SaFlags::SA_ONSTACK | SaFlags::SA_RESTART;
    let action = SigAction::new(SigHandler::SigAction(expired), flags, SigSet::empty());
    // SAFETY: `expired` calls only what may be called in a handler.
    unsafe { sigaction(SIGNAL, &action) }?;
    Ok(())
}

/// Reads and adds to atomics, nothing else; [`wasmtime::Engine::increment_epoch`] says that it may be called here.
extern "C" fn expired(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: with SA_SIGINFO the kernel passes one.
    if unsafe { (*info).si_code } != libc::SI_TIMER {
        // Somebody has sent it. Without a handler it would end the process.
        // SAFETY: it may be called here.
        unsafe { libc::_exit(128 + SIGNAL as libc::c_int) };
    }
    let engines = ENGINES.with(|current| current.load(Ordering::SeqCst));
    // SAFETY: it is null, or what a `Slice` of this thread borrows, which has not been dropped.
    if let Some(engines) = unsafe { engines.as_ref() } {
        engines.increment_epoch();
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use wasmtime::{Instance, Module, Store, Trap};

    use super::*;
    use crate::engine::EngineSize;

    /// Counts down, for long enough that the timer expires many times.
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
        install_handler().unwrap();
        let engines = Engines::new(EngineSize::for_compiling(), false).unwrap();
        let other = Engines::new(EngineSize::for_compiling(), false).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                assert_eq!(count(&engines), Ok(()), "there is no slice yet");
                let slice = Slice::begin(&engines).unwrap();
                assert_eq!(count(&engines), Err(Trap::Interrupt));
                assert_eq!(count(&other), Ok(()), "it is no engine of the slice's");
                drop(slice);
                assert_eq!(count(&engines), Ok(()), "the slice is over");
                let _slice = Slice::begin(&other).unwrap();
                assert_eq!(count(&other), Err(Trap::Interrupt));
            });
        });
    }

    #[test]
    fn a_signal_that_was_blocked_comes_nevertheless() {
        install_handler().unwrap();
        let engines = Engines::new(EngineSize::for_compiling(), false).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                SigSet::from(SIGNAL).thread_block().unwrap();
                let _slice = Slice::begin(&engines).unwrap();
                assert_eq!(count(&engines), Err(Trap::Interrupt));
            });
        });
    }
}
