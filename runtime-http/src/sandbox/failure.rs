//! Every way in which an invocation ends without an answer of its own.

use wasmtime::Trap;
use wasmtime_wasi::I32Exit;

use super::{limiter::Limiter, stop::StopReason};

/// Why an invocation failed. What the client is told is decided in [`crate::api`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    #[error("the function exited with code {code}")]
    Exit { code: i32 },
    #[error("the function trapped: {trap}")]
    Trap { trap: String },
    #[error("the function wanted {wanted} bytes of memory, its limit is {limit} bytes (header Memory-Request)")]
    MemoryLimit { wanted: u64, limit: u64 },
    #[error("the function wrote more than {limit} bytes of output")]
    OutputLimit { limit: u64 },
    #[error("the function's CGI header block is not valid: {reason}")]
    BadHeader { reason: String },
    #[error("the function ended without a response: {reason}")]
    NoResponse { reason: String },
    #[error("the request body is larger than {limit} bytes")]
    BodyTooLarge { limit: u64 },
    #[error("the request body could not be read: {reason}")]
    BodyUnreadable { reason: String },
    #[error("the invocation did not end within {timeout_ms} ms (header Invocation-Timeout)")]
    DeadlineExceeded { timeout_ms: u128 },
    #[error("the client left")]
    ClientGone,
    #[error("the server is shutting down")]
    Draining,
    #[error("the server ran short of memory, and this invocation was the last that began; another attempt may succeed")]
    Evicted,
    #[error("all instance slots are taken")]
    NoSlot,
    #[error("internal error: {reason}")]
    Internal { reason: String },
}

/// Limits of the invocation that a failure may be a consequence of.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub memory: u64,
    pub output: u64,
    pub body: u64,
    pub timeout_ms: u128,
}

/// What the host noted while the guest ran; it explains an error better than the error does.
#[derive(Debug, Clone, Copy, Default)]
pub struct Notes {
    pub output_limit: bool,
    pub body_limit: bool,
    pub body_broken: bool,
    pub client_gone: bool,
}

/// The failure behind an error of a guest call; `None` if it is no failure (`exit(0)`).
pub fn classify(error: &wasmtime::Error, limiter: &Limiter, notes: Notes, bounds: Bounds) -> Option<Failure> {
    let exit = error.downcast_ref::<I32Exit>().map(|exit| exit.0);
    if exit == Some(0) {
        return None;
    }
    if let Some(failure) = noted(limiter, notes, bounds) {
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

/// What the host's own notes say, if anything.
pub fn noted(limiter: &Limiter, notes: Notes, bounds: Bounds) -> Option<Failure> {
    if notes.client_gone {
        Some(Failure::ClientGone)
    } else if notes.output_limit {
        Some(Failure::OutputLimit { limit: bounds.output })
    } else if notes.body_limit {
        Some(Failure::BodyTooLarge { limit: bounds.body })
    } else if notes.body_broken {
        Some(Failure::BodyUnreadable { reason: "it broke off".into() })
    } else {
        limiter.refused().map(|wanted| Failure::MemoryLimit { wanted, limit: bounds.memory })
    }
}

impl Failure {
    /// The failure of an invocation that was stopped from outside.
    pub fn stopped(reason: StopReason, bounds: Bounds) -> Failure {
        match reason {
            StopReason::Deadline => Failure::DeadlineExceeded { timeout_ms: bounds.timeout_ms },
            StopReason::ClientGone => Failure::ClientGone,
            StopReason::OutputLimit => Failure::OutputLimit { limit: bounds.output },
            StopReason::Draining => Failure::Draining,
            StopReason::Evicted => Failure::Evicted,
        }
    }
}
