//! Traces: which trace an invocation belongs to, what its guest is told of it, and its spans for a collector of OpenTelemetry (OTLP by HTTP).
//!
//! All of it is off, unless the operator names a collector. Spans are made when an invocation has ended, from what its record knows, on the exporter's
//! thread; whoever ends it only puts the record into a bounded queue, or counts that there was no room. Nothing of a request is in a span but its
//! method, the beginning of its path, and what its headers say of the trace.
//!
//! The messages are few and do not change, so they are written out in [`otlp`]: OpenTelemetry's SDK would bring queues, threads and a client of its own.
//!
//! - [`context`]: the headers; [`sampler`]: of which invocations spans are recorded
//! - [`invocation`]: the trace of one; [`spans`]: what becomes of it; [`otlp`]: as it is sent
//! - [`endpoint`]: where it is sent; [`exporter`]: the thread that sends it; [`delivery`]: one request to the collector

pub mod context;
mod delivery;
pub mod endpoint;
pub mod exporter;
pub mod invocation;
pub mod otlp;
pub mod sampler;
pub mod spans;

use std::{sync::Arc, time::Instant};

use http::{Request, StatusCode};
use tokio::sync::mpsc;

pub use self::{
    exporter::{Exporter, ExporterSettings},
    invocation::{InvocationTrace, Propagated},
};
use self::{invocation::Ended, sampler::Sampler};
use crate::{invocation::trace_id::TraceId, limits::Limits, metrics::TraceMetrics, metrics::traces::Lost};

/// The traces of a box that has a collector.
pub struct Traces {
    sampler: Sampler,
    queue: mpsc::Sender<Ended>,
    metrics: TraceMetrics,
}

impl Traces {
    fn new(sampler: Sampler, queue: mpsc::Sender<Ended>, metrics: TraceMetrics) -> Arc<Traces> {
        Arc::new(Traces { sampler, queue, metrics })
    }

    /// The trace of an invocation that is to begin; `request` says then what its guest is to be told of it.
    pub fn begin<B>(self: &Arc<Self>, request: &mut Request<B>, limits: Limits, arrived: Instant) -> InvocationTrace {
        self.of(request, Some(limits), arrived)
    }

    /// Records a request that is answered with this status and code before its function is ready, if there is much room. Gives the trace that it is in.
    pub fn refused<B>(
        self: &Arc<Self>,
        request: &mut Request<B>,
        answer: (StatusCode, &'static str),
        arrived: Instant,
    ) -> TraceId {
        let trace = self.of(request, None, arrived);
        let id = trace.id();
        // Anybody can be refused, and often: half of the queue is for invocations alone.
        if trace.is_sampled() && self.queue.capacity() > self.queue.max_capacity() / 2 {
            Ended::refused(trace, answer, arrived.elapsed()).export();
        }
        id
    }

    fn of<B>(self: &Arc<Self>, request: &mut Request<B>, limits: Option<Limits>, arrived: Instant) -> InvocationTrace {
        let (method, uri) = (invocation::known_method(request.method()), request.uri().clone());
        InvocationTrace::begin(self, request.headers_mut(), (method, &uri), limits, arrived)
    }

    fn export(&self, ended: Ended) {
        if self.queue.try_send(ended).is_err() {
            self.metrics.dropped(Lost::Queue, 1);
        }
    }
}
