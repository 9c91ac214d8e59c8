//! Connections by `wasi:sockets` of WASI 0.3.

use std::net::{Ipv4Addr, SocketAddrV4};

use wasip3::{
    sockets::{
        ip_name_lookup::resolve_addresses,
        types::{IpAddress, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, TcpSocket, UdpSocket},
    },
    wit_stream,
};

fn v4(address: (u8, u8, u8, u8), port: u16) -> IpSocketAddress {
    IpSocketAddress::Ipv4(Ipv4SocketAddress { port, address })
}

/// `HOST:PORT`, of IPv4: sends a request over a connection and gives what came back.
pub async fn connect(authority: &str) -> String {
    match exchange(authority).await {
        Ok(text) => text,
        Err(error) => format!("error={error}"),
    }
}

async fn exchange(authority: &str) -> Result<String, String> {
    let (host, port) = authority.split_once(':').expect("?HOST:PORT");
    let found = resolve_addresses(host.into()).await.map_err(|error| format!("{error:?}"))?;
    let Some(IpAddress::Ipv4(address)) = found.first() else { return Err(format!("{found:?}")) };
    let socket = TcpSocket::create(IpAddressFamily::Ipv4).map_err(|error| format!("{error:?}"))?;
    let port = port.parse().expect("a port");
    socket.connect(v4(*address, port)).await.map_err(|error| format!("{error:?}"))?;
    let (mut to, sent) = wit_stream::new();
    let done = socket.send(sent);
    let _ = to.write_all(format!("GET / HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n\r\n").into()).await;
    let (from, _) = socket.receive();
    let bytes = from.collect().await;
    drop(to);
    let _ = done.await;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Whether it can wait for others, or send datagrams to `ADDRESS:PORT`.
pub async fn others(query: &str) -> String {
    let to: SocketAddrV4 = query.parse().expect("?ADDRESS:PORT");
    let listen = TcpSocket::create(IpAddressFamily::Ipv4).and_then(|socket| {
        socket.bind(v4(Ipv4Addr::LOCALHOST.octets().into(), 0))?;
        socket.listen().map(drop)
    });
    let any = TcpSocket::create(IpAddressFamily::Ipv4).and_then(|socket| socket.listen().map(drop));
    let datagram = match UdpSocket::create(IpAddressFamily::Ipv4) {
        Ok(socket) => socket.send(b"x".to_vec(), Some(v4(to.ip().octets().into(), to.port()))).await,
        Err(error) => Err(error),
    };
    format!("listen {listen:?}\nany {any:?}\ndatagram {datagram:?}\n")
}
