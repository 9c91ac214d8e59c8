//! Streams of a container, as a kubelet gets them: a WebSocket to the URL that containerd names, on which the first byte of each message is
//! the channel that it belongs to.

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use http::HeaderValue;
use tokio::{net::TcpStream, runtime::Runtime, time::timeout};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, client::IntoClientRequest},
};

use crate::{Containerd, patience::PATIENCE};

/// The channels of an exec and of an attachment.
pub const STDIN: u8 = 0;
pub const STDOUT: u8 = 1;
pub const STDERR: u8 = 2;
/// How it ended, a Kubernetes `Status` in JSON.
pub const STATUS: u8 = 3;
/// `{"Width":80,"Height":24}`.
pub const RESIZE: u8 = 4;

pub struct Stream {
    runtime: Runtime,
    socket: WebSocketStream<TcpStream>,
}

impl Stream {
    /// # Panics
    /// If there is no WebSocket.
    pub fn open(containerd: &Containerd, url: &str) -> Stream {
        let authority = url.strip_prefix("http://").and_then(|rest| rest.split('/').next()).expect("an http URL");
        let address: SocketAddr = authority.parse().expect("an address and a port");
        let connection = containerd.node().connect(address).expect("containerd listens");
        connection.set_nonblocking(true).expect("a socket");
        let mut request = url.replacen("http", "ws", 1).into_client_request().expect("a URL");
        let protocol = HeaderValue::from_static("v4.channel.k8s.io");
        request.headers_mut().insert("Sec-WebSocket-Protocol", protocol);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime for a client");
        let socket = runtime.block_on(async {
            let connection = TcpStream::from_std(connection).expect("a socket");
            client_async(request, connection).await.expect("containerd streams over WebSockets").0
        });
        Stream { runtime, socket }
    }

    /// # Panics
    /// If the other side is gone.
    pub fn send(&mut self, channel: u8, content: &[u8]) {
        let mut message = vec![channel];
        message.extend(content);
        self.runtime.block_on(self.socket.send(Message::Binary(message.into()))).expect("the stream is open");
    }

    /// The next message that says something: its channel and content; none at the end.
    ///
    /// # Panics
    /// If nothing comes for long.
    pub fn receive(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            let next = self.runtime.block_on(async { timeout(PATIENCE, self.socket.next()).await });
            match next.expect("something comes, or the end") {
                Some(Ok(Message::Binary(bytes))) if bytes.len() > 1 => return Some((bytes[0], bytes[1..].to_vec())),
                // Each channel begins with an empty message.
                Some(Ok(Message::Binary(_) | Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Text(_) | Message::Close(_) | Message::Frame(_)) | Err(_)) | None => return None,
            }
        }
    }

    /// Receives on one channel until `text` has come; gives all that came.
    ///
    /// # Panics
    /// If it ends before.
    pub fn until(&mut self, channel: u8, text: &str) -> String {
        let mut seen = String::new();
        while !seen.contains(text) {
            let (from, content) = self.receive().unwrap_or_else(|| panic!("no {text:?} but {seen:?}"));
            if from == channel {
                seen += &String::from_utf8_lossy(&content);
            }
        }
        seen
    }

    /// Receives to the end: all of standard output, of standard error, and the status.
    pub fn finish(mut self) -> [String; 3] {
        let mut texts = [const { Vec::new() }; 3];
        while let Some((channel, content)) = self.receive() {
            let place = usize::from(channel).checked_sub(usize::from(STDOUT)).and_then(|index| texts.get_mut(index));
            place.expect("a channel for output").extend(content);
        }
        texts.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }
}
