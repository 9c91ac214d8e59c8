//! The live state of a box as one document: `/status` of the admin port.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use serde::{Deserialize, Serialize};

use crate::{container::Container, core::Core, readiness};

/// What a box tells of itself. Fields may be added; readers take what they know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    /// `--pod-name`.
    pub pod: String,
    pub pid: u32,
    pub uptime_seconds: f64,
    pub readiness: readiness::Report,
    /// The most at once.
    pub capacity: Load,
    /// The most units that wait.
    pub queue_units: u64,
    /// So many wait even if their units are more.
    #[serde(default)]
    pub queue_invocations: u64,
    pub in_flight: Load,
    pub queued: Load,
    /// What is short beside the units, so that nothing new starts: `cpu`, `memory`.
    pub closed_gates: Vec<String>,
    pub workers: u64,
    pub connections: u64,
    pub memory: Memory,
    /// Cores in use by the container, averaged over a fifth of a second.
    pub cpu_cores: f64,
    /// Whether a queue-proxy is told so.
    pub reporter_connected: bool,
    /// Running invocations by function.
    pub functions: BTreeMap<String, u64>,
    /// Invocations that have ended, by the status of their answer.
    pub invocations: BTreeMap<String, u64>,
    /// Requests that were refused before an invocation was begun, by problem code.
    pub rejected: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    pub invocations: u64,
    /// MiB of `Memory-Request`.
    pub units: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    pub working_set_bytes: Option<u64>,
    pub limit_bytes: u64,
    /// `cgroup` or `process`.
    pub source: String,
}

/// Where the document comes from.
pub struct StatusSource {
    started: Instant,
    core: Arc<Core>,
    pod: String,
    container: Arc<Container>,
}

impl StatusSource {
    pub fn new(core: Arc<Core>, pod: String, container: Arc<Container>) -> StatusSource {
        StatusSource { started: Instant::now(), core, pod, container }
    }

    /// The state now.
    pub fn read(&self) -> Status {
        let metrics = &self.core.metrics;
        let admission = self.core.admission.snapshot();
        let load = |invocations: usize, units| Load { invocations: invocations as u64, units };
        let number = |value: i64| u64::try_from(value).unwrap_or(0);
        Status {
            version: env!("CARGO_PKG_VERSION").into(),
            pod: self.pod.clone(),
            pid: std::process::id(),
            uptime_seconds: self.started.elapsed().as_secs_f64(),
            readiness: self.core.readiness.explain(self.core.is_draining()),
            capacity: load(admission.capacity.invocations, admission.capacity.units),
            queue_units: admission.capacity.depth,
            queue_invocations: admission.capacity.depth_invocations as u64,
            in_flight: load(admission.in_flight_invocations, admission.in_flight_units),
            queued: load(admission.waiting_invocations, admission.waiting_units),
            closed_gates: admission.closed_gates.iter().map(|gate| gate.name().to_owned()).collect(),
            workers: number(metrics.workers.get()),
            connections: number(metrics.connections.get()),
            memory: Memory {
                working_set_bytes: self.container.working_set(),
                limit_bytes: self.core.sizing.now().memory_limit,
                source: self.container.memory_source().into(),
            },
            cpu_cores: metrics.cpu_cores_in_use.get(),
            reporter_connected: metrics.reporter_connected.get() == 1,
            functions: metrics.in_flight_by_function(),
            invocations: metrics.invocations_by_status(),
            rejected: metrics.rejected_by_code(),
        }
    }
}
