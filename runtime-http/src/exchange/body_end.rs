//! How a request body ended, seen from where it is no longer at hand.

use std::{
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
};

use tokio::sync::Notify;

/// How a body ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum BodyEnd {
    TooLarge = 1,
    BrokenOff = 2,
    TooSlow = 3,
}

/// What became of a body, seen from where it is no longer at hand.
#[derive(Debug, Clone, Default)]
pub struct BodyStatus(Arc<Status>);

#[derive(Debug, Default)]
struct Status {
    /// 0, or a [`BodyEnd`].
    end: AtomicU8,
    noticed: Notify,
    is_gone: AtomicBool,
}

/// The body's own end of its status.
#[derive(Debug, Default)]
pub(super) struct BodyStatusOwner(BodyStatus);

impl Deref for BodyStatusOwner {
    type Target = BodyStatus;

    fn deref(&self) -> &BodyStatus {
        &self.0
    }
}

impl Drop for BodyStatusOwner {
    fn drop(&mut self) {
        self.0.0.is_gone.store(true, Ordering::Release);
    }
}

impl BodyStatus {
    /// Why it ended before its end, if it did.
    pub fn end(&self) -> Option<BodyEnd> {
        let end = self.0.end.load(Ordering::Acquire);
        [BodyEnd::TooLarge, BodyEnd::BrokenOff, BodyEnd::TooSlow].into_iter().find(|known| *known as u8 == end)
    }

    /// Whether nobody holds the body any more.
    pub fn is_gone(&self) -> bool {
        self.0.is_gone.load(Ordering::Acquire)
    }

    pub(super) fn set(&self, error: &BodyError) {
        let end = match error {
            BodyError::TooLarge { .. } => BodyEnd::TooLarge,
            BodyError::Read(_) => BodyEnd::BrokenOff,
            BodyError::TooSlow => BodyEnd::TooSlow,
        };
        let _ = self.0.end.compare_exchange(0, end as u8, Ordering::AcqRel, Ordering::Acquire);
        self.0.noticed.notify_waiters();
    }

    /// Returns when its client has broken it off, or was too slow.
    pub async fn broken(&self) -> BodyEnd {
        loop {
            let mut noticed = std::pin::pin!(self.0.noticed.notified());
            noticed.as_mut().enable();
            match self.end() {
                Some(end @ (BodyEnd::BrokenOff | BodyEnd::TooSlow)) => return end,
                Some(BodyEnd::TooLarge) | None => noticed.await,
            }
        }
    }
}

impl BodyEnd {
    /// For whoever is told why its body could not be read.
    pub fn reason(self) -> &'static str {
        match self {
            BodyEnd::TooLarge => "it is too large",
            BodyEnd::BrokenOff => "it broke off",
            BodyEnd::TooSlow => "its client sends too little; see --body-timeout",
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("the request body is larger than {limit} bytes")]
    TooLarge { limit: u64 },
    #[error("the request body could not be read: {0}")]
    Read(#[from] hyper::Error),
    #[error("the client sends too little of the request body")]
    TooSlow,
}

impl From<BodyError> for wasmtime_wasi_http::Error {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::TooLarge { .. } => wasmtime_wasi_http::Error::HttpRequestBodySize(None),
            BodyError::Read(_) => wasmtime_wasi_http::Error::ConnectionTerminated,
            BodyError::TooSlow => wasmtime_wasi_http::Error::ConnectionReadTimeout,
        }
    }
}
