//! The thread that turns invocations that have ended into spans, and sends them.
//!
//! What it holds is bounded: a queue, and one batch, which is sent until it is taken, refused, or too old. Meanwhile the queue fills, and what does not
//! fit is lost, and counted. Nothing waits for it but the end of the box, for two seconds.

use std::{
    io,
    sync::{
        Arc,
        mpsc::{Receiver, sync_channel},
    },
    time::Duration,
};

use bytes::Bytes;
use prost::Message;
use tokio::{
    runtime::{Builder, Runtime},
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    Traces,
    delivery::{Answered, Delivery},
    endpoint::{Endpoint, OtlpHeaders, ResourceAttributes},
    invocation::Ended,
    otlp::{ExportRequest, KeyValue, Resource, ResourceSpans, Scope, ScopeSpans, attribute},
    sampler::Sampler,
    spans::spans,
};
use crate::{
    invocation::trace_id::random,
    metrics::TraceMetrics,
    metrics::traces::Lost,
    threads::ThreadStart,
    tls::{HTTP_1, Roots, TlsClient},
};

/// Invocations that are sent together: some hundred spans, less than 1 MiB.
const BATCH: usize = 128;
/// How long the first of them waits for others.
const GATHER: Duration = Duration::from_secs(1);
/// The queue has one place for so many bytes of the box's memory limit. What is queued is about 1 KiB, 2 KiB at most.
const PLACE_PART: u64 = 256 << 10;
const LEAST_PLACES: u64 = 128;
const MOST_PLACES: u64 = 2048;
/// Between two tries, and up to a quarter more; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// For how long a batch is tried.
const RETRY_TIME: Duration = Duration::from_secs(60);
/// Between two lines of the log on a collector that does not take them.
const SAY_EACH: Duration = Duration::from_secs(60);
/// For what is left at the end, the log's line included.
const FLUSH: Duration = Duration::from_secs(2);
/// Until the thread has seen that it is over.
const JOIN: Duration = Duration::from_secs(1);

/// Where traces go, and what of them.
#[derive(Debug, Clone, PartialEq)]
pub struct ExporterSettings {
    pub endpoint: Endpoint,
    pub headers: OtlpHeaders,
    pub attributes: ResourceAttributes,
    /// Over what the attributes say.
    pub service_name: Option<String>,
    pub sampler: Sampler,
    /// Certificates of those who vouch for the collector; `None`: the system's.
    pub ca: Option<std::path::PathBuf>,
}

impl ExporterSettings {
    /// What all spans say of this box, `pod`.
    fn resource(&self, pod: &str) -> Resource {
        const VERSION: &str = env!("CARGO_PKG_VERSION");
        let mut attributes: Vec<KeyValue> = Vec::new();
        let named = self.service_name.as_deref().map(|name| ("service.name", name));
        let given = self.attributes.0.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let own = [
            ("service.name", "wasmbox"),
            ("service.version", VERSION),
            ("service.instance.id", pod),
            ("telemetry.sdk.name", "wasmbox"),
            ("telemetry.sdk.language", "rust"),
            ("telemetry.sdk.version", VERSION),
        ];
        for (name, value) in named.into_iter().chain(given).chain(own) {
            if attributes.iter().all(|other| other.key != name) {
                attributes.push(attribute(name, value));
            }
        }
        Resource { attributes }
    }
}

/// Owns the thread. Dropping it sends what is left, in two seconds.
pub struct Exporter {
    runtime: Option<Runtime>,
    end: CancellationToken,
    /// Closed when it is over.
    over: Receiver<()>,
}

impl Exporter {
    /// Starts the thread; gives what invocations tell of themselves.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(
        settings: &ExporterSettings,
        roots: &Roots,
        pod: &str,
        memory_limit: u64,
        metrics: TraceMetrics,
        thread_start: ThreadStart,
    ) -> io::Result<(Exporter, Arc<Traces>)> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            // It looks a name up, now and then.
            .max_blocking_threads(1)
            .thread_name("traces")
            .on_thread_start(move || thread_start())
            .enable_all()
            .build()?;
        let places = (memory_limit / PLACE_PART).clamp(LEAST_PLACES, MOST_PLACES);
        let (sender, queue) = mpsc::channel(usize::try_from(places).unwrap_or(BATCH));
        let tls = settings.endpoint.secure.then(|| TlsClient::new(roots, &HTTP_1));
        let end = CancellationToken::new();
        let sending = Sending {
            queue,
            delivery: Delivery::new(settings.endpoint.clone(), settings.headers.clone(), tls),
            resource: settings.resource(pod),
            metrics: metrics.clone(),
            end: end.clone(),
            not_before: None,
            said: None,
            is_said: false,
        };
        metrics.exemplars.turn_on();
        let (running, over) = sync_channel(1);
        runtime.spawn(async move {
            sending.run().await;
            drop(running);
        });
        Ok((Exporter { runtime: Some(runtime), end, over }, Traces::new(settings.sampler, sender, metrics)))
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.end.cancel();
        let _ = self.over.recv_timeout(FLUSH + JOIN);
        // A thread that looks a name up is left behind.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// `pause` and up to a quarter of it, so that many boxes do not come back at the same moment.
fn spread(pause: Duration) -> Duration {
    pause + pause.mul_f64(random() as f64 / u64::MAX as f64 / 4.0)
}

struct Sending {
    queue: mpsc::Receiver<Ended>,
    delivery: Delivery,
    resource: Resource,
    metrics: TraceMetrics,
    end: CancellationToken,
    /// The collector has asked for a pause, or there is none.
    not_before: Option<Instant>,
    /// When the log was last told that it does not take them, and whether that is what the log knows.
    said: Option<Instant>,
    is_said: bool,
}

impl Sending {
    async fn run(mut self) {
        let end = self.end.clone();
        let mut batch = Vec::new();
        let sending = async {
            while self.gather(&mut batch).await {
                self.send(&mut batch).await;
            }
        };
        let late = async {
            end.cancelled().await;
            sleep(FLUSH).await;
        };
        tokio::select! { () = sending => {}, () = late => {} }
        let mut left = batch.len();
        while self.queue.try_recv().is_ok() {
            left += 1;
        }
        if left > 0 {
            self.metrics.dropped(Lost::Unreachable, left as u64);
            tracing::warn!("the spans of {left} invocations were not sent before the end");
        }
    }

    /// Fills `batch`; `false` when there will be nothing any more.
    async fn gather(&mut self, batch: &mut Vec<Ended>) -> bool {
        tokio::select! {
            received = self.queue.recv_many(batch, BATCH) => if received == 0 { return false },
            () = self.end.cancelled() => {}
        }
        let until = Instant::now() + GATHER;
        while batch.len() < BATCH && !self.end.is_cancelled() {
            let room = BATCH - batch.len();
            tokio::select! {
                received = self.queue.recv_many(batch, room) => if received == 0 { break },
                () = sleep_until(until) => break,
                () = self.end.cancelled() => {}
            }
        }
        while batch.len() < BATCH
            && let Ok(ended) = self.queue.try_recv()
        {
            batch.push(ended);
        }
        !batch.is_empty()
    }

    fn encode(&self, batch: &[Ended]) -> (Bytes, usize) {
        let spans: Vec<_> = batch.iter().flat_map(spans).collect();
        let count = spans.len();
        let scope = Scope { name: "wasmbox".into(), version: env!("CARGO_PKG_VERSION").into() };
        let scope_spans = vec![ScopeSpans { scope: Some(scope), spans }];
        let resource_spans = vec![ResourceSpans { resource: Some(self.resource.clone()), scope_spans }];
        (ExportRequest { resource_spans }.encode_to_vec().into(), count)
    }

    /// Sends `batch` until it is taken or lost, and empties it.
    async fn send(&mut self, batch: &mut Vec<Ended>) {
        let (body, spans) = self.encode(batch);
        let give_up = Instant::now() + RETRY_TIME;
        let mut pause = FIRST_PAUSE;
        let lost = loop {
            if let Some(time) = self.not_before.take().filter(|time| *time > Instant::now()) {
                if time > give_up {
                    self.not_before = Some(time);
                    break Some(Lost::Unreachable);
                }
                // At the end there is one more try.
                tokio::select! { () = sleep_until(time) => {}, () = self.end.cancelled() => {} }
            }
            let (reason, after) = match self.delivery.post(body.clone()).await {
                Ok(Answered::Taken { rejected }) => {
                    if rejected > 0 {
                        self.say(&format_args!("it does not want {rejected} of {spans} spans"));
                    } else {
                        self.taken();
                    }
                    // Of which invocations they are is not said: each has lost one span or more, so no more than that have.
                    let rejected = rejected.min(batch.len() as u64);
                    self.metrics.exported.inc_by(batch.len() as u64 - rejected);
                    // So nobody is led to a trace that may not be there.
                    if rejected == 0 {
                        for (ended, called) in batch.iter().filter_map(|ended| Some((ended, ended.called.as_ref()?))) {
                            self.metrics.exemplars.note(&called.label, ended.trace.id(), ended.total);
                        }
                    }
                    self.metrics.dropped(Lost::Refused, rejected);
                    break None;
                }
                Ok(Answered::Refused(status)) => {
                    self.say(&format_args!("it answers {status}"));
                    break Some(Lost::Refused);
                }
                Ok(Answered::Later { status, after }) => (format!("it answers {status}"), after),
                Err(error) => (error.to_string(), None),
            };
            self.say(&reason);
            if self.end.is_cancelled() {
                break Some(Lost::Unreachable);
            }
            self.not_before = Some(Instant::now() + spread(after.unwrap_or(pause).max(FIRST_PAUSE)));
            pause = (pause * 2).min(LONGEST_PAUSE);
        };
        if let Some(reason) = lost {
            self.metrics.dropped(reason, batch.len() as u64);
        }
        batch.clear();
    }

    /// At most one line in a minute; what the collector itself writes is not in it.
    fn say(&mut self, reason: &dyn std::fmt::Display) {
        let now = Instant::now();
        if self.said.is_none_or(|said| now >= said + SAY_EACH) {
            (self.said, self.is_said) = (Some(now), true);
            let (endpoint, dropped) = (self.delivery.endpoint(), self.metrics.all_dropped());
            tracing::warn!(%endpoint, dropped, "the collector does not take spans: {reason}; trying again, quietly; is it there, and --otlp-endpoint right?");
        }
    }

    fn taken(&mut self) {
        if std::mem::take(&mut self.is_said) {
            tracing::info!(endpoint = %self.delivery.endpoint(), "the collector takes spans again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_differ_and_are_never_shorter_than_asked_for() {
        let pauses: std::collections::HashSet<_> = (0..100).map(|_| spread(LONGEST_PAUSE)).collect();
        assert!(pauses.iter().all(|pause| (LONGEST_PAUSE..=LONGEST_PAUSE * 5 / 4).contains(pause)));
        assert!(pauses.len() > 90);
    }
}
