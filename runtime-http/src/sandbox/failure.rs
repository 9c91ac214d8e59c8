//! What an error of a guest's call was: its own doing, or a limit that it hit.

use wasmtime::Trap;
use wasmtime_wasi::I32Exit;

use super::limiter::Limiter;
use crate::{
    exchange::request_body::BodyEnd,
    invocation::{CancelReason, Failure},
};

/// Limits of the invocation that a failure may be a consequence of.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub memory: u64,
    pub output: u64,
    pub body: u64,
    pub timeout_ms: u128,
}

/// The limits that the host saw the guest hit; they explain an error better than the error does.
#[derive(Debug, Clone, Copy, Default)]
pub struct LimitHits {
    pub output_limit: bool,
    /// How the request's body ended, if not well.
    pub body: Option<BodyEnd>,
    pub client_gone: bool,
}

/// The failure behind an error of a guest call; `None` if it is no failure (`exit(0)`).
pub fn classify(error: &wasmtime::Error, limiter: &Limiter, hits: LimitHits, bounds: Bounds) -> Option<Failure> {
    let exit = error.downcast_ref::<I32Exit>().map(|exit| exit.0);
    if exit == Some(0) {
        return None;
    }
    if let Some(failure) = limit_hit(limiter, hits, bounds) {
        return Some(failure);
    }
    if let Some(code) = exit {
        return Some(Failure::Exit { code });
    }
    if error.is::<wasmtime::PoolConcurrencyLimitError>() {
        return Some(Failure::NoSlot);
    }
    // The first line says what; the backtrace behind it is for the log.
    let trap = match error.downcast_ref::<Trap>() {
        Some(trap) => trap.to_string(),
        None => error.root_cause().to_string(),
    };
    Some(Failure::Trap { trap })
}

/// The failure of a guest that hit a limit.
pub fn limit_hit(limiter: &Limiter, hits: LimitHits, bounds: Bounds) -> Option<Failure> {
    let refused = || limiter.refused().map(|wanted| Failure::MemoryLimit { wanted, limit: bounds.memory });
    hits.failure(bounds).or_else(refused)
}

impl LimitHits {
    /// The failure that they are.
    pub fn failure(self, bounds: Bounds) -> Option<Failure> {
        if self.client_gone {
            return Some(Failure::ClientGone);
        }
        if self.output_limit {
            return Some(Failure::OutputLimit { limit: bounds.output });
        }
        Some(match self.body? {
            BodyEnd::TooLarge => Failure::BodyTooLarge { limit: bounds.body },
            end @ (BodyEnd::BrokenOff | BodyEnd::TooSlow) => Failure::BodyUnreadable { reason: end.reason().into() },
        })
    }
}

/// The failure of an invocation that was cancelled when it cost `bytes` of memory in all.
pub fn cancelled(reason: CancelReason, bytes: u64, bounds: Bounds) -> Failure {
    match reason {
        CancelReason::Deadline => Failure::DeadlineExceeded { timeout_ms: bounds.timeout_ms },
        CancelReason::ClientGone => Failure::ClientGone,
        CancelReason::OutputLimit => Failure::OutputLimit { limit: bounds.output },
        CancelReason::Draining => Failure::Draining,
        CancelReason::Evicted => Failure::Evicted,
        CancelReason::MemoryLimit => Failure::MemoryLimit { wanted: bytes, limit: bounds.memory },
    }
}
