//! Drives a guest's call: on a worker's thread to its end, on a connection's thread for a slice.
//!
//! A busy guest yields at each epoch, a blocked one is pending in a host call: both return to [`bounded`], and here alone is decided
//! whether to go on. Dropping the future ends the guest, wherever it is. There is no timer per invocation: the thread that
//! drives it waits until the deadline.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant},
};

use super::{Ended, Guest, Setup};
use crate::{
    epoch::{self, slice::SLICE},
    invocation::CancelReason,
    threads,
};

/// `call`, until it ends, is cancelled, or its deadline comes. `when_pending` runs each time the guest waits, or yields, which
/// it is told: the place to pass on what it has written so far.
///
/// # Errors
/// The reason, if the call was cancelled; the guest is ended when the caller drops `call`.
pub(super) async fn bounded<F: Future>(
    setup: &Setup,
    mut call: Pin<&mut F>,
    mut when_pending: impl FnMut(Pause),
) -> Result<F::Output, CancelReason> {
    let cancel = &setup.memory.cancel;
    let reason = || cancel.reason().or_else(|| (Instant::now() >= setup.deadline).then_some(CancelReason::Deadline));
    poll_fn(|context| {
        if let Some(reason) = reason() {
            return Poll::Ready(Err(reason));
        }
        if let Poll::Ready(output) = call.as_mut().poll(context) {
            // What comes after the deadline was not there in time, although nothing was left to end.
            return Poll::Ready(match cancel.reason() {
                Some(CancelReason::Deadline) => Err(CancelReason::Deadline),
                _ => Ok(output),
            });
        }
        if let Err(reason) = setup.memory.check(setup.most_memory()) {
            cancel.cancel(reason);
        }
        when_pending(pause());
        cancel.register(context.waker());
        reason().map_or(Poll::Pending, |reason| Poll::Ready(Err(reason)))
    })
    .await
}

/// Why a guest does not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pause {
    /// For something that it needs.
    Waits,
    /// It goes on at once, if nothing speaks against it.
    Yields,
}

/// Of what this thread drives, and has just polled.
pub(super) fn pause() -> Pause {
    let woken = |(waker, _): &(Arc<ThreadWaker>, Waker)| waker.woken.load(Ordering::Acquire);
    let woken = WAKER.with_borrow(|cached| cached.as_ref().is_some_and(woken));
    if woken { Pause::Yields } else { Pause::Waits }
}

struct ThreadWaker {
    thread: Thread,
    woken: AtomicBool,
}

impl Wake for ThreadWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.woken.swap(true, Ordering::AcqRel) {
            self.thread.unpark();
        }
    }
}

thread_local! {
    static WAKER: RefCell<Option<(Arc<ThreadWaker>, Waker)>> = const { RefCell::new(None) };
    /// Whether this thread runs a slice.
    static IN_SLICE: Cell<bool> = const { Cell::new(false) };
}

/// What a guest may grow to there. It can touch all of it in one instruction, which nothing interrupts.
pub const SLICE_MEMORY: usize = 4 << 20;

/// A guest that is about to have `bytes` of memory waits until it is on a worker, if that is more than it may have before.
pub(super) async fn worker_for(bytes: usize) {
    poll_fn(|_| if bytes > SLICE_MEMORY && IN_SLICE.get() { Poll::Pending } else { Poll::Ready(()) }).await;
}

fn thread_waker() -> (Arc<ThreadWaker>, Waker) {
    WAKER.with_borrow_mut(|cached| {
        cached
            .get_or_insert_with(|| {
                let waker = Arc::new(ThreadWaker { thread: thread::current(), woken: AtomicBool::new(false) });
                (waker.clone(), waker.into())
            })
            .clone()
    })
}

/// How a slice ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfinished {
    /// The guest goes on computing.
    Busy,
    /// It waits, for its client, for memory, or for what it has asked of the host.
    Waiting,
}

impl Guest {
    /// Runs it on this thread as long as it neither waits nor has used more than a slice, which began when the thread had used `cpu`. If it has
    /// not ended then, it goes on from where it is on another thread: [`Guest::run`]. It does not begin where it could not be interrupted.
    ///
    /// # Errors
    /// Why it has not ended.
    pub fn slice(&mut self, cpu: Duration, epochs: &epoch::Awake) -> Result<Ended, Unfinished> {
        struct InSlice;
        impl Drop for InSlice {
            fn drop(&mut self) {
                IN_SLICE.set(false);
            }
        }
        let (state, waker) = thread_waker();
        let mut context = Context::from_waker(&waker);
        let Some(_slice) = epochs.slice(cpu) else { return Err(Unfinished::Busy) };
        let _in_slice = InSlice;
        IN_SLICE.set(true);
        loop {
            state.woken.store(false, Ordering::Release);
            if let Poll::Ready(ended) = self.poll(&mut context) {
                return Ok(ended);
            }
            if !state.woken.load(Ordering::Acquire) {
                return Err(Unfinished::Waiting);
            }
            // Others' guests make it yield, too.
            if threads::cpu_time().saturating_sub(cpu) >= SLICE {
                return Err(Unfinished::Busy);
            }
        }
    }

    /// Runs it to its end, on this thread.
    pub fn run(&mut self, epochs: &epoch::Awake) -> Ended {
        let (state, waker) = thread_waker();
        let mut context = Context::from_waker(&waker);
        loop {
            state.woken.store(false, Ordering::Release);
            epochs.touch();
            if let Poll::Ready(ended) = self.poll(&mut context) {
                return ended;
            }
            while !state.woken.load(Ordering::Acquire) {
                let left = self.setup.deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                thread::park_timeout(left);
            }
        }
    }
}
