//! The ceiling: a bare hyper HTTP/1.1 server that answers `hello`, with nothing behind it.

use std::convert::Infallible;
use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::Full;
use hyper::Response;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// The threads that serve.
const THREADS: usize = 2;

/// Serves on `port` of the loopback interface until the process is ended.
///
/// # Errors
///
/// When the port cannot be bound.
pub fn serve(port: u16) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .await
            .with_context(|| format!("cannot listen on port {port}"))?;
        // The accept loop runs on a worker too: on the main thread, each accept would cross threads.
        tokio::spawn(accept(listener)).await.context("the accept loop ended")
    })
}

async fn accept(listener: TcpListener) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        // Without it an answer may wait for the client's delayed acknowledgement.
        let _ = stream.set_nodelay(true);
        tokio::spawn(async move {
            let hello = service_fn(async |_request| {
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"hello\n"))))
            });
            // An error here is a client that left.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), hello).await;
        });
    }
}
