//! Every metric of the box, in Prometheus' text format. Function labels are bounded: see [`Metrics::function`].
//!
//! - [`function`]: those of one function; [`outbound`]: of requests that functions send; [`keyvalue`]: of what they keep; [`tier`]: of compilations;
//!   [`instance`]: of instances that are reused; [`upload`]: of functions that are put here; [`traces`]: of traces that are sent; [`worker`]: of slices and cgroups; [`declare`]: how metrics are made
//! - [`activity`]: what all functions do, without Prometheus; [`openmetrics`]: the other format, with traces

pub mod activity;
mod declare;
mod function;
mod instance;
mod keyvalue;
pub mod openmetrics;
mod outbound;
mod tier;
pub mod traces;
mod upload;
mod worker;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use prometheus::{
    Encoder, Gauge, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder,
    core::Collector,
};

use self::{activity::Activities, declare::Declare};
pub use self::{
    function::FunctionMetrics,
    instance::InstanceMetrics,
    keyvalue::KeyvalueMetrics,
    outbound::OutboundMetrics,
    tier::TierMetrics,
    traces::TraceMetrics,
    upload::UploadMetrics,
    worker::{CgroupMetrics, SliceMetrics},
};
use crate::{failures::Failures, function_log::LogSender};

/// After this many functions, further ones are counted together as [`OTHER_FUNCTIONS`].
const MOST_FUNCTIONS: usize = 200;
/// Not a module's name: those have no parentheses.
const OTHER_FUNCTIONS: &str = "(other)";

/// From 100 us to 60 s.
const SECONDS: &[f64] = &[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];
/// From 1 us to 100 ms.
const OPERATION_SECONDS: &[f64] =
    &[0.000001, 0.0000025, 0.000005, 0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.001, 0.01, 0.1];
/// From 64 KiB to 4 GiB.
const BYTES: &[f64] =
    &[65536.0, 262144.0, 1048576.0, 4194304.0, 16777216.0, 67108864.0, 268435456.0, 1073741824.0, 4294967296.0];

pub struct Metrics {
    registry: Registry,
    invocations: IntCounterVec,
    duration: HistogramVec,
    queue: HistogramVec,
    execution: HistogramVec,
    cpu: HistogramVec,
    throttled: HistogramVec,
    memory_peak: HistogramVec,
    in_flight: IntGaugeVec,
    outbound_duration: HistogramVec,
    functions: Mutex<HashMap<Arc<str>, Arc<FunctionMetrics>>>,
    pub activities: Activities,
    pub failures: Arc<Failures>,
    /// Where functions' lines go for whoever follows them. Set before the first function is loaded, or never.
    pub logs: OnceLock<LogSender>,
    pub tiers: TierMetrics,
    pub keyvalue: KeyvalueMetrics,
    pub cache: IntCounterVec,
    pub cached_modules: IntGauge,
    pub cached_bytes: IntGauge,
    pub rejected: IntCounterVec,
    pub admitted: IntCounter,
    /// 1 or 0, by gate.
    pub gate_closed: IntGaugeVec,
    pub in_flight_units: IntGauge,
    pub admissible_units: IntGauge,
    pub queued_invocations: IntGauge,
    pub queued_units: IntGauge,
    pub workers: IntGauge,
    pub worker_start_failures: IntCounter,
    pub slices: SliceMetrics,
    pub connections: IntGauge,
    pub requested_memory_bytes: IntGauge,
    pub working_set_bytes: IntGauge,
    pub memory_limit_bytes: IntGauge,
    pub guest_memory_bytes: IntGauge,
    pub growth_waits: IntCounter,
    pub evicted: IntCounter,
    pub cpu_cores_in_use: Gauge,
    pub lost_log_lines: IntCounter,
    pub reporter_connected: IntGauge,
    pub reports: IntCounter,
    pub outbound: OutboundMetrics,
    pub instances: InstanceMetrics,
    pub uploads: UploadMetrics,
    pub traces: TraceMetrics,
    pub cgroup: CgroupMetrics,
}

/// A gauge's value; what is too large for one is the largest.
pub fn gauge(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    pub fn new() -> Metrics {
        let registry = Registry::new();
        let declare = Declare { registry: &registry };
        let metrics = Metrics {
            invocations: declare.counters(
                "wasmbox_invocations_total",
                "Invocations by function and HTTP status.",
                &["function", "status"],
            ),
            duration: declare.histograms(
                "wasmbox_invocation_duration_seconds",
                "Time from arrival to the end of the answer.",
                SECONDS,
            ),
            queue: declare.histograms(
                "wasmbox_queue_duration_seconds",
                "Time an invocation waited for admission.",
                SECONDS,
            ),
            execution: declare.histograms(
                "wasmbox_execution_duration_seconds",
                "Time a guest ran, instantiation included.",
                SECONDS,
            ),
            cpu: declare.histograms("wasmbox_cpu_seconds", "CPU time of the worker for an invocation.", SECONDS),
            throttled: declare.histograms(
                "wasmbox_throttled_seconds",
                "Time for which its CPU quota kept an invocation from running; only where cgroups are in use.",
                SECONDS,
            ),
            memory_peak: declare.histograms(
                "wasmbox_memory_peak_bytes",
                "The most guest memory of an invocation.",
                BYTES,
            ),
            in_flight: declare.gauges("wasmbox_in_flight_invocations", "Invocations that are running.", &["function"]),
            activities: Activities::default(),
            failures: Arc::default(),
            logs: OnceLock::new(),
            tiers: TierMetrics::declare(&declare),
            keyvalue: KeyvalueMetrics::declare(&declare),
            cache: declare.counters(
                "wasmbox_cache_requests_total",
                "Look-ups of compiled code by cache (memory, disk, node) and result (hit, miss, refused).",
                &["cache", "result"],
            ),
            cached_modules: declare.gauge("wasmbox_cached_modules", "Functions held ready in memory."),
            cached_bytes: declare.gauge("wasmbox_cached_module_bytes", "Compiled code held ready in memory."),
            rejected: declare.counters(
                "wasmbox_rejected_total",
                "Requests refused before a guest ran, by problem code.",
                &["code"],
            ),
            admitted: declare.counter("wasmbox_admitted_total", "Invocations that admission let run."),
            gate_closed: declare.gauges(
                "wasmbox_admission_gate_closed",
                "Whether (1) or not (0) nothing new starts, by what is short (cpu, memory).",
                &["gate"],
            ),
            in_flight_units: declare
                .gauge("wasmbox_in_flight_resource_units", "Memory-Request of running invocations, MiB."),
            admissible_units: declare.gauge(
                "wasmbox_admissible_resource_units",
                "The most Memory-Request that may run: the capacity, or less after evictions, MiB.",
            ),
            queued_invocations: declare.gauge("wasmbox_queued_invocations", "Invocations that wait for admission."),
            queued_units: declare.gauge("wasmbox_queued_resource_units", "Memory-Request of waiting invocations, MiB."),
            workers: declare.gauge("wasmbox_workers", "Worker threads."),
            worker_start_failures: declare.counter(
                "wasmbox_worker_start_failures_total",
                "Threads for workers that the system did not let start.",
            ),
            slices: SliceMetrics::of(&declare.counters(
                "wasmbox_slices_total",
                "Invocations that began on their connection's thread, by how that ended: done there, or moved to a worker (busy, waiting).",
                &["end"],
            )),
            connections: declare.gauge("wasmbox_connections", "Open client connections."),
            requested_memory_bytes: declare
                .gauge("wasmbox_requested_memory_bytes", "Memory-Request of running and waiting invocations."),
            working_set_bytes: declare.gauge(
                "wasmbox_memory_working_set_bytes",
                "Memory of the container that the kernel cannot simply take back.",
            ),
            memory_limit_bytes: declare
                .gauge("wasmbox_memory_limit_bytes", "What the working set must stay below: the limit of the box."),
            guest_memory_bytes: declare
                .gauge("wasmbox_guest_memory_bytes", "What the memories and tables of running guests have grown to."),
            growth_waits: declare.counter(
                "wasmbox_memory_growth_waits_total",
                "Growths of a guest's memory that had to wait for memory.",
            ),
            evicted: declare.counter("wasmbox_evicted_total", "Invocations that were ended because memory ran short."),
            cpu_cores_in_use: declare.register(Gauge::new(
                "wasmbox_cpu_cores_in_use",
                "Cores that the container uses, averaged over a fifth of a second.",
            )),
            lost_log_lines: declare
                .counter("wasmbox_lost_log_lines_total", "Log lines dropped because the log's reader was too slow."),
            reporter_connected: declare
                .gauge("wasmbox_reporter_connected", "Whether a queue-proxy is told the CPU utilization."),
            reports: declare.counter("wasmbox_reports_total", "Reports of the CPU utilization to the queue-proxy."),
            cgroup: CgroupMetrics::declare(&declare),
            outbound_duration: declare.histograms(
                "wasmbox_outbound_duration_seconds",
                "Time until the response to a request of a function began, or there was none.",
                SECONDS,
            ),
            outbound: OutboundMetrics::declare(&declare),
            instances: InstanceMetrics::declare(&declare),
            uploads: UploadMetrics::declare(&declare),
            traces: TraceMetrics::declare(&declare),
            functions: Mutex::new(HashMap::new()),
            registry,
        };
        // Known label values are shown as zero from the start, so that rates have a beginning.
        // What deployment/chart/monitoring/rules.yaml asks for.
        for code in ["internal", "queue-full", "queue-timeout", "compiling"] {
            metrics.rejected.with_label_values(&[code]);
        }
        for gate in ["cpu", "memory"] {
            metrics.gate_closed.with_label_values(&[gate]);
        }
        metrics
    }

    /// The metrics of function `name`; the same for all functions after the first 200, so that hostile names cannot fill the memory.
    pub fn function(&self, name: &str) -> Arc<FunctionMetrics> {
        let mut functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = functions.get(name) {
            return known.clone();
        }
        if functions.len() >= MOST_FUNCTIONS {
            self.forget_unused(&mut functions);
        }
        let label = if functions.len() < MOST_FUNCTIONS { name } else { OTHER_FUNCTIONS };
        let name: Arc<str> = name.into();
        let function = Arc::new(FunctionMetrics {
            invocations: self.invocations.clone(),
            label: label.into(),
            ok: self.invocations.with_label_values(&[label, "200"]),
            duration: self.duration.with_label_values(&[label]),
            queue: self.queue.with_label_values(&[label]),
            execution: self.execution.with_label_values(&[label]),
            cpu: self.cpu.with_label_values(&[label]),
            throttled: self.throttled.with_label_values(&[label]),
            memory_peak: self.memory_peak.with_label_values(&[label]),
            in_flight: self.in_flight.with_label_values(&[label]),
            outbound: self.outbound.clone(),
            outbound_duration: self.outbound_duration.with_label_values(&[label]),
            activity: self.activities.of(&name),
            failures: self.failures.clone(),
            log: self.logs.get().map(|sender| sender.of(name.clone())),
        });
        if label != OTHER_FUNCTIONS {
            functions.insert(name, function.clone());
        }
        function
    }

    /// Gives the labels of functions that are not in memory any more to others.
    fn forget_unused(&self, functions: &mut HashMap<Arc<str>, Arc<FunctionMetrics>>) {
        let unused = |function: &Arc<FunctionMetrics>| Arc::strong_count(function) == 1;
        for (_, function) in functions.extract_if(|_, function| unused(function)) {
            let label = &*function.label;
            for histogram in [
                &self.duration,
                &self.queue,
                &self.execution,
                &self.cpu,
                &self.throttled,
                &self.memory_peak,
                &self.outbound_duration,
            ] {
                let _ = histogram.remove_label_values(&[label]);
            }
            let _ = self.in_flight.remove_label_values(&[label]);
            for status in (100..600).map(|status| status.to_string()) {
                let _ = self.invocations.remove_label_values(&[label, status.as_str()]);
            }
        }
    }

    /// Running invocations by function; only functions that have some.
    pub fn in_flight_by_function(&self) -> BTreeMap<String, u64> {
        let mut running = sums(&self.in_flight, "function");
        running.retain(|_, number| *number > 0);
        running
    }

    /// Invocations that have ended, by the status of their answer.
    pub fn invocations_by_status(&self) -> BTreeMap<String, u64> {
        sums(&self.invocations, "status")
    }

    /// Requests refused before a guest ran, by problem code.
    pub fn rejected_by_code(&self) -> BTreeMap<String, u64> {
        let mut rejected = sums(&self.rejected, "code");
        rejected.retain(|_, number| *number > 0);
        rejected
    }

    /// The text format, version 0.0.4.
    pub fn render(&self) -> Vec<u8> {
        let mut text = Vec::new();
        TextEncoder::new()
            .encode(&self.registry.gather(), &mut text)
            .expect("gathered metrics are encodable into a vector");
        text
    }
}

/// The values of `metric`, which are counts, summed up over all labels but one.
fn sums(metric: &impl Collector, label: &str) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for series in metric.collect().iter().flat_map(|family| family.get_metric()) {
        let name = series.get_label().iter().find(|pair| pair.name() == label).map(|pair| pair.value().to_owned());
        let value = series.get_counter().get_value() + series.get_gauge().get_value();
        *sums.entry(name.unwrap_or_default()).or_insert(0) += value as u64;
    }
    sums
}

#[cfg(test)]
mod tests;
