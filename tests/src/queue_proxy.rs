//! The side of Knative's queue-proxy that boxes report to: a real WebSocket server, in this process.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures_util::StreamExt;
use prost::Message as _;
use tokio::{
    net::{TcpSocket, TcpStream},
    runtime::Runtime,
};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server::{Request, Response},
    },
};

/// As in the fork's superpod_metrics.proto.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct SuperPodMetrics {
    #[prost(double, tag = "1")]
    pub cpu_utilization: f64,
}

/// What it does with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// Reads all reports.
    Reads,
    /// Says yes, and never reads again.
    Stops,
    /// Sends more than a reporter may take, and a ping before.
    Talks,
}

/// The server; dropping it closes all its connections without a word, as a crash does.
pub struct QueueProxy {
    address: SocketAddr,
    seen: Arc<Seen>,
    runtime: Option<Runtime>,
}

#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    goodbyes: AtomicUsize,
    pongs: AtomicUsize,
    paths: Mutex<Vec<String>>,
    reports: Mutex<Vec<f64>>,
}

impl QueueProxy {
    /// # Panics
    /// If the port is not free.
    pub fn start(port: u16, peer: Peer) -> QueueProxy {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("an event loop can be made");
        let seen = Arc::new(Seen::default());
        let listener = {
            let _context = runtime.enter();
            let socket = TcpSocket::new_v4().expect("a socket");
            socket.set_reuseaddr(true).expect("an option of sockets");
            if peer == Peer::Stops {
                // The least that the kernel allows, so that it is soon full.
                socket.set_recv_buffer_size(1).expect("an option of sockets");
            }
            socket.bind(SocketAddr::from(([127, 0, 0, 1], port))).expect("the port is free");
            socket.listen(16).expect("a bound socket")
        };
        let address = listener.local_addr().expect("a bound socket");
        runtime.spawn({
            let seen = seen.clone();
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(serve(stream, peer, seen.clone()));
                }
            }
        });
        QueueProxy { address, seen, runtime: Some(runtime) }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// What it was told so far.
    ///
    /// # Panics
    /// If a connection's task panicked: what came was no report.
    pub fn reports(&self) -> Vec<f64> {
        self.seen.reports.lock().expect("all messages are reports").clone()
    }

    pub fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::Relaxed)
    }

    /// Connections that ended as RFC 6455 wants it.
    pub fn goodbyes(&self) -> usize {
        self.seen.goodbyes.load(Ordering::Relaxed)
    }

    /// Answers to pings.
    pub fn pongs(&self) -> usize {
        self.seen.pongs.load(Ordering::Relaxed)
    }

    /// The paths that were asked for.
    ///
    /// # Panics
    /// If a connection's task panicked.
    pub fn paths(&self) -> Vec<String> {
        self.seen.paths.lock().expect("nothing panics with this lock").clone()
    }
}

impl Drop for QueueProxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[expect(clippy::result_large_err, reason = "the callback's type is the library's")]
async fn serve(stream: TcpStream, peer: Peer, seen: Arc<Seen>) {
    let note_path = |request: &Request, response: Response| {
        seen.paths.lock().expect("nothing panics with this lock").push(request.uri().path().to_owned());
        Ok(response)
    };
    let Ok(mut socket) = accept_hdr_async(stream, note_path).await else { return };
    seen.connections.fetch_add(1, Ordering::Relaxed);
    match peer {
        Peer::Reads => read(socket, &seen).await,
        Peer::Stops => std::future::pending().await,
        Peer::Talks => {
            use futures_util::SinkExt;
            let _ = socket.send(Message::Ping("are you there".into())).await;
            let _ = socket.send(Message::Text("hello".into())).await;
            while seen.pongs.load(Ordering::Relaxed) == 0 {
                match socket.next().await {
                    Some(Ok(Message::Pong(_))) => _ = seen.pongs.fetch_add(1, Ordering::Relaxed),
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return,
                }
            }
            let _ = socket.send(Message::Binary(vec![0; 1 << 20].into())).await;
            read(socket, &seen).await;
        }
    }
}

async fn read(mut socket: WebSocketStream<TcpStream>, seen: &Seen) {
    while let Some(Ok(message)) = socket.next().await {
        match message {
            Message::Binary(bytes) => {
                let mut reports = seen.reports.lock().expect("all messages are reports");
                reports.push(SuperPodMetrics::decode(bytes).expect("a report").cpu_utilization);
            }
            Message::Close(_) => _ = seen.goodbyes.fetch_add(1, Ordering::Relaxed),
            Message::Pong(_) => {}
            other => panic!("{other:?} is no report"),
        }
    }
}
