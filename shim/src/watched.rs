//! A file whose readiness the event loop watches.

use std::{io, os::fd::OwnedFd};

use tokio::io::unix::AsyncFd;

/// # Errors
/// If it cannot be watched: ordinary files cannot.
pub fn watched(file: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is the same open descriptor as long as it lives, and the `AsyncFd` owns it.
    #[allow(unsafe_code)]
    let registered = unsafe { AsyncFd::register(file) };
    registered.map_err(io::Error::from)
}
