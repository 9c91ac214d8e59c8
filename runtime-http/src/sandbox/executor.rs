//! Runs one guest call on the calling thread until it ends, is cancelled, or its deadline comes.
//!
//! A busy guest yields at each epoch, a blocked one is pending in a host call: both return here, and here alone is decided whether
//! to go on. Dropping the future ends the guest, wherever it is. There is no timer per invocation: the thread itself waits
//! until the deadline.

use std::{
    cell::RefCell,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::Instant,
};

use crate::{epoch, invocation::CancelReason, memory::MemoryReservation};

/// What bounds a guest call.
pub struct Bounded<'a> {
    pub deadline: Instant,
    /// It also has the cancel token.
    pub memory: &'a MemoryReservation,
    /// The most bytes that it may cost in all.
    pub most_memory: u64,
    pub epochs: &'a epoch::Awake,
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

impl Bounded<'_> {
    /// Polls `future` to its end. `when_pending` runs each time the guest waits or yields: the place to pass on what it has
    /// written so far.
    ///
    /// # Errors
    /// The reason, if the call was cancelled; the guest is ended when the caller drops `future`.
    pub fn run<F: Future>(
        &self,
        mut future: Pin<&mut F>,
        mut when_pending: impl FnMut(&mut Context<'_>),
    ) -> Result<F::Output, CancelReason> {
        let (state, waker) = thread_waker();
        let mut context = Context::from_waker(&waker);
        self.epochs.touch();
        let cancel = &self.memory.cancel;
        loop {
            state.woken.store(false, Ordering::Release);
            if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
                // What comes after the deadline was not there in time, although nothing was left to end.
                return match cancel.reason() {
                    Some(CancelReason::Deadline) => Err(CancelReason::Deadline),
                    _ => Ok(output),
                };
            }
            if let Err(reason) = self.memory.check(self.most_memory) {
                cancel.cancel(reason);
            }
            self.epochs.touch();
            when_pending(&mut context);
            cancel.register(&waker);
            loop {
                if let Some(reason) = cancel.reason() {
                    return Err(reason);
                }
                let left = self.deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(CancelReason::Deadline);
                }
                if state.woken.load(Ordering::Acquire) {
                    break;
                }
                thread::park_timeout(left);
            }
        }
    }
}
