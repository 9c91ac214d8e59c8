//! What failed last: a ring for all functions, so small and so divided that no function fills it.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use crate::{
    excerpt::{excerpt, excerpt_of_end},
    invocation::{Failure, InvocationId},
};

/// Failures of all functions. Each has at most two excerpts of about 1 KiB.
pub const MOST: usize = 128;
/// Of one function: whoever fails all the time leaves the others their places.
const SHARE: usize = 8;

/// An invocation that failed.
#[derive(Debug, Clone)]
pub struct Failed {
    pub at: SystemTime,
    pub id: InvocationId,
    pub function: Arc<str>,
    /// What the client was answered; 200 if its answer had begun.
    pub status: u16,
    /// The problem's code; empty if the answer had begun.
    pub code: &'static str,
    pub reason: String,
    /// The end of its standard error, if the operator lets clients read it; else empty.
    pub stderr: String,
}

/// The ring.
#[derive(Debug, Default)]
pub struct Failures(Mutex<VecDeque<Failed>>);

impl Failed {
    /// `None` of what is nobody's fault here: the client left or sent no good body, or the box ends.
    pub fn new(
        id: InvocationId,
        function: &Arc<str>,
        (status, code): (u16, &'static str),
        failure: &Failure,
    ) -> Option<Failed> {
        let stderr = match failure {
            Failure::ClientGone | Failure::Draining | Failure::BodyTooLarge { .. } | Failure::BodyUnreadable { .. } => {
                return None;
            }
            Failure::Reported { stderr, .. } => excerpt_of_end(stderr),
            Failure::Exit { .. }
            | Failure::Trap { .. }
            | Failure::MemoryLimit { .. }
            | Failure::OutputLimit { .. }
            | Failure::BadHeader { .. }
            | Failure::NoResponse { .. }
            | Failure::DeadlineExceeded { .. }
            | Failure::Evicted
            | Failure::PreopenUnavailable { .. }
            | Failure::NoSlot
            | Failure::Internal { .. } => String::new(),
        };
        let reason = excerpt(failure.without_stderr());
        Some(Failed { at: SystemTime::now(), id, function: function.clone(), status, code, reason, stderr })
    }
}

impl Failures {
    fn ring(&self) -> MutexGuard<'_, VecDeque<Failed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the place of the oldest one of the same function, if that has its share or there is no other place, else of the oldest of all.
    pub fn push(&self, failed: Failed) {
        let mut ring = self.ring();
        let is_full = ring.len() >= MOST;
        let mut same = ring.iter().enumerate().filter(|(_, other)| other.function == failed.function);
        let out = match same.next() {
            Some((oldest, _)) if is_full || same.count() + 1 >= SHARE => Some(oldest),
            _ => is_full.then_some(0),
        };
        let out = out.and_then(|out| ring.remove(out));
        ring.push_back(failed);
        drop(ring);
        // Without the lock.
        drop(out);
    }

    /// The last `number`, the newest first.
    pub fn last(&self, number: usize) -> Vec<Failed> {
        self.ring().iter().rev().take(number).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(function: &str, failure: &Failure) -> Option<Failed> {
        Failed::new(InvocationId::next(), &function.into(), (500, "guest-trap"), failure)
    }

    fn trap() -> Failure {
        Failure::Trap { trap: "unreachable".into() }
    }

    #[test]
    fn a_function_that_fails_all_the_time_leaves_the_others_their_places() {
        let failures = Failures::default();
        for number in 0..20 {
            failures.push(failed(&format!("f{number}"), &trap()).unwrap());
        }
        for _ in 0..10_000 {
            failures.push(failed("storm", &trap()).unwrap());
        }
        let last = failures.last(usize::MAX);
        assert_eq!(last.len(), 20 + SHARE);
        assert!(last[..SHARE].iter().all(|failed| &*failed.function == "storm"));
        assert_eq!((&*last[SHARE].function, &*last[SHARE + 19].function), ("f19", "f0"));
        for number in 0..1000 {
            failures.push(failed(&format!("g{number}"), &trap()).unwrap());
        }
        let last = failures.last(usize::MAX);
        assert_eq!((last.len(), &*last[0].function), (MOST, "g999"));
        assert_eq!(failures.last(3).len(), 3);
    }

    #[test]
    fn texts_are_bounded_and_harmless() {
        let stderr = "\x1b[31m\u{202e}".repeat(1000) + "panicked";
        let failed = failed("f", &trap().with_stderr(stderr)).unwrap();
        assert!(failed.stderr.len() < 1100, "{}", failed.stderr);
        assert!(failed.stderr.ends_with("\\u{1b}[31m\\u{202e}panicked"), "{}", failed.stderr);
        assert_eq!(failed.reason, "the function trapped: unreachable");
        let long = super::tests::failed("f", &Failure::NoResponse { reason: "é".repeat(1 << 20) }).unwrap();
        assert!(long.reason.len() < 1100 && long.stderr.is_empty());
        assert!(super::tests::failed("f", &Failure::ClientGone).is_none());
    }
}
