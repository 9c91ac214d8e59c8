//! One HTTP connection to a server under test: readiness, the check of the answer, and single latencies.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::process::Server;

/// What each function under test answers.
const HELLO: &[u8] = b"hello\n";

/// How long a server may take until it answers.
const START_LIMIT: Duration = Duration::from_secs(60);

/// How long one answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// Pause between two looks whether a server is up.
const POLL: Duration = Duration::from_millis(5);

/// A kept-alive connection.
pub struct Connection {
    sender: SendRequest<Empty<Bytes>>,
}

impl Connection {
    /// Connects to a server that is starting, as soon as it answers `path` with 200.
    ///
    /// # Errors
    ///
    /// When the server ends, or is not up after a minute: with the end of its log.
    pub async fn when_ready(server: &mut Server, port: u16, path: &str) -> Result<Self> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            if let Ok(mut connection) = Self::open(port).await
                && let Ok((StatusCode::OK, _)) = connection.get(path).await
            {
                return Ok(connection);
            }
            if server.has_ended() {
                bail!("it ended while starting. Its log:\n{}", server.log_tail());
            }
            if Instant::now() > deadline {
                bail!("no 200 from {path} after {START_LIMIT:?}. Its log:\n{}", server.log_tail());
            }
            sleep(POLL).await;
        }
    }

    async fn open(port: u16) -> Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        // It ends with the connection: when `sender` is dropped, or the server closes.
        tokio::spawn(connection);
        Ok(Self { sender })
    }

    /// One request for a function that answers `hello`, from sending it to having the whole answer.
    ///
    /// # Errors
    ///
    /// When the answer is another one.
    pub async fn hello(&mut self, path: &str) -> Result<Duration> {
        let start = Instant::now();
        let (status, body) = self.get(path).await?;
        let latency = start.elapsed();
        ensure!(
            status == StatusCode::OK && body == HELLO,
            "GET {path} answered {status}: {}",
            String::from_utf8_lossy(&body)
        );
        Ok(latency)
    }

    async fn get(&mut self, path: &str) -> Result<(StatusCode, Bytes)> {
        let request = Request::get(path)
            .header("host", "127.0.0.1")
            .body(Empty::new())
            .with_context(|| format!("{path} is not a path"))?;
        let exchange = async {
            self.sender.ready().await?;
            let response = self.sender.send_request(request).await?;
            let status = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            Ok((status, body))
        };
        timeout(ANSWER_LIMIT, exchange)
            .await
            .with_context(|| format!("GET {path}: no answer after {ANSWER_LIMIT:?}"))?
    }
}
