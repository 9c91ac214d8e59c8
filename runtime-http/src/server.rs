//! Listening sockets: accepts connections, speaks HTTP/1.1 and h2c on each, and shuts down without breaking answers off.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use http::{Request, Response};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
};
use prometheus::IntGauge;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::sync::CancellationToken;

use crate::{
    api::{Peers, answer::AnswerBody},
    io::IoThreads,
    timer::HeadTimer,
};

/// A client must have sent a request's head by then: a connection that sends nothing is closed.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
const LARGEST_HEAD: usize = 64 << 10;
/// Requests of one HTTP/2 connection at once.
const STREAMS: u32 = 256;
/// How long open connections may take to end when everything they asked for is answered.
const GRACE: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}; choose another with {setting}")]
pub struct ListenError {
    address: String,
    setting: &'static str,
    source: io::Error,
}

/// A bound socket.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    connections: Arc<Semaphore>,
    gauge: IntGauge,
}

/// `HOST:PORT`, with the brackets that an IPv6 address needs.
pub fn address(host: &str, port: u16) -> String {
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// The address by which a server that is bound to `host` is reached from the same machine.
pub fn reachable(host: &str, port: u16) -> String {
    let every = matches!(host.trim_matches(['[', ']']), "" | "0.0.0.0" | "::");
    address(if every { "127.0.0.1" } else { host }, port)
}

impl Server {
    /// Binds `host:port`. `setting` is what an error names; `connections` is the most at once.
    ///
    /// # Errors
    /// If the address is not one, or not free.
    pub async fn bind(
        host: &str,
        port: u16,
        setting: &'static str,
        connections: usize,
        gauge: IntGauge,
    ) -> Result<Server, ListenError> {
        let address = address(host, port);
        let error = |source| ListenError { address: address.clone(), setting, source };
        let listener = TcpListener::bind(&address).await.map_err(error)?;
        let address = listener.local_addr().map_err(error)?;
        Ok(Server { listener, address, connections: Arc::new(Semaphore::new(connections)), gauge })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves, on the threads of `io`, until `closing` is cancelled; then finishes what is begun.
    pub async fn serve<F, R>(self, io: Arc<IoThreads>, handle: F, closing: CancellationToken)
    where
        F: Fn(Request<Incoming>, Peers) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Response<AnswerBody>> + Send + 'static,
    {
        let mut http = auto::Builder::new(TokioExecutor::new());
        http.http1().header_read_timeout(HEAD_TIMEOUT).max_buf_size(LARGEST_HEAD);
        http.http2().timer(TokioTimer::new()).max_concurrent_streams(STREAMS).max_header_list_size(LARGEST_HEAD as u32);
        let graceful = GracefulShutdown::new();
        loop {
            // Beyond the bound, connections wait in the kernel's backlog.
            let place = tokio::select! {
                place = self.connections.clone().acquire_owned() => place.expect("the semaphore is never closed"),
                () = closing.cancelled() => break,
            };
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = closing.cancelled() => break,
            };
            let (stream, client) = match accepted.and_then(|(stream, client)| Ok((stream.into_std()?, client))) {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, most likely: they come back when connections end.
                    tracing::warn!("cannot accept a connection: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            // A small answer must not wait for the client's acknowledgement of another.
            let _ = stream.set_nodelay(true);
            let peers = Peers { server: stream.local_addr().unwrap_or(self.address), client };
            let (handle, mut http, watcher, gauge) =
                (handle.clone(), http.clone(), graceful.watcher(), self.gauge.clone());
            http.http1().timer(HeadTimer::default());
            io.next().spawn(async move {
                let service = service_fn(move |request| {
                    let answer = handle(request, peers);
                    async move { Ok::<_, Infallible>(answer.await) }
                });
                gauge.inc();
                match TcpStream::from_std(stream) {
                    Ok(stream) => {
                        let connection = http.serve_connection(TokioIo::new(stream), service).into_owned();
                        if let Err(error) = watcher.watch(connection).await {
                            tracing::debug!(%client, "connection ended: {error}");
                        }
                    }
                    Err(error) => tracing::warn!(%client, "cannot serve a connection: {error}"),
                }
                gauge.dec();
                drop(place);
            });
        }
        drop(self.listener);
        if tokio::time::timeout(GRACE, graceful.shutdown()).await.is_err() {
            tracing::info!("closing connections that are still open");
        }
    }
}
