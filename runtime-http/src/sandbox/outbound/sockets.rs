//! Connections that guests open by themselves (`wasi:sockets`): to where they may send HTTP requests, and nowhere else.
//!
//! A guest looks a name up and then connects to an address. So what a name was found to lead to is remembered for its invocation, and an
//! address may be connected to if it is granted as an address, or if a name that is granted with that port has led to it in this invocation.
//! Nothing is listened on, and there are no datagrams.

use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    num::NonZeroUsize,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::OwnedSemaphorePermit;
use wasmtime_wasi::sockets::SocketAddrUse;

use super::{
    Destination, Outbound,
    access::FunctionAccess,
    address,
    dial::{self, MOST_ADDRESSES},
    refusal::Refusal,
};
use crate::{
    allocator::HeldBytes,
    invocation::{Host, OutboundGrant},
    tasks::Owned,
};

/// Sockets that one invocation may make, in all: each keeps its descriptor's place until the invocation ends, since streams of a socket can
/// outlive the guest's handle.
const MOST_SOCKETS: usize = 64;
/// What the kernel may keep for one in either direction, bytes; it doubles what it is told (socket(7)).
pub(super) const BUFFER: u64 = 64 << 10;
const SOCKET_BYTES: usize = 4 * BUFFER as usize;
/// Addresses of names that are remembered for an invocation.
const MOST_REMEMBERED: usize = 128;

/// What one invocation's sockets hold.
#[derive(Default)]
pub struct Sockets(Mutex<State>);

#[derive(Default)]
struct State {
    /// Which name has led to which address, the oldest first.
    found: VecDeque<(Host, IpAddr)>,
    held: Vec<Held>,
}

struct Held {
    _places: [OwnedSemaphorePermit; 2],
    _memory: HeldBytes,
}

/// Why a name has no addresses for a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unresolved {
    /// It is neither a name nor an address.
    Invalid,
    /// It is not granted, or leads to nothing that may be connected to.
    Refused,
    /// Whoever is asked for names has no address for it.
    NotFound,
}

impl Sockets {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn remember(&mut self, host: &Host, addresses: &[IpAddr]) {
        for address in addresses {
            let pair = (host.clone(), *address);
            if !self.found.contains(&pair) {
                self.found.push_back(pair);
            }
        }
        let too_many = self.found.len().saturating_sub(MOST_REMEMBERED);
        self.found.drain(..too_many);
    }
}

/// What is said when an address of a guest's is used.
pub type Check = dyn Fn(SocketAddr, SocketAddrUse) -> Pin<Box<dyn Future<Output = bool> + Send + Sync>> + Send + Sync;

/// The way out of an instance: that of the invocation which it serves.
#[derive(Clone)]
pub struct CurrentOutbound(Arc<Mutex<Outbound>>);

impl CurrentOutbound {
    pub fn new(outbound: Outbound) -> CurrentOutbound {
        CurrentOutbound(Arc::new(Mutex::new(outbound)))
    }

    pub fn set(&self, outbound: Outbound) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = outbound;
    }

    fn get(&self) -> Outbound {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn socket_check(&self) -> Box<Check> {
        let current = self.clone();
        Box::new(move |address, usage| {
            let may = match usage {
                SocketAddrUse::TcpConnect => current.get().may_connect(address),
                // What the kernel does for a socket that connects.
                SocketAddrUse::TcpBind => address.ip().is_unspecified() && address.port() == 0,
                SocketAddrUse::TcpListen
                | SocketAddrUse::TcpAccept
                | SocketAddrUse::UdpBind
                | SocketAddrUse::UdpSend
                | SocketAddrUse::UdpReceive => false,
            };
            Box::pin(std::future::ready(may))
        })
    }
}

impl Outbound {
    /// Whether its guest may have sockets at all.
    pub fn has_sockets(&self) -> bool {
        !self.grants.outbound.is_empty() && self.function().is_some()
    }

    fn function(&self) -> Option<&FunctionAccess> {
        self.invocation.function.as_deref().filter(|function| function.access.runtime().is_some())
    }

    /// Whether this invocation has requests that are not answered, or answers that are not read to their ends.
    pub fn has_requests(&self) -> bool {
        self.invocation.has_requests()
    }

    /// Whether this invocation has made any.
    pub fn has_made_sockets(&self) -> bool {
        !self.invocation.sockets.state().held.is_empty()
    }

    fn may_connect(&self, address: SocketAddr) -> bool {
        let (ip, port) = (address.ip().to_canonical(), address.port());
        let Some(function) = self.function() else { return false };
        let host = Host::Address(ip);
        let is_granted = |host: &Host| self.grants.outbound.iter().any(|grant| grant.grants(host, port));
        let is_named = || self.invocation.sockets.state().found.iter().any(|(name, to)| *to == ip && is_granted(name));
        let refusal = if is_granted(&host) {
            None
        } else if !is_named() {
            Some(Refusal::NotGranted)
        } else if !address::may_be_used(ip, port, &function.access.grants) {
            Some(Refusal::NotPublic { address: ip })
        } else {
            None
        };
        function.metrics().outbound_connection(if refusal.is_none() { "socket" } else { "refused" });
        let Some(refusal) = refusal else { return true };
        self.invocation.refusals.log(&refusal, &Destination { host, port, secure: false });
        false
    }

    /// Looks `name` up, on the thread that does so for functions; an address is its own. Gives those addresses that may be connected to.
    ///
    /// # Errors
    /// [`Unresolved`].
    pub fn resolve(&self, name: &str) -> Result<Owned<Result<Vec<IpAddr>, Unresolved>>, Unresolved> {
        let bare = || Some(Host::Address(name.parse::<IpAddr>().ok()?.to_canonical()));
        let host = bare().or_else(|| Host::parse(name)).ok_or(Unresolved::Invalid)?;
        let runtime = self.function().and_then(|function| function.access.runtime()).ok_or(Unresolved::Refused)?;
        let granting: Vec<&OutboundGrant> = granting(&self.grants.outbound, &host).collect();
        if granting.is_empty() {
            self.invocation.refusals.log_name(&host);
            return Err(Unresolved::Refused);
        }
        let outbound = self.clone();
        Ok(Owned(runtime.spawn(async move { outbound.look_up(host).await })))
    }

    async fn look_up(self, host: Host) -> Result<Vec<IpAddr>, Unresolved> {
        let name = match &host {
            Host::Address(address) => return Ok(vec![*address]),
            Host::Name(name) => name,
        };
        let function = self.function().ok_or(Unresolved::Refused)?;
        let found = dial::look_up(name, function.lookups()).await.map_err(|_| Unresolved::NotFound)?;
        let operator = &function.access.grants;
        let may_be_used = |address: &&IpAddr| {
            granting(&self.grants.outbound, &host).any(|grant| address::may_be_used(**address, grant.port(), operator))
        };
        let usable: Vec<IpAddr> = found.iter().filter(may_be_used).take(MOST_ADDRESSES).copied().collect();
        if let (true, Some(address)) = (usable.is_empty(), found.first()) {
            let port = granting(&self.grants.outbound, &host).next().map_or(0, OutboundGrant::port);
            let refusal = Refusal::NotPublic { address: *address };
            self.invocation.refusals.log(&refusal, &Destination { host, port, secure: false });
            return Err(Unresolved::Refused);
        }
        self.invocation.sockets.state().remember(&host, &usable);
        if usable.is_empty() { Err(Unresolved::NotFound) } else { Ok(usable) }
    }

    /// Accounts for one more socket, until the invocation ends.
    ///
    /// # Errors
    /// [`Refusal`], which is logged.
    pub(super) fn take_socket(&self) -> Result<(), Refusal> {
        let taken = self.try_take_socket();
        if let Err(refusal) = &taken {
            self.invocation.refusals.log(refusal, &"socket");
        }
        taken
    }

    fn try_take_socket(&self) -> Result<(), Refusal> {
        let function = self.function().ok_or(Refusal::NotGranted)?;
        let mut state = self.invocation.sockets.state();
        if state.held.len() >= MOST_SOCKETS {
            return Err(Refusal::NoSocket { most: MOST_SOCKETS });
        }
        let places = function.try_place(self.invocation.refusals.function()).ok_or(Refusal::NoConnection)?;
        let bytes = NonZeroUsize::new(SOCKET_BYTES);
        let memory = bytes.and_then(|bytes| self.memory.hold(bytes, self.most_memory)).ok_or(Refusal::NoMemory)?;
        state.held.push(Held { _places: places, _memory: memory });
        Ok(())
    }
}

/// Those of `grants` that grant `host`, each with its own port.
fn granting<'a>(grants: &'a [OutboundGrant], host: &'a Host) -> impl Iterator<Item = &'a OutboundGrant> {
    grants.iter().filter(|grant| grant.grants(host, grant.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut state = State::default();
        let host = |number: u32| Host::parse(&format!("h{number}.example")).unwrap();
        let address = IpAddr::from([127, 0, 0, 1]);
        for number in 0..10 * MOST_REMEMBERED as u32 {
            state.remember(&host(number), &[address, address]);
            assert!(state.found.contains(&(host(number), address)));
            assert!(state.found.len() <= MOST_REMEMBERED);
        }
        assert!(!state.found.contains(&(host(0), address)));
    }
}
