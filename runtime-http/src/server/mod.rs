//! Listening sockets: accepts connections, speaks HTTP/1.1 and h2c on each, and ends without breaking answers off.
//!
//! It knows no route and no function. Each connection is one task on one thread.
//!
//! - [`connections`]: how many there may be; [`activity`]: what one does; [`patience`]: when that is nothing for too long
//! - [`socket`], [`delivery`]: both ends of the bytes: what is read is reserved before, what is sent must be taken; [`preface`]: whoever
//!   begins as HTTP/2 and goes on otherwise

pub mod activity;
mod connections;
pub mod delivery;
pub mod patience;
mod preface;
mod socket;

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use http::{HeaderValue, Request, Response, Version, header};
use hyper::{
    body::{Body, Incoming},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use prometheus::IntGauge;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use self::{
    connections::{Connections, Place},
    delivery::Delivery,
    patience::{GRACE, Order, Step, Timeouts},
    socket::Socket,
};
use crate::{
    api::Peers,
    client,
    exchange::{
        budget::{Budgets, ClientBudget, HTTP2_CONNECTION, HTTP2_STREAM, Reservation, SMALL_HEAD},
        response_body::ResponseBody,
    },
    io::IoThreads,
};

/// Also what hyper may hold of a connection's input.
const LARGEST_HEAD: usize = 64 << 10;
/// Connections that wait to be accepted; the kernel has a bound of its own, too (net.core.somaxconn). Beyond it, a burst of one client's makes
/// others wait until they try again, a second later. The default is 128.
const BACKLOG: i32 = 4096;
/// Of HTTP/2: requests of one connection at once, and what it may send ahead for one of them and for all.
const STREAMS: u32 = 256;
const STREAM_WINDOW: u32 = 64 << 10;
const CONNECTION_WINDOW: u32 = 64 << 10;
const LARGEST_HEADER_LIST: u32 = 32 << 10;
/// A client of HTTP/2 that does not answer a ping within this time, asked after as long without a frame, is gone.
const PING: Duration = Duration::from_secs(20);

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
    connections: Arc<Connections>,
    timeouts: Timeouts,
}

/// What a request holds could not be reserved; it was dropped.
#[derive(Debug, Clone, Copy)]
pub struct NoMemory;

/// How a server is told to end.
#[derive(Debug, Clone, Default)]
pub struct Ending {
    /// No connection is accepted any more; requests on open ones are answered, and their connections closed.
    pub drain: CancellationToken,
    /// What is idle is closed at once; the rest within [`GRACE`].
    pub close: CancellationToken,
}

type Http = auto::Builder<TokioExecutor>;

fn http() -> Http {
    let mut http = auto::Builder::new(TokioExecutor::new());
    // Heads have a deadline of ours, which counts from the connection's first moment.
    // Who sends nothing more is not gone yet: `socket` looks at that.
    http.http1().header_read_timeout(None).max_buf_size(LARGEST_HEAD).half_close(true);
    http.http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(LARGEST_HEADER_LIST)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING);
    http
}

impl Server {
    /// Binds `host:port`. `setting` is what an error names.
    ///
    /// # Errors
    /// If the address is not one, or not free.
    pub async fn bind(
        host: &str,
        port: u16,
        setting: &'static str,
        timeouts: Timeouts,
        budgets: Budgets,
        gauge: IntGauge,
    ) -> Result<Server, ListenError> {
        let address = client::address(host, port);
        let error = |source| ListenError { address: address.clone(), setting, source };
        let listener = TcpListener::bind(&address).await.map_err(error)?;
        // listen(2): on a socket that listens already, this changes its backlog.
        rustix::net::listen(&listener, BACKLOG).map_err(|errno| error(errno.into()))?;
        let address = listener.local_addr().map_err(error)?;
        let connections = Connections::new(budgets, gauge);
        Ok(Server { listener, address, connections, timeouts })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves, on the threads of `io`, until it is told to end; then finishes what is begun.
    pub async fn serve<F, R>(self, io: Arc<IoThreads>, handle: F, ending: Ending)
    where
        F: Fn(Result<Request<Incoming>, NoMemory>, Peers) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Response<ResponseBody>> + Send + 'static,
    {
        let Server { listener, address, connections, timeouts } = self;
        let http = http();
        let start = |stream: std::net::TcpStream, client: SocketAddr, place: Place| {
            // A small answer must not wait for the client's acknowledgement of another.
            let _ = stream.set_nodelay(true);
            let server = stream.local_addr().unwrap_or(address);
            let peers = Peers { server, client, budgets: place.budgets.clone() };
            let connection = connection(stream, peers, place, http.clone(), timeouts, handle.clone());
            io.next().spawn(connections.tasks.track_future(connection));
        };
        let accept = async |listener: &TcpListener| {
            let (stream, client) = listener.accept().await?;
            Ok::<_, io::Error>((stream.into_std()?, client))
        };
        let accepting = async {
            loop {
                match accept(&listener).await {
                    Ok((stream, client)) => match connections.place(client.ip()).await {
                        Some(place) => start(stream, client, place),
                        None => tracing::debug!(%client, "not served: others want their part of the connections"),
                    },
                    Err(error) => {
                        // Out of descriptors, most likely: they come back when connections end.
                        tracing::warn!("cannot accept a connection: {error}");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            }
        };
        tokio::select! {
            () = accepting => {}
            () = ending.drain.cancelled() => {}
        }
        // Whoever the kernel has accepted already may have sent a request.
        while let Some(Ok((stream, client))) = futures_util::FutureExt::now_or_never(accept(&listener)) {
            let place = tokio::select! {
                place = connections.place(client.ip()) => place,
                () = ending.close.cancelled() => break,
            };
            if let Some(place) = place {
                start(stream, client, place);
            }
        }
        drop(listener);
        connections.order(Order::Drain);
        tokio::select! {
            () = connections.ended() => return,
            () = ending.close.cancelled() => connections.order(Order::End),
        }
        if tokio::time::timeout(GRACE * 2, connections.ended()).await.is_err() {
            tracing::info!("leaving connections that are still open");
        }
    }
}

/// One connection, from its first byte to its last.
async fn connection<F, R>(
    stream: std::net::TcpStream,
    peers: Peers,
    place: Place,
    http: Http,
    timeouts: Timeouts,
    handle: F,
) where
    F: Fn(Result<Request<Incoming>, NoMemory>, Peers) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Response<ResponseBody>> + Send + 'static,
{
    let client = peers.client;
    let activity = &place.activity;
    let stream = match TcpStream::from_std(stream) {
        Ok(stream) => stream,
        Err(error) => return tracing::warn!(%client, "cannot serve a connection: {error}"),
    };
    let socket = Socket::new(stream, activity.clone(), peers.budgets.heads.clone());
    let service = {
        let activity = activity.clone();
        let windows = std::sync::Mutex::new(None);
        service_fn(move |mut request: Request<Incoming>| {
            let is_http1 = request.version() <= Version::HTTP_11;
            let reserved = reserve(&request, &peers.budgets.heads, &windows);
            let in_flight = activity.begin(!is_http1);
            if !request.body().is_end_stream() {
                request.extensions_mut().insert(activity.bodies.clone());
            }
            let (request, reserved) = match reserved {
                Some(reserved) => (Ok(request), reserved),
                None => (Err(NoMemory), Reservation::default()),
            };
            // hyper keeps as much room for it as it takes, also while the connection is idle.
            let answer = Box::pin(handle(request, peers.clone()));
            async move {
                let mut response = answer.await;
                if is_http1 && in_flight.activity().order() != Order::Serve {
                    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                let deliver = if is_http1 { Delivery::http1 } else { Delivery::http2 };
                Ok::<_, Infallible>(response.map(|body| deliver(body, reserved, in_flight)))
            }
        })
    };
    let mut connection = pin!(http.serve_connection(TokioIo::new(socket), service).into_owned());
    let mut look = pin!(tokio::time::sleep(timeouts.head.min(timeouts.send).min(timeouts.idle)));
    let mut order = Order::Serve;
    // From then on it may take `GRACE`.
    let mut finishing = false;
    let ended = std::future::poll_fn(|context| {
        activity.register(context.waker());
        loop {
            if let Poll::Ready(result) = connection.as_mut().poll(context) {
                return Poll::Ready(result.map_err(|error| error.to_string()));
            }
            let ordered = activity.order();
            if look.as_mut().poll(context).is_pending() && ordered == order && !activity.take_news() {
                return Poll::Pending;
            }
            if finishing && look.is_elapsed() {
                return Poll::Ready(Err("it did not end in time".into()));
            }
            // A client of HTTP/2 is told which requests are still answered; on HTTP/1 the next answer says that it is the last.
            let goes_away = ordered == Order::Drain && order == Order::Serve && activity.is_http2();
            order = ordered;
            match activity.step(&timeouts) {
                Step::Abort(why) => return Poll::Ready(Err(why.into())),
                Step::Finish if !finishing => {
                    finishing = true;
                    connection.as_mut().graceful_shutdown();
                    reset(look.as_mut(), GRACE);
                }
                Step::Wait(time) if !finishing => {
                    if goes_away {
                        connection.as_mut().graceful_shutdown();
                    }
                    reset(look.as_mut(), time);
                }
                Step::Finish | Step::Wait(_) => {}
            }
        }
    });
    if let Err(why) = ended.await {
        tracing::debug!(%client, "connection ended: {why}");
    }
}

fn reset(sleep: Pin<&mut tokio::time::Sleep>, time: Duration) {
    sleep.reset(tokio::time::Instant::now() + time.max(Duration::from_millis(1)));
}

/// What a request holds beyond what its connection may: a large head, on HTTP/2 its stream and, with the first one, the windows.
fn reserve(
    request: &Request<Incoming>,
    budget: &ClientBudget,
    windows: &std::sync::Mutex<Option<Reservation>>,
) -> Option<Reservation> {
    let headers: usize = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
    let path = request.uri().path_and_query().map_or(0, |path| path.as_str().len());
    let head = (headers + path) as u64;
    let mut bytes = if head > SMALL_HEAD { head } else { 0 };
    if request.version() == Version::HTTP_2 {
        bytes += HTTP2_STREAM;
        let mut windows = windows.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if windows.is_none() {
            *windows = Some(budget.reserve(HTTP2_CONNECTION)?);
        }
    }
    budget.reserve(bytes)
}
