//! Every way in which an invocation ends without an answer of its own.

use crate::code::Code;

/// Why an invocation failed.
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
    /// An exit, a trap or a missing response, with the end of what the guest wrote to its standard error.
    #[error("{failure}; its standard error ended with:\n{stderr}")]
    Reported { failure: Box<Failure>, stderr: String },
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
    #[error(
        "the server ran short of memory, and this invocation was among the last that began, or wanted what could not wait; another attempt may succeed"
    )]
    Evicted,
    #[error("the directory granted as {guest:?} cannot be opened: {reason}")]
    PreopenUnavailable { guest: String, reason: String },
    #[error("all instance slots are taken")]
    NoSlot,
    #[error("internal error: {reason}")]
    Internal { reason: String },
}

impl Failure {
    /// What the client is told.
    pub fn code(&self) -> Code {
        match self {
            Failure::Exit { .. } => Code::GuestExit,
            Failure::Trap { .. } => Code::GuestTrap,
            Failure::MemoryLimit { .. } => Code::GuestMemoryLimit,
            Failure::OutputLimit { .. } => Code::GuestOutputLimit,
            Failure::BadHeader { .. } => Code::GuestBadHeader,
            Failure::NoResponse { .. } => Code::GuestNoResponse,
            Failure::Reported { failure, .. } => failure.code(),
            Failure::BodyTooLarge { .. } => Code::BodyTooLarge,
            Failure::BodyUnreadable { .. } => Code::BodyUnreadable,
            Failure::DeadlineExceeded { .. } => Code::DeadlineExceeded,
            Failure::PreopenUnavailable { .. } => Code::PreopenUnavailable,
            Failure::Draining => Code::Draining,
            Failure::Evicted => Code::Evicted,
            // No slot is free although a permit was: its components need several memories each.
            Failure::NoSlot => Code::QueueFull,
            // Nobody reads that of a client that is gone.
            Failure::ClientGone | Failure::Internal { .. } => Code::Internal,
        }
    }

    /// Without the guest's standard error: for the log, where that is already.
    pub fn without_stderr(&self) -> &Failure {
        match self {
            Failure::Reported { failure, .. } => failure,
            other => other,
        }
    }

    /// With the end of the guest's standard error, where that may say more about why it failed.
    pub fn with_stderr(self, stderr: String) -> Failure {
        match self {
            Failure::Exit { .. } | Failure::Trap { .. } | Failure::NoResponse { .. } if !stderr.is_empty() => {
                Failure::Reported { failure: Box::new(self), stderr }
            }
            other => other,
        }
    }
}
