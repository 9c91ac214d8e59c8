//! One connection to a server, HTTP/1.1 or HTTP/2, with one request at a time.
//!
//! One at a time also on HTTP/2, so that what an invocation holds is known, and its end ends its connections, nobody else's.
//! What drives a connection is one task, which its owner ends by dropping it.

use std::pin::Pin;

use futures_util::{StreamExt, stream::FuturesUnordered};
use http::{Request, Response, Version, header};
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1, http2},
    rt::Executor,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{OwnedSemaphorePermit, mpsc},
};
use wasmtime_wasi_http::Error;

use super::{failure, request_body::RequestBody};
use crate::{allocator::HeldBytes, exchange::budget::Reservation, tasks::Owned};

/// The largest head of a response, and the most that is read or written at once, bytes.
const BUFFER: usize = 32 << 10;
/// What of a body may be on its way on HTTP/2, bytes.
const WINDOW: u32 = 256 << 10;
/// The most bytes that a connection may hold while it is used: its buffers on HTTP/1.1 (one that is read into, one that the body's reader has
/// not taken, one that is written); a window, two buffers and tables of header compression on HTTP/2; buffers of TLS.
pub const PLAIN_BYTES: usize = 128 << 10;
pub const SECURE_BYTES: usize = 512 << 10;
/// The same of an idle one, which has empty buffers.
pub const IDLE_BYTES: u64 = 64 << 10;
/// Tasks of hyper's for one connection with one request; three are known.
const TASKS: usize = 16;

/// A connection. Dropping it closes it.
pub struct Connection {
    sender: Sender,
    _driver: Owned<()>,
    /// The descriptor, of the function's and of all.
    _places: [OwnedSemaphorePermit; 2],
    /// `None` until its first response has begun.
    pub owner: Option<ConnectionOwner>,
}

/// For whom what a connection holds counts.
pub enum ConnectionOwner {
    Invocation {
        _memory: HeldBytes,
        _place: OwnedSemaphorePermit,
    },
    /// It is idle.
    Function {
        _memory: Reservation,
    },
}

enum Sender {
    Http1(http1::SendRequest<RequestBody>),
    Http2(http2::SendRequest<RequestBody>),
}

/// There is no response.
pub struct Unanswered {
    pub error: Error,
    /// The request, if nothing of it was sent.
    pub unsent: Option<Box<Request<RequestBody>>>,
}

/// What carries the bytes.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

impl Connection {
    /// Begins to speak HTTP on `stream`. Must be called in the context in which it is to be driven.
    ///
    /// # Errors
    /// If the server does not begin to speak HTTP/2.
    pub async fn open(
        stream: impl Stream,
        is_http2: bool,
        places: [OwnedSemaphorePermit; 2],
    ) -> Result<Connection, Error> {
        let io = TokioIo::new(stream);
        let (sender, driver) = if is_http2 {
            let (spawn, mut spawned) = mpsc::channel(TASKS);
            let driver = async move {
                let mut tasks = FuturesUnordered::new();
                // Until nobody can start another one, and all have ended.
                loop {
                    tokio::select! {
                        task = spawned.recv() => match task {
                            Some(task) => tasks.push(task),
                            None => break,
                        },
                        Some(()) = tasks.next() => {}
                    }
                }
                while tasks.next().await.is_some() {}
            };
            let driver = Owned(tokio::spawn(driver));
            let (sender, connection) = http2::Builder::new(Tasks(spawn.clone()))
                .initial_stream_window_size(WINDOW)
                .initial_connection_window_size(WINDOW)
                .max_send_buf_size(BUFFER)
                .max_header_list_size(BUFFER as u32)
                .handshake(io)
                .await
                .map_err(|error| failure::of_head(&error))?;
            Tasks(spawn).execute(async move {
                let _ = connection.await;
            });
            (Sender::Http2(sender), driver)
        } else {
            let (sender, connection) = http1::Builder::new()
                .max_buf_size(BUFFER)
                .handshake(io)
                .await
                .map_err(|error| failure::of_head(&error))?;
            let driver = tokio::spawn(async move {
                // What goes wrong is told to who waits for the response.
                let _ = connection.await;
            });
            (Sender::Http1(sender), Owned(driver))
        };
        Ok(Connection { sender, _driver: driver, _places: places, owner: None })
    }

    pub fn is_http2(&self) -> bool {
        matches!(self.sender, Sender::Http2(_))
    }

    pub fn is_closed(&self) -> bool {
        match &self.sender {
            Sender::Http1(sender) => sender.is_closed(),
            Sender::Http2(sender) => sender.is_closed(),
        }
    }

    /// Waits until what was before is over; `false` if it is closed.
    pub async fn is_ready(&mut self) -> bool {
        let ready = match &mut self.sender {
            Sender::Http1(sender) => sender.ready().await,
            Sender::Http2(sender) => sender.ready().await,
        };
        ready.is_ok()
    }

    /// Sends `request`, whose URI is absolute, and waits for the head of the response.
    ///
    /// # Errors
    /// [`Unanswered`]; the connection is of no use then.
    pub async fn send(&mut self, mut request: Request<RequestBody>) -> Result<Response<Incoming>, Unanswered> {
        let absolute = request.uri().clone();
        let unanswered = |error: TrySendError<Request<RequestBody>>| {
            unanswered(error, |mut unsent| {
                *unsent.uri_mut() = absolute;
                unsent
            })
        };
        match &mut self.sender {
            Sender::Http1(sender) => {
                let path = request.uri().path_and_query().cloned();
                *request.uri_mut() = path.unwrap_or_else(|| http::uri::PathAndQuery::from_static("/")).into();
                *request.version_mut() = Version::HTTP_11;
                sender.try_send_request(request).await.map_err(unanswered)
            }
            Sender::Http2(sender) => {
                // The URI says it.
                let host = request.headers_mut().remove(header::HOST);
                *request.version_mut() = Version::HTTP_2;
                sender.try_send_request(request).await.map_err(|error| {
                    let mut unanswered = unanswered(error);
                    if let (Some(unsent), Some(host)) = (&mut unanswered.unsent, host) {
                        unsent.headers_mut().insert(header::HOST, host);
                    }
                    unanswered
                })
            }
        }
    }
}

fn unanswered(
    mut error: TrySendError<Request<RequestBody>>,
    restore: impl FnOnce(Request<RequestBody>) -> Request<RequestBody>,
) -> Unanswered {
    let unsent = error.take_message().map(restore).map(Box::new);
    Unanswered { error: failure::of_head(error.error()), unsent }
}

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Gives hyper's tasks to the connection's one.
#[derive(Clone)]
struct Tasks(mpsc::Sender<Task>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, future: F) {
        // There are as many places as tasks of one request; with more the connection would be broken.
        let _ = self.0.try_send(Box::pin(future));
    }
}
