//! Configuration: flags over environment over a TOML file over defaults.
//!
//! [`Settings`] names each setting once; the three sources are three values of that type. [`Config`] is what comes out: checked, complete.
//!
//! - [`settings`]: the names, and reading them; [`capacity`]: what is admitted by default
//! - here: the other defaults, and what depends on more than one of them

mod capacity;
pub mod settings;

use std::{path::PathBuf, time::Duration};

pub use self::settings::{CacheDir, ENVIRONMENT, Settings, WasmRuntime, with_environment_in_help};
use crate::{
    admission::Capacity,
    cgroup::{self, CgroupSettings},
    confined::{self, Allowance},
    container::Container,
    engine::{self, EngineSize, invocations_that_fit},
    exchange::budget::Budgets,
    invocation::OutboundHost,
    limits::{CpuQuota, Fraction, InvocationTimeout, LimitCaps, Limits, MemoryLimit, MemoryRequest},
    logging::LogFormat,
    readiness::ReadinessSettings,
    reporter::{QueueProxyHost, ReporterSettings},
    sampler::Thresholds,
    server::patience::Timeouts,
    store::settings::LARGEST_OUTPUT_BUFFER,
};

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("environment variable {name}={value:?}: {reason}")]
    Environment { name: String, value: String, reason: String },
    #[error("environment variable {name} is not UTF-8")]
    EnvironmentNotUtf8 { name: String },
    #[error("configuration file {path}: {reason}")]
    File { path: PathBuf, reason: String },
    #[error("{name} {value}: expected {expected}")]
    Value { name: &'static str, value: String, expected: String },
}

/// What the box runs with.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    pub functions_dir: PathBuf,
    pub host: String,
    pub port: u16,
    pub admin_host: String,
    pub admin_port: u16,
    pub cache_dir: Option<CacheDir>,
    pub cache_size: u64,
    /// What the node offers, if it does.
    pub node: Option<NodeSettings>,
    pub module_memory: usize,
    pub max_module_size: u64,
    pub trust_precompiled: bool,
    pub defaults: Limits,
    pub caps: LimitCaps,
    pub max_body: u64,
    pub max_output: u64,
    pub output_buffer_bytes: usize,
    pub engine: EngineSize,
    pub cgroup: CgroupSettings,
    pub capacity: Capacity,
    /// What was set, although there may be less: [`Thresholds::memory_limit`].
    pub asked_memory_limit: Option<u64>,
    pub thresholds: Thresholds,
    pub preallocation: Option<Fraction>,
    pub timeouts: Timeouts,
    /// How long a request body may pause.
    pub body_timeout: Duration,
    pub budgets: Budgets,
    pub io_threads: usize,
    pub compile_jobs: usize,
    /// What one of them may use.
    pub compile: Allowance,
    pub worker_idle: Duration,
    pub drain_timeout: Duration,
    pub preopen_roots: Vec<PathBuf>,
    pub allow_outbound: Vec<OutboundHost>,
    pub wasm_runtime: WasmRuntime,
    pub pod_name: String,
    pub readiness: ReadinessSettings,
    /// `None`: to nobody.
    pub reporter: Option<ReporterSettings>,
    pub log_level: String,
    pub log_format: LogFormat,
}

/// Where a box finds what its node offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSettings {
    /// Compiled code, read-only.
    pub cache_dir: PathBuf,
    /// Who compiles.
    pub compile_socket: Option<PathBuf>,
}

const MIB: u64 = 1 << 20;
const LARGEST_MEMORY: u64 = engine::LARGEST_MEMORY as u64;

impl Config {
    /// Completes settings with defaults, and checks what depends on more than one of them.
    ///
    /// # Errors
    /// [`ConfigError::Value`], naming the setting, its value, and what is expected.
    pub fn new(settings: Settings) -> Result<Config, ConfigError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let time = |setting: Option<InvocationTimeout>, default: u64| {
            setting.map_or(Duration::from_secs(default), InvocationTimeout::duration)
        };
        let bytes = |setting: Option<MemoryRequest>, default: u64| setting.map_or(default, MemoryRequest::bytes);
        let caps = LimitCaps {
            cpu_quota: settings.max_cpu_quota.unwrap_or_else(|| {
                u32::try_from(cores * 1000).ok().and_then(CpuQuota::from_millicores).unwrap_or(CpuQuota::MAX)
            }),
            memory: settings
                .max_memory_request
                .unwrap_or(MemoryRequest::from_bytes(LARGEST_MEMORY).unwrap_or(MemoryRequest::DEFAULT)),
            timeout: settings.max_invocation_timeout.unwrap_or_else(|| {
                InvocationTimeout::from_duration(Duration::from_secs(900)).unwrap_or(InvocationTimeout::MAX)
            }),
        };
        at_most("--max-memory-request", caps.memory.bytes(), LARGEST_MEMORY)?;
        let max_wasm_stack = settings.max_wasm_stack.unwrap_or(1 << 20);
        within("--max-wasm-stack", max_wasm_stack as u64, 64 << 10, 64 << 20)?;
        let output_buffer_bytes = settings.output_buffer_bytes.unwrap_or(64 << 10);
        at_most("--output-buffer-bytes", output_buffer_bytes as u64, LARGEST_OUTPUT_BUFFER as u64)?;
        // More than there is would only make the box believe so.
        let asked_memory_limit = settings.memory_limit.map(MemoryLimit::bytes);
        let memory_limit = asked_memory_limit.unwrap_or(u64::MAX).min(available_memory());
        let units = capacity::units(&settings, memory_limit)?;
        // Each occupies a unit at least.
        let admissible = u32::try_from(units).unwrap_or(u32::MAX);
        let max_invocations =
            settings.max_invocations.unwrap_or_else(|| invocations_that_fit().min(1000).min(admissible));
        within("--max-invocations", u64::from(max_invocations), 1, 10_000)?;
        let default_memory = capacity::default_request(&settings, units)?;
        let capacity = capacity::capacity(&settings, units, max_invocations as usize);
        let thresholds = Thresholds {
            memory_limit,
            high: settings.memory_high.unwrap_or(Fraction::percent(85)),
            eviction: settings.memory_eviction.unwrap_or(Fraction::percent(95)),
            reclaim: settings.gc_utilization_threshold.unwrap_or(Fraction::percent(70)),
            cpu: settings.resource_utilization_threshold,
        };
        if thresholds.high.get() < 0.1 {
            return Err(ConfigError::Value {
                name: "--memory-high",
                value: thresholds.high.to_string(),
                expected: "0.1 to 1".into(),
            });
        }
        if thresholds.high.get() > thresholds.eviction.get() {
            return Err(ConfigError::Value {
                name: "--memory-high",
                value: thresholds.high.to_string(),
                expected: format!("at most --memory-eviction, {}", thresholds.eviction),
            });
        }
        let io_threads = settings.io_threads.unwrap_or((cores / 2).clamp(1, 4));
        within("--io-threads", io_threads as u64, 1, 64)?;
        let cpu_period = settings.cpu_period.map_or(cgroup::DEFAULT_PERIOD, InvocationTimeout::duration);
        within("--cpu-period", u64::try_from(cpu_period.as_millis()).unwrap_or(u64::MAX), 1, 1000)?;
        let compile_jobs = settings.compile_jobs.unwrap_or(2);
        within("--compile-jobs", compile_jobs as u64, 1, 64)?;
        let compile = Allowance {
            memory: bytes(settings.compile_memory, compile_memory(memory_limit, compile_jobs)),
            time: settings.compile_time.map_or(Duration::from_secs(600), InvocationTimeout::duration),
            code: confined::LARGEST_CODE,
        };
        within("--compile-memory", compile.memory, LEAST_COMPILE_MEMORY, u64::MAX)?;
        let max_connections = settings.max_connections.unwrap_or(8192);
        within("--max-connections", max_connections as u64, 1, 1_000_000)?;
        let readiness = ReadinessSettings {
            window: settings.readiness_window.unwrap_or(ReadinessSettings::WINDOW),
            threshold: settings.readiness_utilization_threshold.unwrap_or(ReadinessSettings::THRESHOLD),
            share: settings.readiness_rand_threshold.unwrap_or(ReadinessSettings::SHARE),
            memory_limit,
        };
        within("--readiness-window", readiness.window as u64, 1, 1000)?;
        at_most("--readiness-rand-threshold", u64::from(readiness.share), 100)?;
        let reporting_period = settings.reporting_period_ms.unwrap_or(50);
        within("--reporting-period-ms", reporting_period, 10, 60_000)?;
        let reporting_window = settings.metrics_collection_window.unwrap_or(5);
        within("--metrics-collection-window", reporting_window as u64, 1, 1000)?;
        let retry_delay = settings.retry_delay_sec.unwrap_or(2);
        within("--retry-delay-sec", retry_delay, 1, 60)?;
        let reporter = match settings.qp_host.unwrap_or_default() {
            QueueProxyHost::None => None,
            QueueProxyHost::Named(host) => Some(ReporterSettings {
                host,
                port: settings.qp_port.unwrap_or(9096),
                period: Duration::from_millis(reporting_period),
                window: reporting_window,
                retry_delay: Duration::from_secs(retry_delay),
                max_retries: settings.max_retries.unwrap_or(5),
            }),
        };
        let defaults = Limits::default();
        Ok(Config {
            functions_dir: settings.functions_dir.unwrap_or_else(|| "functions".into()),
            host: settings.host.unwrap_or_else(|| "0.0.0.0".into()),
            port: settings.port.unwrap_or(8095),
            admin_host: settings.admin_host.unwrap_or_else(|| "0.0.0.0".into()),
            admin_port: settings.admin_port.unwrap_or(8086),
            cache_dir: settings.cache_dir,
            cache_size: bytes(settings.cache_size, 2 << 30),
            node: node(settings.node_cache_dir, settings.compile_socket)?,
            module_memory: usize::try_from(bytes(settings.module_memory, (memory_limit / 4).min(1 << 30)))
                .unwrap_or(usize::MAX),
            max_module_size: bytes(settings.max_module_size, (memory_limit / 8).clamp(16 * MIB, 256 * MIB)),
            trust_precompiled: settings.trust_precompiled.unwrap_or(false),
            defaults: Limits {
                cpu_quota: settings.cpu_quota.unwrap_or(defaults.cpu_quota),
                memory: default_memory,
                timeout: settings.invocation_timeout.unwrap_or(defaults.timeout),
            },
            caps,
            max_body: bytes(settings.max_body, 1 << 30),
            max_output: bytes(settings.max_output, 4 << 30),
            output_buffer_bytes,
            engine: EngineSize {
                invocations: max_invocations,
                keep_resident: keep_resident(memory_limit, engine::memory_slots(max_invocations)),
                max_memory: engine::LARGEST_MEMORY,
                max_wasm_stack,
            },
            cgroup: CgroupSettings {
                enable: settings.enable_cgroups.unwrap_or(cgroup::Enable::Auto),
                mode: settings.cgroup_mode.unwrap_or(cgroup::Mode::Pinned),
                root: settings.cgroup_root,
                pod_uid: settings.pod_uid,
                period: cpu_period,
            },
            capacity,
            asked_memory_limit,
            thresholds,
            preallocation: settings
                .enable_mem_pre_allocation
                .unwrap_or(false)
                .then(|| settings.mem_pre_allocation_ratio.unwrap_or(Fraction::percent(50))),
            timeouts: Timeouts {
                head: time(settings.head_timeout, 10),
                idle: time(settings.idle_timeout, 120),
                send: time(settings.send_timeout, 30),
            },
            body_timeout: time(settings.body_timeout, 30),
            budgets: Budgets::new(memory_limit, max_connections),
            io_threads,
            compile_jobs,
            compile,
            worker_idle: settings.worker_idle.map_or(Duration::from_secs(10), InvocationTimeout::duration),
            drain_timeout: settings.drain_timeout.map_or(Duration::from_secs(30), InvocationTimeout::duration),
            preopen_roots: canonical(settings.preopen_roots.unwrap_or_default())?,
            allow_outbound: settings.allow_outbound.unwrap_or_default(),
            wasm_runtime: settings.wasm_runtime.unwrap_or(WasmRuntime::Wasmtime),
            pod_name: settings
                .pod_name
                .unwrap_or_else(|| rustix::system::uname().nodename().to_string_lossy().into_owned()),
            readiness,
            reporter,
            log_level: settings.log_level.unwrap_or_else(|| "info".into()),
            log_format: settings.log_format.unwrap_or(LogFormat::Text),
        })
    }
}

/// The compiler itself, with its threads, needs about half of this.
const LEAST_COMPILE_MEMORY: u64 = 64 * MIB;

/// What each of `jobs` compilations may use, so that all of them together use half of the memory at most.
fn compile_memory(memory_limit: u64, jobs: usize) -> u64 {
    (memory_limit / 2 / jobs as u64).clamp(LEAST_COMPILE_MEMORY, 4 << 30)
}

fn within(name: &'static str, value: u64, least: u64, most: u64) -> Result<(), ConfigError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(ConfigError::Value { name, value: value.to_string(), expected: format!("{least} to {most}") })
}

fn at_most(name: &'static str, value: u64, most: u64) -> Result<(), ConfigError> {
    within(name, value, 0, most)
}

fn node(cache_dir: Option<CacheDir>, compile_socket: Option<PathBuf>) -> Result<Option<NodeSettings>, ConfigError> {
    match (cache_dir, compile_socket) {
        (Some(CacheDir::Path(cache_dir)), compile_socket) => Ok(Some(NodeSettings { cache_dir, compile_socket })),
        (Some(CacheDir::None), _) | (None, None) => Ok(None),
        (None, Some(socket)) => Err(ConfigError::Value {
            name: "--compile-socket",
            value: socket.display().to_string(),
            expected: "--node-cache-dir, too: what is compiled is found there".into(),
        }),
    }
}

fn canonical(roots: Vec<PathBuf>) -> Result<Vec<PathBuf>, ConfigError> {
    let canonical = |root: PathBuf| {
        root.canonicalize().ok().filter(|root| root.is_dir()).ok_or_else(|| ConfigError::Value {
            name: "--preopen-root",
            value: root.display().to_string(),
            expected: "an existing directory".into(),
        })
    };
    roots.into_iter().map(canonical).collect()
}

/// The container's memory limit or the machine's memory, whichever is less; bytes.
fn available_memory() -> u64 {
    let system = rustix::system::sysinfo();
    let machine = system.totalram.saturating_mul(u64::from(system.mem_unit).max(1));
    Container::open().memory_limit().map_or(machine, |limit| limit.min(machine))
}

/// What each slot may keep, so that all of them together keep an eighth of the memory at most: whole pages, at most 2 MiB.
fn keep_resident(memory_limit: u64, slots: u32) -> usize {
    const MOST: u64 = 2 << 20;
    let each = (memory_limit / 8 / u64::from(slots.max(1))).min(MOST);
    usize::try_from(each & !0xfff).unwrap_or(0)
}

#[cfg(test)]
mod tests;
