//! HTTP requests that guests send, and connections that they open: denied, unless the function's settings and the operator both grant host and
//! port.
//!
//! HTTP/1.1, and over TLS also HTTP/2. A redirect is an answer like any other: following it is the guest's own, checked request, and so is trying
//! again. What a request makes the box hold is its invocation's, and ends with it; what it leaves behind is an idle connection, which is its
//! function's.
//!
//! - [`access`]: what all functions share, what each has of it, and each invocation; [`pool`]: idle connections
//! - [`mod@exchange`]: one request and its response; [`head`], [`request_body`], [`response_body`]: what of them is passed on
//! - [`dial`]: from a name to a socket; [`address`]: which addresses a name may lead to; who vouches for servers says [`crate::tls`]
//! - [`connection`]: HTTP on a socket
//! - [`sockets`]: connections of guests' own; [`sockets_p2`], [`sockets_p3`]: how guests are given them
//! - [`refusal`]: what is refused, and what to do about it; [`failure`]: what went wrong otherwise; [`meter`]: the time that is spent

pub mod access;
mod address;
mod connection;
mod dial;
mod exchange;
mod failure;
mod head;
mod meter;
mod pool;
mod refusal;
mod request_body;
mod response_body;
mod sockets;
pub mod sockets_p2;
pub mod sockets_p3;

use std::{fmt, num::NonZeroUsize, path::PathBuf, sync::Arc, time::Duration};

use wasmtime_wasi_http::{Error, RequestOptions, Result, WasiBody, WasiHttpHooks};

pub use self::{
    access::{FunctionAccess, InvocationAccess, OutboundAccess},
    sockets::CurrentOutbound,
};
use self::{
    connection::{PLAIN_BYTES, SECURE_BYTES},
    exchange::{Counted, Exchange},
    refusal::Refusal,
};
use super::Setup;
use crate::{
    invocation::{Grants, Host, OutboundGrant},
    memory::MemoryReservation,
    tasks::Owned,
};

/// What a guest may write at once, and how often before its reader must take something.
const BODY_CHUNK: usize = 64 << 10;
const BODY_CHUNKS: usize = 16;
/// Between a guest and whoever reads its body.
pub const BODY_BYTES: usize = BODY_CHUNK * BODY_CHUNKS;

/// What the operator grants to all functions, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboundConfig {
    pub allow: Vec<OutboundGrant>,
    /// Certificates of those who vouch for servers; `None`: the system's.
    pub ca: Option<PathBuf>,
    /// How long a connection may be idle.
    pub idle: Duration,
}

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    pub host: Host,
    pub port: u16,
    /// By TLS.
    pub secure: bool,
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// One invocation's requests.
#[derive(Clone)]
pub struct Outbound {
    grants: Arc<Grants>,
    invocation: Arc<InvocationAccess>,
    memory: Arc<MemoryReservation>,
    /// The most that the invocation may cost, bytes.
    most_memory: u64,
}

type Io = Box<dyn Future<Output = Result<()>> + Send>;
type Responding = Box<dyn Future<Output = Result<(http::Response<WasiBody>, Io)>> + Send>;

impl Outbound {
    pub fn new(setup: &Setup) -> Self {
        Outbound {
            grants: setup.grants.clone(),
            invocation: setup.outbound.clone(),
            memory: setup.memory.clone(),
            most_memory: setup.most_memory(),
        }
    }

    fn begin(&self, mut request: http::Request<WasiBody>, options: Option<RequestOptions>) -> Result<Responding> {
        let mut counted = Counted::new(self.invocation.function.as_deref());
        let destination = head::destination(&request).inspect_err(|_| counted.end("failed"))?;
        let mut refuse = |refusal| {
            counted.end("refused");
            Err(self.invocation.refusals.refuse(refusal, &destination))
        };
        let granted = self.grants.outbound.iter().any(|grant| grant.grants(&destination.host, destination.port));
        let function = self.invocation.function.as_ref().filter(|_| granted);
        let Some((function, runtime)) = function.and_then(|function| Some((function, function.access.runtime()?)))
        else {
            return refuse(Refusal::NotGranted);
        };
        let bytes = NonZeroUsize::new(if destination.secure { SECURE_BYTES } else { PLAIN_BYTES });
        let Some(memory) = bytes.and_then(|bytes| self.memory.hold(bytes, self.most_memory)) else {
            return refuse(Refusal::NoMemory);
        };
        let exchange = Exchange {
            destination,
            function: function.clone(),
            invocation: self.invocation.clone(),
            memory: self.memory.clone(),
            options: options.unwrap_or_default(),
        };
        if let Some(trace) = &self.invocation.trace {
            trace.put_into_outgoing(request.headers_mut());
        }
        let waiting = self.invocation.meter().start();
        // Its allocations are not the invocation's: that has paid for all of them already.
        let mut task = Owned(runtime.spawn(async move {
            let response = exchange.run(request, memory).await;
            drop(waiting);
            counted.end(exchange::result(&response));
            response
        }));
        Ok(Box::new(async move {
            let response = (&mut task.0).await.map_err(|_| Error::InternalError(None))??;
            // The body has the connection, and what drives that.
            Ok((response, Box::new(async { Ok(()) }) as Io))
        }))
    }
}

impl WasiHttpHooks for Outbound {
    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _processed: Box<dyn Future<Output = Result<()>> + Send>,
    ) -> Responding {
        self.begin(request, options).unwrap_or_else(|error| Box::new(async { Err(error) }))
    }

    fn p2_outgoing_body_buffer_chunks(&mut self) -> usize {
        BODY_CHUNKS - 1
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        BODY_CHUNK
    }

    fn p3_outgoing_body_chunk_size(&mut self) -> usize {
        BODY_CHUNK
    }
}
