//! How much runs at once, and what happens when memory is short.

use super::{
    ConfigError,
    settings::{settings, whole},
    within,
};
use crate::{
    admission::OverbookingRatio,
    engine::invocations_that_fit,
    limits::{ConfigDuration, Cores, Fraction, MemoryLimit},
    sampler::Thresholds,
    sandbox::ADVANCE,
    server::patience::Timeouts,
    sizing::admitted::Admitted,
    worker::Inline,
};

settings! {
    /// How much runs at once.
    pub struct CapacitySettings {
        /// Memory of the box, MiB or with suffix; what is admitted follows from it [default: the container's limit, else the machine's memory]
        #[arg(long, value_name = "SIZE")]
        memory_limit: MemoryLimit = ["MEMORY_LIMIT"],
        /// Share of the memory limit above which nothing new starts, and growing guests wait [default: 0.85]
        #[arg(long, value_name = "SHARE")]
        memory_high: Fraction = ["MEMORY_HIGH"],
        /// Share of the memory limit above which the youngest invocations are ended [default: 0.95]
        #[arg(long, value_name = "SHARE")]
        memory_eviction: Fraction = ["MEMORY_EVICTION"],
        /// Share of the memory limit above which the box gives back what it keeps for later [default: 0.7]
        #[arg(long, value_name = "SHARE")]
        gc_utilization_threshold: Fraction = ["GC_UTILIZATION_TRESHOLD", "GC_UTILIZATION_THRESHOLD"],
        /// Make a share of each invocation's memory resident before it runs
        #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
        enable_mem_pre_allocation: bool = ["ENABLE_MEM_PRE_ALLOCATION"],
        /// That share of its Memory-Request, as far as its memory exists already [default: 0.5]
        #[arg(long, value_name = "SHARE")]
        mem_pre_allocation_ratio: Fraction = ["MEM_PRE_ALLOCATION_RATIO"],
        /// Cores in use, decimal, above which nothing new starts [default: none]
        #[arg(long, value_name = "CORES")]
        resource_utilization_threshold: Cores = ["RESOURCE_UTILIZATION_THRESHOLD"],
        /// How much more Memory-Request is admitted than there is memory, 0.1 to 100 [default: 1]
        #[arg(long, value_name = "RATIO")]
        overbooking_ratio: OverbookingRatio = ["OVERBOOKING_RATIO"],
        /// Memory-Request admitted at once, in MiB [default: the memory limit times the overbooking ratio]
        #[arg(long, value_name = "MIB", value_parser = whole::<u64>)]
        concurrent_resource_request: u64 = ["CONCURRENT_RESOURCE_REQUEST"],
        /// Memory-Request waiting at most, in MiB [default: twice what is admitted, or 256 invocations if that is more]
        #[arg(long, value_name = "MIB", value_parser = whole::<u64>)]
        queue_depth_resource_units: u64 = ["QUEUE_DEPTH_RESOURCE_UNITS"],
        /// Most invocations at once, whatever their size [default: 1000, or what capacity, memory and vm.max_map_count allow]
        #[arg(long, value_name = "NUMBER", value_parser = whole::<u32>)]
        max_invocations: u32 = ["MAX_INVOCATIONS"],
        /// Most client connections at once [default: 8192, or what a twentieth of the memory holds]
        #[arg(long, value_name = "NUMBER", value_parser = whole::<usize>)]
        max_connections: usize = ["MAX_CONNECTIONS"],
        /// How long a new connection may take to send its first request's head [default: 10s]
        #[arg(long, value_name = "TIME")]
        head_timeout: ConfigDuration = ["HEAD_TIMEOUT"],
        /// How long a connection may be idle between requests [default: 2m]
        #[arg(long, value_name = "TIME")]
        idle_timeout: ConfigDuration = ["IDLE_TIMEOUT"],
        /// How long a client may send nothing of a request body that is waited for [default: 30s]
        #[arg(long, value_name = "TIME")]
        body_timeout: ConfigDuration = ["BODY_TIMEOUT"],
        /// How long a client may take nothing of its answer [default: 30s]
        #[arg(long, value_name = "TIME")]
        send_timeout: ConfigDuration = ["SEND_TIMEOUT"],
        /// Begin invocations that are usually short on the thread of their connection; off: all on workers [default: auto]
        #[arg(long, value_name = "WHETHER")]
        inline: Inline = ["INLINE"],
        /// Threads that serve connections [default: one for each core; with --inline=off one for two, at most 4]
        #[arg(long, value_name = "NUMBER", value_parser = whole::<usize>)]
        io_threads: usize = ["IO_THREADS"],
        /// How long an idle worker thread is kept [default: 10s]
        #[arg(long, value_name = "TIME")]
        worker_idle: ConfigDuration = ["WORKER_IDLE"],
        /// How long running invocations may take after SIGTERM [default: 30s]
        #[arg(long, value_name = "TIME")]
        drain_timeout: ConfigDuration = ["DRAIN_TIMEOUT"],
    }
}

/// One in so many of the box's bytes is for what it takes in advance for invocations, beyond their `Memory-Request`, where nothing is set.
const ADVANCES_SHARE: u64 = 4;

/// What a box has to give.
pub(super) struct ResolvedCapacity {
    /// [`crate::admission::state::Capacity::invocations`].
    pub invocations: u32,
    /// What was set, although there may be less.
    pub asked_memory_limit: Option<u64>,
    pub thresholds: Thresholds,
}

impl CapacitySettings {
    pub(super) fn resolve(&self, admitted: &Admitted) -> Result<ResolvedCapacity, ConfigError> {
        // Each occupies a unit at least, and what the box holds for each is memory that guests cannot have.
        let admissible = admitted.units.min((admitted.memory_limit / ADVANCES_SHARE / ADVANCE).max(1));
        let admissible = u32::try_from(admissible).unwrap_or(u32::MAX);
        let invocations = self.max_invocations.unwrap_or_else(|| invocations_that_fit().min(1000).min(admissible));
        within("--max-invocations", u64::from(invocations), 1, 10_000)?;
        Ok(ResolvedCapacity {
            invocations,
            asked_memory_limit: self.memory_limit.map(MemoryLimit::bytes),
            thresholds: self.thresholds(admitted.memory_limit)?,
        })
    }

    pub(super) fn timeouts(&self) -> Timeouts {
        let time = |set: Option<ConfigDuration>, default| set.unwrap_or(ConfigDuration::from_secs(default)).duration();
        Timeouts {
            head: time(self.head_timeout, 10),
            idle: time(self.idle_timeout, 120),
            send: time(self.send_timeout, 30),
        }
    }

    fn thresholds(&self, memory_limit: u64) -> Result<Thresholds, ConfigError> {
        let thresholds = Thresholds {
            memory_limit,
            high: self.memory_high.unwrap_or(Fraction::percent(85)),
            eviction: self.memory_eviction.unwrap_or(Fraction::percent(95)),
            reclaim: self.gc_utilization_threshold.unwrap_or(Fraction::percent(70)),
            cpu: self.resource_utilization_threshold,
        };
        let high = |expected: String| ConfigError::Value {
            name: "--memory-high",
            value: thresholds.high.to_string(),
            expected,
        };
        if thresholds.high.get() < 0.1 {
            return Err(high("0.1 to 1".into()));
        }
        if thresholds.high.get() > thresholds.eviction.get() {
            return Err(high(format!("at most --memory-eviction, {}", thresholds.eviction)));
        }
        Ok(thresholds)
    }
}
