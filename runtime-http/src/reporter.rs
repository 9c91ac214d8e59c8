//! The reporter: tells Knative's queue-proxy how many CPU cores the container uses.
//!
//! The resource-aware fork's queue-proxy lets nothing in while that is above its threshold. It listens for a WebSocket; each report is a
//! binary message, [`SuperPodMetrics`] in protobuf. Where nobody listens, or the peer dies, it tries again for ever, ever less often,
//! and says so once. What the peer sends is read, so that it is not held up, and ignored.

use std::{
    fmt, io,
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{SinkExt, StreamExt};
use prometheus::IntGauge;
use prost::Message as _;
use tokio::{
    net::{TcpStream, lookup_host},
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{self, Message, protocol::WebSocketConfig},
};
use tokio_util::sync::CancellationToken;

use crate::{client::address, container::Container, cpu_window::CpuWindow, metrics::Metrics};

/// Connecting, handshake included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A peer that has not made room for a few bytes by then does not read.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// For the closing handshake, when the box shuts down.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// The longest wait between two tries.
const LONGEST_DELAY: Duration = Duration::from_secs(60);
/// What the peer may send at once; nothing is expected.
const LARGEST_MESSAGE: usize = 64 << 10;
/// Reports that a peer has not read lie here, and are of no use any more: so it is small.
const SEND_BUFFER: u32 = 8 << 10;

/// What is sent.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct SuperPodMetrics {
    /// Cores in use.
    #[prost(double, tag = "1")]
    pub cpu_utilization: f64,
}

/// Where the queue-proxy is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueueProxyHost {
    None,
    Named(String),
}

impl Default for QueueProxyHost {
    /// In a Knative pod it is in the same network namespace.
    fn default() -> Self {
        QueueProxyHost::Named("127.0.0.1".into())
    }
}

impl FromStr for QueueProxyHost {
    type Err = &'static str;

    /// The original's manifests write `ws://127.0.0.1`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let host = text.strip_prefix("ws://").unwrap_or(text);
        let host = host.strip_suffix('/').unwrap_or(host);
        if host == "none" {
            return Ok(QueueProxyHost::None);
        }
        let has_port = host.matches(':').count() == 1;
        if host.is_empty() || has_port || host.contains(|letter: char| letter == '/' || letter.is_whitespace()) {
            return Err("expected a host's name or address, without a port, also with ws:// before it, or none");
        }
        Ok(QueueProxyHost::Named(host.to_owned()))
    }
}

impl fmt::Display for QueueProxyHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            QueueProxyHost::None => "none",
            QueueProxyHost::Named(host) => host,
        })
    }
}

/// Whom to report to, and how often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReporterSettings {
    pub host: String,
    pub port: u16,
    pub period: Duration,
    /// How many periods are averaged.
    pub window: usize,
    /// The wait before the first tries.
    pub retry_delay: Duration,
    /// Tries at that delay; after them it doubles each time.
    pub max_retries: u32,
}

#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("{0}")]
    Connect(#[from] io::Error),
    #[error("{0}")]
    WebSocket(#[from] tungstenite::Error),
    #[error("no answer within {CONNECT_TIMEOUT:?}")]
    Silent,
    #[error("it has not read for {WRITE_TIMEOUT:?}")]
    NotReading,
    #[error("it closed the connection")]
    Closed,
}

/// The reporter's task; [`Reporter::run`] is all of it.
pub struct Reporter {
    settings: ReporterSettings,
    container: Arc<Container>,
    metrics: Arc<Metrics>,
}

/// Connected, as long as it lives.
struct Connected<'a>(&'a IntGauge);

impl<'a> Connected<'a> {
    fn new(gauge: &'a IntGauge) -> Connected<'a> {
        gauge.set(1);
        Connected(gauge)
    }
}

impl Drop for Connected<'_> {
    fn drop(&mut self) {
        self.0.set(0);
    }
}

impl Reporter {
    pub fn new(settings: ReporterSettings, container: Arc<Container>, metrics: Arc<Metrics>) -> Reporter {
        Reporter { settings, container, metrics }
    }

    /// Reports until `end` is cancelled; then closes the connection, within a second.
    pub async fn run(self, end: CancellationToken) {
        let address = address(&self.settings.host, self.settings.port);
        let mut failures = 0;
        // Whether the log knows that nobody is there.
        let mut said = false;
        loop {
            let connecting = tokio::select! {
                connected = connect(&address) => connected,
                () = end.cancelled() => return,
            };
            let lost = match connecting {
                Ok(mut socket) => {
                    let _connected = Connected::new(&self.metrics.reporter_connected);
                    let before = self.metrics.reports.get();
                    let lost = tokio::select! {
                        lost = self.report(&mut socket, &address) => lost,
                        () = end.cancelled() => {
                            close(socket).await;
                            return;
                        }
                    };
                    // One that lets itself be connected to, and no more, is as good as none.
                    if self.metrics.reports.get() > before {
                        (said, failures) = (false, 0);
                    }
                    lost
                }
                Err(lost) => lost,
            };
            failures += 1;
            if said {
                tracing::debug!(%address, failures, "no queue-proxy: {lost}");
            } else {
                tracing::info!(%address, "no queue-proxy: {lost}; trying again, quietly (QP_HOST=none: not at all)");
                said = true;
            }
            tokio::select! {
                () = sleep(delay(&self.settings, failures)) => {}
                () = end.cancelled() => return,
            }
        }
    }

    /// Returns when the connection is of no use any more.
    async fn report(&self, socket: &mut WebSocketStream<TcpStream>, address: &str) -> Lost {
        let mut said = false;
        let mut cpu = CpuWindow::new(self.settings.window);
        let read = |cpu: &mut CpuWindow| {
            if let Some(used) = self.container.cpu_time() {
                cpu.read(Instant::now(), used);
            }
        };
        read(&mut cpu);
        let mut period = interval(self.settings.period);
        // What was missed is too late.
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick is at once, when there is nothing to average yet.
        period.tick().await;
        loop {
            tokio::select! {
                _ = period.tick() => {
                    read(&mut cpu);
                    let report = SuperPodMetrics { cpu_utilization: cpu.cores() };
                    match timeout(WRITE_TIMEOUT, socket.send(Message::Binary(report.encode_to_vec().into()))).await {
                        Ok(Ok(())) => {
                            self.metrics.reports.inc();
                            if !std::mem::replace(&mut said, true) {
                                tracing::info!(%address, "reporting CPU utilization to the queue-proxy");
                            }
                        }
                        Ok(Err(error)) => return error.into(),
                        Err(_) => return Lost::NotReading,
                    }
                }
                received = socket.next() => match received {
                    Some(Ok(Message::Close(_))) | None => return Lost::Closed,
                    // Pings are answered by the protocol's implementation.
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return error.into(),
                },
            }
        }
    }
}

async fn connect(address: &str) -> Result<WebSocketStream<TcpStream>, Lost> {
    timeout(CONNECT_TIMEOUT, async {
        let stream = connect_tcp(address).await?;
        let config = WebSocketConfig::default()
            .read_buffer_size(4 << 10)
            .write_buffer_size(0)
            .max_write_buffer_size(LARGEST_MESSAGE)
            .max_message_size(Some(LARGEST_MESSAGE))
            .max_frame_size(Some(LARGEST_MESSAGE));
        // The path that the original asks for.
        let (socket, _) = client_async_with_config(format!("ws://{address}/"), stream, Some(config)).await?;
        Ok(socket)
    })
    .await
    .map_err(|_| Lost::Silent)?
}

/// To the first of the addresses that answers, with little room for what is not read.
async fn connect_tcp(address: &str) -> io::Result<TcpStream> {
    let mut error = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in lookup_host(address).await? {
        let socket = if address.is_ipv4() { tokio::net::TcpSocket::new_v4() } else { tokio::net::TcpSocket::new_v6() }?;
        socket.set_send_buffer_size(SEND_BUFFER)?;
        socket.set_nodelay(true)?;
        match socket.connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(refused) => error = refused,
        }
    }
    Err(error)
}

/// Says goodbye, and waits for the answer.
async fn close(mut socket: WebSocketStream<TcpStream>) {
    let goodbye = async {
        socket.close(None).await?;
        while let Some(message) = socket.next().await {
            message?;
        }
        Ok::<_, tungstenite::Error>(())
    };
    match timeout(CLOSE_TIMEOUT, goodbye).await {
        Ok(Ok(()) | Err(tungstenite::Error::ConnectionClosed)) => {}
        Ok(Err(error)) => tracing::debug!("closing the connection to the queue-proxy: {error}"),
        Err(_) => tracing::debug!("the queue-proxy did not answer the end of the connection"),
    }
}

/// The wait after the `failures`th try in a row, from 1.
fn delay(settings: &ReporterSettings, failures: u32) -> Duration {
    let doublings = failures.saturating_sub(settings.max_retries.max(1)).min(16);
    (settings.retry_delay * 2_u32.pow(doublings)).min(LONGEST_DELAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_doubles_after_the_first_tries_and_ends_at_a_minute() {
        let settings = |retry_delay, max_retries| ReporterSettings {
            host: "127.0.0.1".into(),
            port: 9096,
            period: Duration::from_millis(50),
            window: 5,
            retry_delay: Duration::from_secs(retry_delay),
            max_retries,
        };
        let delays = |settings| [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 1000, u32::MAX].map(|n| delay(&settings, n).as_secs());
        assert_eq!(delays(settings(2, 5)), [2, 2, 2, 2, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(delays(settings(1, 0)), [1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60, 60]);
        assert_eq!(delays(settings(60, 3)), [60; 12]);
    }

    #[test]
    fn hosts_are_names_addresses_or_the_originals_urls() {
        let named = |text: &str| Ok(QueueProxyHost::Named(text.into()));
        assert_eq!("ws://127.0.0.1".parse(), named("127.0.0.1"));
        assert_eq!("ws://queue-proxy/".parse(), named("queue-proxy"));
        assert_eq!("::1".parse(), named("::1"));
        assert_eq!("none".parse(), Ok(QueueProxyHost::None));
        for bad in ["", "ws://", "wss://host", "http://host", "host/path", "two hosts"] {
            assert!(bad.parse::<QueueProxyHost>().is_err(), "{bad}");
        }
    }

    /// One field, a double, number 1: as protoc of the original's superpod_metrics.proto writes it.
    #[test]
    fn the_message_is_the_originals() {
        let bytes = SuperPodMetrics { cpu_utilization: 1.5 }.encode_to_vec();
        assert_eq!(bytes, [0x09, 0, 0, 0, 0, 0, 0, 0xf8, 0x3f]);
    }
}
