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

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    status: StatusCode,
    /// `Server-Timing`, empty if there is none.
    timing: String,
    body: Bytes,
    /// From sending the request to having all of it.
    pub latency: Duration,
}

impl Answer {
    /// # Errors
    ///
    /// When it is not 200.
    pub fn ok(&self) -> Result<()> {
        ensure!(self.status == StatusCode::OK, "answered {}: {}", self.status, String::from_utf8_lossy(&self.body));
        Ok(())
    }

    /// The duration called `name` in `Server-Timing`.
    pub fn timing(&self, name: &str) -> Option<Duration> {
        let entry = self.timing.split(", ").find_map(|entry| entry.strip_prefix(name)?.strip_prefix(";dur="))?;
        Some(Duration::from_secs_f64(entry.parse::<f64>().ok().filter(|ms| *ms >= 0.0)? / 1000.0))
    }
}

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
                && let Ok(Answer { status: StatusCode::OK, .. }) = connection.get(path, &[]).await
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

    /// Connects to a server that is up.
    ///
    /// # Errors
    ///
    /// When it does not accept.
    pub async fn open(port: u16) -> Result<Self> {
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
        let answer = self.get(path, &[]).await?;
        answer.ok()?;
        ensure!(answer.body == HELLO, "GET {path} answered: {}", String::from_utf8_lossy(&answer.body));
        Ok(answer.latency)
    }

    /// One request, with further headers.
    ///
    /// # Errors
    ///
    /// When there is no whole answer.
    pub async fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> Result<Answer> {
        let start = Instant::now();
        let request = headers.iter().fold(Request::get(path), |request, (name, value)| request.header(*name, *value));
        let request =
            request.header("host", "127.0.0.1").body(Empty::new()).with_context(|| format!("{path} is not a path"))?;
        let exchange = async {
            self.sender.ready().await?;
            let (head, body) = self.sender.send_request(request).await?.into_parts();
            let body = body.collect().await?.to_bytes();
            let timing = head.headers.get("server-timing").and_then(|value| value.to_str().ok());
            let timing = timing.unwrap_or_default().to_owned();
            Ok(Answer { status: head.status, timing, body, latency: start.elapsed() })
        };
        timeout(ANSWER_LIMIT, exchange)
            .await
            .with_context(|| format!("GET {path}: no answer after {ANSWER_LIMIT:?}"))?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timings_are_read() {
        let timing = "queue;dur=0.001, compile;dur=0.020, cgroup;dur=0.153, exec;dur=1.500".to_owned();
        let answer = Answer { status: StatusCode::OK, timing, body: Bytes::new(), latency: Duration::ZERO };
        assert_eq!(answer.timing("cgroup"), Some(Duration::from_micros(153)));
        assert_eq!(answer.timing("exec"), Some(Duration::from_micros(1500)));
        assert_eq!(answer.timing("gc"), None);
    }
}
