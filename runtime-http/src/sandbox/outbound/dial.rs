//! From a destination to a socket: which addresses there are, which of them may be connected to, which answers first.
//!
//! What was checked is what is connected to: a name is looked up once for a connection, and its addresses are passed on, not the name.

use std::{
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{net::TcpStream, sync::Semaphore};
use wasmtime_wasi_http::Error;

use super::{Destination, address, failure, refusal::Refusal};
use crate::invocation::{Host, OutboundGrant};

/// Names that one function has looked up at once. The C library waits for a server of names for half a minute, and its thread with it.
pub const LOOKUPS: usize = 4;
/// Threads that look names up, of all functions.
pub const LOOKUP_THREADS: usize = 32;
/// The most addresses of a name that are tried.
pub const MOST_ADDRESSES: usize = 8;
/// How long an address has before the next one is tried beside it (RFC 8305, section 5).
const HEAD_START: Duration = Duration::from_millis(250);
/// Sockets that connect at once.
pub const ATTEMPTS: u32 = 2;

/// Why there is no address to connect to.
#[derive(Debug)]
pub enum NoAddress {
    Refused(Refusal),
    Failed(Error),
}

/// The addresses of `destination` that may be connected to: those that are public, and those that `operator` has granted as addresses.
///
/// # Errors
/// [`NoAddress`], if there is none.
pub async fn addresses(
    destination: &Destination,
    lookups: &Arc<Semaphore>,
    operator: &[OutboundGrant],
) -> Result<Vec<SocketAddr>, NoAddress> {
    let found = match &destination.host {
        // It was granted as what it is.
        Host::Address(address) => return Ok(vec![SocketAddr::new(*address, destination.port)]),
        Host::Name(name) => look_up(name, lookups).await.map_err(NoAddress::Failed)?,
    };
    let usable: Vec<SocketAddr> = found
        .iter()
        .filter(|address| address::may_be_used(**address, destination.port, operator))
        .take(MOST_ADDRESSES)
        .map(|address| SocketAddr::new(*address, destination.port))
        .collect();
    match found.first() {
        _ if !usable.is_empty() => Ok(usable),
        Some(address) => Err(NoAddress::Refused(Refusal::NotPublic { address: *address })),
        None => Err(NoAddress::Failed(no_such_name())),
    }
}

fn no_such_name() -> Error {
    Error::DnsError { rcode: Some("address not available".into()), info_code: None }
}

/// All addresses of a name, as the C library sorts them (RFC 6724).
pub async fn look_up(name: &str, lookups: &Arc<Semaphore>) -> Result<Vec<IpAddr>, Error> {
    let place = lookups.clone().acquire_owned().await.expect("the semaphore is never closed");
    let name = name.to_owned();
    let found = tokio::task::spawn_blocking(move || {
        let found = (name.as_str(), 0).to_socket_addrs();
        // It is occupied until here, also when nobody waits any more.
        drop(place);
        found
    });
    let found = found.await.map_err(|_| no_such_name())?.map_err(|_| no_such_name())?;
    let mut addresses: Vec<IpAddr> = found.map(|address| address.ip().to_canonical()).collect();
    addresses.dedup();
    Ok(addresses)
}

/// Connects to the first of `addresses` that answers. One that takes long has the next one tried beside it.
///
/// # Errors
/// That of the last one that failed.
pub async fn connect(addresses: Vec<SocketAddr>) -> Result<TcpStream, Error> {
    let mut left = addresses.into_iter().peekable();
    let mut attempts = FuturesUnordered::new();
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    loop {
        if attempts.len() < ATTEMPTS as usize
            && let Some(address) = left.next()
        {
            attempts.push(TcpStream::connect(address));
        }
        let may_start = left.peek().is_some() && attempts.len() < ATTEMPTS as usize;
        tokio::select! {
            attempt = attempts.next() => match attempt {
                Some(Ok(stream)) => {
                    // A request is sent in one piece, a body as it comes: nothing is gained by waiting for more.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Some(Err(error)) => last = error,
                None => return Err(failure::of_io(&last)),
            },
            () = tokio::time::sleep(HEAD_START), if may_start => {}
        }
    }
}
