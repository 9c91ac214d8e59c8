//! Connections of its own, as the query says.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream, ToSocketAddrs, UdpSocket},
};

/// `?HOST:PORT`: sends a request over a connection and gives what came back.
pub fn connect(query: &str) -> String {
    match exchange(query) {
        Ok(text) => text,
        Err(error) => format!("error={:?} {error}", error.kind()),
    }
}

fn exchange(authority: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(authority)?;
    stream.write_all(format!("GET / HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n\r\n").as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// `?NAME,ADDRESS:PORT`: looks a name up, and connects to an address.
pub fn pinned(query: &str) -> String {
    let (name, address) = query.split_once(',').expect("?NAME,ADDRESS:PORT");
    let found: Vec<String> = match (name, 0).to_socket_addrs() {
        Ok(found) => found.map(|address| address.ip().to_string()).collect(),
        Err(error) => vec![format!("error={error}")],
    };
    format!("{}\n{}", found.join(" "), connect(address))
}

/// `?ADDRESS:PORT,COUNT`: as many connections, one after the other; says how many there were.
pub fn many(query: &str) -> String {
    let (address, count) = query.split_once(',').expect("?ADDRESS:PORT,COUNT");
    let mut made = 0;
    for _ in 0..count.parse::<u32>().expect("?ADDRESS:PORT,COUNT") {
        match TcpStream::connect(address) {
            Ok(stream) => drop(stream.shutdown(Shutdown::Both)),
            Err(error) => return format!("{made} connections, then {error}"),
        }
        made += 1;
    }
    format!("{made} connections")
}

/// Whether it can wait for others, or send datagrams: `?ADDRESS:PORT`.
pub fn others(query: &str) -> String {
    let listen = TcpListener::bind("127.0.0.1:0").map(drop);
    let any = TcpListener::bind("0.0.0.0:0").map(drop);
    let datagram = UdpSocket::bind("0.0.0.0:0").and_then(|socket| socket.send_to(b"x", query)).map(drop);
    format!("listen {listen:?}\nany {any:?}\ndatagram {datagram:?}\n")
}
