//! `wasi:sockets` of WASI 0.2 where it differs from wasmtime's: who makes a socket is accounted for, and names are looked up as those of requests.

use std::{net::IpAddr, task::Poll, vec};

use futures_util::FutureExt;
use wasmtime::{
    StoreContextMut,
    component::{Linker, Resource, ResourceType},
};
use wasmtime_wasi::{
    WasiView, async_trait,
    p2::{
        DynPollable, Network, Pollable, SocketError, TcpSocket,
        bindings::sockets::{
            network::{ErrorCode, IpAddress, IpAddressFamily},
            tcp::HostTcpSocket,
            tcp_create_socket::Host,
        },
        subscribe,
    },
    sockets::WasiSocketsView,
};

use super::sockets::{BUFFER, Unresolved};
use crate::{sandbox::component::ComponentHost, tasks::Owned};

/// As wasmtime has them: what is defined here takes the place of its own.
const CREATE: &str = "wasi:sockets/tcp-create-socket@0.2.12";
const TCP: &str = "wasi:sockets/tcp@0.2.12";
const NAMES: &str = "wasi:sockets/ip-name-lookup@0.2.12";

type Answer<T> = wasmtime::Result<(Result<T, ErrorCode>,)>;
type Store<'a> = StoreContextMut<'a, ComponentHost>;

/// # Errors
/// If a type differs from wasmtime's: a mistake in this file.
pub fn link(linker: &mut Linker<ComponentHost>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    linker
        .instance(CREATE)?
        .func_wrap("create-tcp-socket", |mut store: Store<'_>, (family,): (IpAddressFamily,)| {
            answer(create(store.data_mut(), family))
        })?;
    let mut tcp = linker.instance(TCP)?;
    tcp.func_wrap("[method]tcp-socket.set-receive-buffer-size", |mut store: Store<'_>, (socket, bytes): (_, u64)| {
        answer(store.data_mut().sockets().set_receive_buffer_size(socket, bytes.min(BUFFER)))
    })?;
    tcp.func_wrap("[method]tcp-socket.set-send-buffer-size", |mut store: Store<'_>, (socket, bytes): (_, u64)| {
        answer(store.data_mut().sockets().set_send_buffer_size(socket, bytes.min(BUFFER)))
    })?;
    let mut names = linker.instance(NAMES)?;
    names.resource("resolve-address-stream", ResourceType::host::<Lookup>(), |mut store, lookup| {
        store.data_mut().ctx().table.delete(Resource::<Lookup>::new_own(lookup))?;
        Ok(())
    })?;
    names.func_wrap("resolve-addresses", |mut store: Store<'_>, (network, name): (Resource<Network>, String)| {
        let host = store.data_mut();
        host.ctx().table.get(&network)?;
        let lookup = host.outbound().resolve(&name).map(Lookup::Pending).map_err(code);
        Ok((match lookup {
            Ok(lookup) => Ok(host.ctx().table.push(lookup)?),
            Err(code) => Err(code),
        },))
    })?;
    names.func_wrap(
        "[method]resolve-address-stream.resolve-next-address",
        |mut store: Store<'_>, (lookup,): (Resource<Lookup>,)| {
            let next: Result<Option<IpAddress>, ErrorCode> = store.data_mut().ctx().table.get_mut(&lookup)?.next();
            Ok((next,))
        },
    )?;
    names.func_wrap(
        "[method]resolve-address-stream.subscribe",
        |mut store: Store<'_>, (lookup,): (Resource<Lookup>,)| {
            let pollable: Resource<DynPollable> = subscribe(store.data_mut().ctx().table, lookup)?;
            Ok((pollable,))
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}

fn create(host: &mut ComponentHost, family: IpAddressFamily) -> Result<Resource<TcpSocket>, SocketError> {
    // Where none are granted wasmtime refuses them.
    if host.outbound().has_sockets() {
        host.outbound().take_socket().map_err(|_| ErrorCode::NewSocketLimit)?;
    }
    let mut sockets = host.sockets();
    let socket = sockets.create_tcp_socket(family)?;
    sockets.set_receive_buffer_size(Resource::new_borrow(socket.rep()), BUFFER)?;
    sockets.set_send_buffer_size(Resource::new_borrow(socket.rep()), BUFFER)?;
    Ok(socket)
}

fn answer<T>(result: Result<T, SocketError>) -> Answer<T> {
    Ok((match result {
        Ok(value) => Ok(value),
        Err(error) => Err(error.downcast()?),
    },))
}

fn code(unresolved: Unresolved) -> ErrorCode {
    match unresolved {
        Unresolved::Invalid => ErrorCode::InvalidArgument,
        Unresolved::Refused => ErrorCode::AccessDenied,
        Unresolved::NotFound => ErrorCode::NameUnresolvable,
    }
}

/// `resolve-address-stream`.
enum Lookup {
    Pending(Owned<Result<Vec<IpAddr>, Unresolved>>),
    Found(vec::IntoIter<IpAddr>),
    Failed(ErrorCode),
}

impl Lookup {
    fn next(&mut self) -> Result<Option<IpAddress>, ErrorCode> {
        self.ready().now_or_never();
        match self {
            Lookup::Pending(_) => Err(ErrorCode::WouldBlock),
            Lookup::Found(addresses) => Ok(addresses.next().map(Into::into)),
            Lookup::Failed(code) => Err(*code),
        }
    }
}

#[async_trait]
impl Pollable for Lookup {
    async fn ready(&mut self) {
        let Lookup::Pending(task) = self else { return };
        let found = std::future::poll_fn(|context| match task.0.poll_unpin(context) {
            Poll::Ready(found) => Poll::Ready(found.unwrap_or(Err(Unresolved::NotFound))),
            Poll::Pending => Poll::Pending,
        });
        *self = match found.await {
            Ok(addresses) => Lookup::Found(addresses.into_iter()),
            Err(unresolved) => Lookup::Failed(code(unresolved)),
        };
    }
}
