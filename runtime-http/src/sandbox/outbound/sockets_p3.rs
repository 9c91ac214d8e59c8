//! The same of WASI 0.3: see [`super::sockets_p2`].

use wasmtime::{
    StoreContextMut,
    component::{Accessor, Linker, Resource},
};
use wasmtime_wasi::{
    p3::{
        bindings::sockets::{
            ip_name_lookup::ErrorCode as NameError,
            types::{ErrorCode, HostTcpSocket, IpAddress, IpAddressFamily},
        },
        sockets::SocketError,
    },
    sockets::{TcpSocket, WasiSocketsView},
};

use super::sockets::{BUFFER, Unresolved};
use crate::sandbox::component::ComponentHost;

const TYPES: &str = "wasi:sockets/types@0.3.0";
const NAMES: &str = "wasi:sockets/ip-name-lookup@0.3.0";

type Answer<T> = wasmtime::Result<(Result<T, ErrorCode>,)>;
type Store<'a> = StoreContextMut<'a, ComponentHost>;

/// # Errors
/// If a type differs from wasmtime's: a mistake in this file.
pub fn link(linker: &mut Linker<ComponentHost>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    let mut types = linker.instance(TYPES)?;
    types.func_wrap("[static]tcp-socket.create", |mut store: Store<'_>, (family,): (IpAddressFamily,)| {
        answer(create(store.data_mut(), family))
    })?;
    types.func_wrap(
        "[method]tcp-socket.set-receive-buffer-size",
        |mut store: Store<'_>, (socket, bytes): (_, u64)| {
            answer(store.data_mut().sockets().set_receive_buffer_size(socket, bytes.min(BUFFER)))
        },
    )?;
    types.func_wrap("[method]tcp-socket.set-send-buffer-size", |mut store: Store<'_>, (socket, bytes): (_, u64)| {
        answer(store.data_mut().sockets().set_send_buffer_size(socket, bytes.min(BUFFER)))
    })?;
    linker.instance(NAMES)?.func_wrap_concurrent(
        "resolve-addresses",
        |guest: &Accessor<ComponentHost>, (name,): (String,)| {
            Box::pin(async move {
                let lookup = guest.with(|mut store| store.get().outbound().resolve(&name));
                let found = match lookup {
                    Ok(mut task) => (&mut task.0).await.unwrap_or(Err(Unresolved::NotFound)),
                    Err(unresolved) => Err(unresolved),
                };
                let found: Result<Vec<IpAddress>, NameError> =
                    found.map(|addresses| addresses.into_iter().map(Into::into).collect()).map_err(code);
                Ok((found,))
            })
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}

fn create(host: &mut ComponentHost, family: IpAddressFamily) -> Result<Resource<TcpSocket>, SocketError> {
    // Where none are granted wasmtime refuses them.
    if host.outbound().has_sockets() {
        host.outbound().take_socket().map_err(|_| ErrorCode::OutOfMemory)?;
    }
    let mut sockets = host.sockets();
    let socket = HostTcpSocket::create(&mut sockets, family)?;
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

fn code(unresolved: Unresolved) -> NameError {
    match unresolved {
        Unresolved::Invalid => NameError::InvalidArgument,
        Unresolved::Refused => NameError::AccessDenied,
        Unresolved::NotFound => NameError::NameUnresolvable,
    }
}
