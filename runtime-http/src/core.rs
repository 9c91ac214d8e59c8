//! What a box consists of, whoever asks it: the API, the admin port, the sampler.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use crate::{
    admission::Admission, exchange::budget::Budgets, invocation::CancelReason, memory::MemoryBudget, metrics::Metrics,
    readiness::Readiness, sandbox::KeptInstances, sizing::Sizing, store::ModuleStore, worker::WorkerPool,
};

/// How long invocations that were cancelled at the end of the drain time may take to end.
const CANCEL_TIME: Duration = Duration::from_secs(2);

pub struct Core {
    pub store: Arc<ModuleStore>,
    pub admission: Arc<Admission>,
    pub workers: WorkerPool,
    pub memory: Arc<MemoryBudget>,
    /// Those that wait for their functions' next requests.
    pub instances: Arc<KeptInstances>,
    /// What requests and answers may hold outside of invocations.
    pub budgets: Budgets,
    /// The same, of the admin port.
    pub admin_budgets: Budgets,
    pub metrics: Arc<Metrics>,
    pub readiness: Readiness,
    pub sizing: Arc<Sizing>,
    /// Set once, when the box begins to shut down.
    pub draining: AtomicBool,
    /// Cancelled when the drain time is over.
    pub over: CancellationToken,
}

impl Core {
    /// From now on the box is not ready.
    pub fn set_draining(&self) {
        self.draining.store(true, Ordering::Release);
    }

    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Refuses what waits and what comes; cancels what runs, and waits for it.
    pub async fn end_invocations(&self) {
        self.over.cancel();
        self.admission.drain();
        self.workers.cancel_all(CancelReason::Draining);
        if tokio::time::timeout(CANCEL_TIME, self.admission.idle()).await.is_err() {
            tracing::error!(in_flight = self.admission.in_flight(), "some invocations did not stop");
        }
    }
}
