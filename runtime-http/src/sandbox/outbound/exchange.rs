//! One request and its response.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use tokio::time::{timeout, timeout_at};
use wasmtime_wasi_http::{Error, RequestOptions, Result, WasiBody};

use super::{
    Destination,
    access::{FunctionAccess, InvocationAccess},
    connection::{Connection, ConnectionOwner, Unanswered},
    dial::{self, ATTEMPTS, NoAddress},
    head,
    refusal::Refusal,
    request_body::{Gone, RequestBody},
    response_body::ResponseBody,
};
use crate::{
    allocator::HeldBytes,
    memory::MemoryReservation,
    metrics::FunctionMetrics,
    tls::{self, TlsFailure},
};

/// Unless the guest says another time.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an idle connection may take to be done with what was before.
const READY_TIME: Duration = Duration::from_secs(1);

pub struct Exchange {
    pub destination: Destination,
    pub function: Arc<FunctionAccess>,
    pub invocation: Arc<InvocationAccess>,
    pub memory: Arc<MemoryReservation>,
    pub options: RequestOptions,
}

impl Exchange {
    /// Sends `request` and waits for the head of the response. `memory` is what the connection may hold.
    pub async fn run(&self, request: Request<WasiBody>, memory: HeldBytes) -> Result<Response<WasiBody>> {
        let connect_timeout = self.options.connect_timeout.unwrap_or(CONNECT_TIMEOUT);
        let deadline = tokio::time::Instant::now().checked_add(connect_timeout);
        // One that is never is the invocation's.
        let deadline = deadline.unwrap_or_else(|| tokio::time::Instant::now() + CONNECT_TIMEOUT);
        let place = timeout_at(deadline, self.invocation.places().clone().acquire_owned()).await;
        let place = place.map_err(|_| self.refuse(Refusal::NoConnection))?.expect("the semaphore is never closed");
        let owner = ConnectionOwner::Invocation { _memory: memory, _place: place };
        let (head, body) = request.into_parts();
        let (body, gone) = RequestBody::new(body);
        let mut request = Request::from_parts(head, body);
        // The server may close one that is idle just when it is taken. What was not sent then is sent over another one: that is no second try.
        while let Some(mut connection) = self.idle().await {
            match self.send(&mut connection, request).await? {
                Ok(response) => return self.respond(response, connection, owner, gone),
                Err(Unanswered { unsent: Some(unsent), .. }) => request = *unsent,
                Err(Unanswered { error, unsent: None }) => return Err(error),
            }
        }
        let mut connection = self.open(deadline).await?;
        match self.send(&mut connection, request).await? {
            Ok(response) => self.respond(response, connection, owner, gone),
            Err(Unanswered { error, .. }) => Err(error),
        }
    }

    fn refuse(&self, refusal: Refusal) -> Error {
        self.invocation.refusals.refuse(refusal, &self.destination)
    }

    /// An idle connection that can be used.
    async fn idle(&self) -> Option<Connection> {
        let name = self.invocation.refusals.function();
        loop {
            let mut connection = self.function.take_idle(name, &self.destination)?;
            if timeout(READY_TIME, connection.is_ready()).await == Ok(true) {
                self.function.metrics().outbound_connection("reused");
                return Some(connection);
            }
        }
    }

    async fn open(&self, deadline: tokio::time::Instant) -> Result<Connection> {
        let access = &self.function.access;
        let addresses = dial::addresses(&self.destination, self.function.lookups(), &access.grants);
        let addresses = match timeout_at(deadline, addresses).await.map_err(|_| Error::DnsTimeout)? {
            Ok(addresses) => addresses,
            Err(NoAddress::Refused(refusal)) => return Err(self.refuse(refusal)),
            Err(NoAddress::Failed(error)) => return Err(error),
        };
        let places = self.function.places(self.invocation.refusals.function(), ATTEMPTS);
        let mut places = timeout_at(deadline, places).await.map_err(|_| self.refuse(Refusal::NoConnection))?;
        let connecting = async {
            let stream = dial::connect(addresses).await?;
            // That of the attempt that did not win.
            places.iter_mut().for_each(|place| drop(place.split(ATTEMPTS as usize - 1)));
            if !self.destination.secure {
                return Connection::open(stream, false, places).await;
            }
            match access.tls.connect(&self.destination.host, stream).await {
                Ok(stream) => {
                    let is_http2 = tls::is_http2(&stream);
                    Connection::open(stream, is_http2, places).await
                }
                Err(failure @ (TlsFailure::Certificate(_) | TlsFailure::Name)) => {
                    Err(self.refuse(Refusal::Untrusted { failure, remedy: access.tls.remedy().clone() }))
                }
                Err(failure @ (TlsFailure::Tls(_) | TlsFailure::Io(_))) => Err(failure.into()),
            }
        };
        let connection = timeout_at(deadline, connecting).await.map_err(|_| Error::ConnectionTimeout)??;
        self.function.metrics().outbound_connection("opened");
        Ok(connection)
    }

    /// # Errors
    /// If the response does not begin in time.
    async fn send(
        &self,
        connection: &mut Connection,
        mut request: Request<RequestBody>,
    ) -> Result<Result<Response<hyper::body::Incoming>, Unanswered>> {
        head::welcome_trailers(request.headers_mut(), connection.is_http2());
        let sending = connection.send(request);
        match self.options.first_byte_timeout {
            Some(time) => timeout(time, sending).await.map_err(|_| Error::ConnectionReadTimeout),
            None => Ok(sending.await),
        }
    }

    fn respond(
        &self,
        response: Response<hyper::body::Incoming>,
        mut connection: Connection,
        owner: ConnectionOwner,
        request: Gone,
    ) -> Result<Response<WasiBody>> {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Err(Error::HttpUpgradeFailed);
        }
        connection.owner = Some(owner);
        // The guest can keep this for longer than the connection.
        let _charging = self.memory.charge();
        let (head, incoming) = head::received(response);
        let (destination, invocation) = (self.destination.clone(), self.invocation.clone());
        let between_bytes = self.options.between_bytes_timeout;
        let body = ResponseBody::new(incoming, connection, request, destination, invocation, between_bytes);
        Ok(head.map(|()| body.boxed_unsync()))
    }
}

/// The result of a request, for the metrics.
pub fn result(response: &Result<Response<WasiBody>>) -> &'static str {
    match response {
        Ok(_) => "answered",
        Err(
            Error::HttpRequestDenied
            | Error::DestinationIpProhibited
            | Error::ConnectionLimitReached
            | Error::TlsCertificateError,
        ) => "refused",
        Err(Error::DnsTimeout | Error::ConnectionTimeout | Error::ConnectionReadTimeout) => "timeout",
        Err(_) => "failed",
    }
}

/// Counts one request when it is over; one that nobody waits for any more is `abandoned`.
pub struct Counted {
    metrics: Option<Arc<FunctionMetrics>>,
    since: Instant,
    result: &'static str,
}

impl Counted {
    pub fn new(function: Option<&FunctionAccess>) -> Counted {
        let metrics = function.map(|function| function.metrics().clone());
        Counted { metrics, since: Instant::now(), result: "abandoned" }
    }

    pub fn end(&mut self, result: &'static str) {
        self.result = result;
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(metrics) = &self.metrics {
            metrics.outbound_request(self.result, self.since.elapsed());
        }
    }
}
