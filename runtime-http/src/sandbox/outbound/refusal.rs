//! Requests that the box refuses: what the guest is told, and what the log says to whoever can change it.

use std::{
    fmt,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use wasmtime_wasi_http::Error;

use super::Destination;
use crate::{
    invocation::{Host, InvocationId},
    tls::TlsFailure,
};

/// Lines for one invocation; the last one says that there are no more.
const MOST_LINES: u32 = 8;

/// Why a request is refused.
#[derive(Debug)]
pub enum Refusal {
    /// Not among what both the settings and the operator name.
    NotGranted,
    /// The name is granted, but leads to an address that is not public and not granted.
    NotPublic { address: IpAddr },
    /// Nobody who is trusted vouches for the server.
    Untrusted { failure: TlsFailure, remedy: Arc<str> },
    /// It waited for a connection for as long as connecting may take.
    NoConnection,
    /// It has made as many sockets as it may.
    NoSocket { most: usize },
    /// There is no memory left, the invocation's or the box's, for what the box holds for one more.
    NoMemory,
}

impl Refusal {
    fn remedy(&self, destination: &dyn fmt::Display) -> String {
        match self {
            Refusal::NotGranted => format!(
                "to grant it, name {destination} in allowed-outbound-hosts of the function's settings and in --allow-outbound (ALLOW_OUTBOUND)"
            ),
            Refusal::NotPublic { address } => {
                format!(
                    "to grant it, name {}, or a network, with the port, in --allow-outbound (ALLOW_OUTBOUND)",
                    Host::Address(*address)
                )
            }
            Refusal::Untrusted { remedy, .. } => remedy.to_string(),
            Refusal::NoConnection => {
                "let the function end its requests, read responses to their end, or send fewer at once".into()
            }
            Refusal::NoSocket { .. } => {
                "let the function use one for several exchanges, or be called more often".into()
            }
            Refusal::NoMemory => {
                "let the function send fewer at once, raise its Memory-Request, or give the box more memory".into()
            }
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::NotGranted => f.write_str("it is not granted"),
            Refusal::NotPublic { address } => write!(f, "it leads to {address}, which is no public address"),
            Refusal::Untrusted { failure, .. } => write!(f, "its certificate is not accepted: {failure}"),
            Refusal::NoConnection => f.write_str("all connections that it may have are in use"),
            Refusal::NoSocket { most } => write!(f, "this invocation has made {most} sockets already"),
            Refusal::NoMemory => f.write_str("there is no memory left for it"),
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Error {
        match refusal {
            Refusal::NotGranted => Error::HttpRequestDenied,
            Refusal::NotPublic { .. } => Error::DestinationIpProhibited,
            Refusal::Untrusted { failure, .. } => failure.into(),
            Refusal::NoConnection | Refusal::NoSocket { .. } | Refusal::NoMemory => Error::ConnectionLimitReached,
        }
    }
}

/// The log of one invocation's refusals.
#[derive(Debug)]
pub struct Refusals {
    id: InvocationId,
    function: Arc<str>,
    lines: AtomicU32,
}

impl Refusals {
    pub fn new(id: InvocationId, function: Arc<str>) -> Refusals {
        Refusals { id, function, lines: AtomicU32::new(0) }
    }

    pub fn function(&self) -> &Arc<str> {
        &self.function
    }

    /// One line, unless there were enough.
    pub fn refuse(&self, refusal: Refusal, destination: &Destination) -> Error {
        self.log(&refusal, destination);
        refusal.into()
    }

    /// The same, of whatever is refused.
    pub fn log(&self, refusal: &Refusal, destination: &dyn fmt::Display) {
        self.line(destination, || format!("outbound request refused: {refusal}; {}", refusal.remedy(destination)));
    }

    /// A name must not be looked up.
    pub fn log_name(&self, name: &Host) {
        self.line(name, || {
            "outbound request refused: no port of it is granted; to grant one, name it with the port in allowed-outbound-hosts of the function's settings and in --allow-outbound (ALLOW_OUTBOUND)".into()
        });
    }

    fn line(&self, destination: &dyn fmt::Display, text: impl FnOnce() -> String) {
        // It stays at the limit, however often it is refused.
        let before = self
            .lines
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |lines| (lines < MOST_LINES).then_some(lines + 1));
        if let Ok(before) = before {
            let last =
                if before + 1 == MOST_LINES { "; further refusals of this invocation are not logged" } else { "" };
            tracing::warn!(
                target: "guest", function = %self.function, id = %self.id, destination = %destination,
                "{}{last}", text()
            );
        }
    }
}
