//! What a box consists of, whoever asks it: the API, the admin port, the sampler.

use std::{sync::Arc, time::Duration};

use crate::{
    admission::Admission, invocation::CancelReason, memory::MemoryBudget, metrics::Metrics, readiness::Readiness,
    store::ModuleStore, worker::WorkerPool,
};

/// How long invocations that were cancelled at the end of the drain time may take to end.
const CANCEL_TIME: Duration = Duration::from_secs(2);

pub struct Core {
    pub store: Arc<ModuleStore>,
    /// It also knows whether the box shuts down.
    pub admission: Arc<Admission>,
    pub workers: WorkerPool,
    pub memory: Arc<MemoryBudget>,
    pub metrics: Arc<Metrics>,
    pub readiness: Readiness,
}

impl Core {
    /// New work is refused; running work may end, and is cancelled after `timeout`.
    pub async fn drain(&self, timeout: Duration) {
        self.admission.drain();
        if tokio::time::timeout(timeout, self.admission.idle()).await.is_err() {
            let in_flight = self.admission.in_flight();
            tracing::warn!(in_flight, "the drain time is over: stopping what still runs");
            self.workers.cancel_all(CancelReason::Draining);
            if tokio::time::timeout(CANCEL_TIME, self.admission.idle()).await.is_err() {
                tracing::error!(in_flight = self.admission.in_flight(), "some invocations did not stop");
            }
        }
    }

    pub fn is_draining(&self) -> bool {
        self.admission.is_draining()
    }
}
