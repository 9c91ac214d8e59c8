//! Configuration: flags over environment over a TOML file over defaults.
//!
//! [`Settings`] names each setting once; the three sources are three values of that type. [`Config`] is what comes out: checked, complete.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, CommandFactory, FromArgMatches, Parser};
use serde::{Deserialize, Serialize};

use crate::{
    admission::{Capacity, OverbookingRatio},
    cgroup::{self, CgroupSettings},
    container::Container,
    engine::{EngineSize, invocations_that_fit},
    limits::{Cores, CpuQuota, Fraction, InvocationTimeout, LimitCaps, Limits, MemoryLimit, MemoryRequest},
    logging::LogFormat,
    readiness::ReadinessSettings,
    reporter::{QueueProxyHost, ReporterSettings},
    sampler::Thresholds,
    store::settings::OutboundHost,
};

/// Which runtime the original's `WASM_RUNTIME` names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WasmRuntime {
    Wasmtime,
    /// Accepted; wasmtime runs its modules.
    Wasmedge,
}

/// Where compiled code is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheDir {
    None,
    Path(PathBuf),
}

impl std::str::FromStr for CacheDir {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(if text == "none" { CacheDir::None } else { CacheDir::Path(text.into()) })
    }
}

impl std::fmt::Display for CacheDir {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CacheDir::None => f.write_str("none"),
            CacheDir::Path(path) => path.display().fmt(f),
        }
    }
}

crate::limits::serde_through_text!(CacheDir);

/// One source's settings; what it does not name is `None`.
#[derive(Debug, Clone, Default, PartialEq, Args, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// Directory of the functions: NAME.wasm, NAME.wat, and NAME.toml with a function's settings [default: ./functions]
    #[arg(long, value_name = "DIR")]
    pub functions_dir: Option<PathBuf>,
    /// Address of the function port [default: 0.0.0.0]
    #[arg(long, value_name = "ADDRESS")]
    pub host: Option<String>,
    /// Port of the functions [default: 8095]
    #[arg(long)]
    pub port: Option<u16>,
    /// Address of the admin port (/live, /ready, /status, /metrics, /functions) [default: 0.0.0.0]
    #[arg(long, value_name = "ADDRESS")]
    pub admin_host: Option<String>,
    /// Admin port [default: 8086]
    #[arg(long, value_name = "PORT")]
    pub admin_port: Option<u16>,
    /// Directory of compiled code, private to this user; `none` compiles anew at each start [default: $XDG_CACHE_HOME/wasmbox or ~/.cache/wasmbox]
    #[arg(long, value_name = "DIR")]
    pub cache_dir: Option<CacheDir>,
    /// Most compiled code in that directory [default: 2Gi]
    #[arg(long, value_name = "SIZE")]
    pub cache_size: Option<MemoryRequest>,
    /// Most compiled code held ready in memory [default: 1Gi]
    #[arg(long, value_name = "SIZE")]
    pub module_memory: Option<MemoryRequest>,
    /// Largest module file [default: 256Mi]
    #[arg(long, value_name = "SIZE")]
    pub max_module_size: Option<MemoryRequest>,
    /// Run native images (.cwasm) found in the functions directory: only if nobody else can write there
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub trust_precompiled: Option<bool>,
    /// CPU of an invocation that names none, in millicores [default: 500]
    #[arg(long, value_name = "QUOTA")]
    pub cpu_quota: Option<CpuQuota>,
    /// Memory limit of an invocation that names none, MiB or with suffix [default: 200]
    #[arg(long, value_name = "SIZE")]
    pub memory_request: Option<MemoryRequest>,
    /// Time limit of an invocation that names none, ms or with unit [default: 60000]
    #[arg(long, value_name = "TIME")]
    pub invocation_timeout: Option<InvocationTimeout>,
    /// Most CPU a request may ask for [default: all cores]
    #[arg(long, value_name = "QUOTA")]
    pub max_cpu_quota: Option<CpuQuota>,
    /// Most memory a request may ask for, at most 4Gi [default: 4Gi]
    #[arg(long, value_name = "SIZE")]
    pub max_memory_request: Option<MemoryRequest>,
    /// Longest time a request may ask for [default: 15m]
    #[arg(long, value_name = "TIME")]
    pub max_invocation_timeout: Option<InvocationTimeout>,
    /// Largest request body [default: 1Gi]
    #[arg(long, value_name = "SIZE")]
    pub max_body: Option<MemoryRequest>,
    /// Most output of one invocation [default: 4Gi]
    #[arg(long, value_name = "SIZE")]
    pub max_output: Option<MemoryRequest>,
    /// Output held back, in bytes, so that a function that fails later still gets its error status [default: 65536]
    #[arg(long, value_name = "BYTES")]
    pub output_buffer_bytes: Option<usize>,
    /// Deepest Wasm stack, in bytes [default: 1048576]
    #[arg(long, value_name = "BYTES")]
    pub max_wasm_stack: Option<usize>,
    /// Most invocations at once, whatever their size [default: 1000, or what capacity and vm.max_map_count allow]
    #[arg(long, value_name = "NUMBER")]
    pub max_invocations: Option<u32>,
    /// Enforce Cpu-Quota with cgroups; auto: where it is possible [default: auto]
    #[arg(long, value_name = "WHETHER", num_args = 0..=1, default_missing_value = "true")]
    pub enable_cgroups: Option<cgroup::Enable>,
    /// Run each invocation in its worker's cgroup, or in a fresh one (slow; for comparison) [default: pinned]
    #[arg(long, value_name = "MODE")]
    pub cgroup_mode: Option<cgroup::Mode>,
    /// Cgroup of the cpu controller in which workers' cgroups are made [default: /run/wasmbox/cgroup, else the host's at /data, else the box's own]
    #[arg(long, value_name = "DIR")]
    pub cgroup_root: Option<PathBuf>,
    /// Period of CPU quotas, 1 to 1000 ms: shorter ones spread a function's CPU time more evenly, longer ones let short functions through at once [default: 100]
    #[arg(long, value_name = "TIME")]
    pub cpu_period: Option<InvocationTimeout>,
    /// Uid of this box's pod, by which its cgroup is found among the host's at /data
    #[arg(long, value_name = "UID")]
    pub pod_uid: Option<String>,
    /// Memory of the box, MiB or with suffix; what is admitted follows from it [default: the container's limit, else the machine's memory]
    #[arg(long, value_name = "SIZE")]
    pub memory_limit: Option<MemoryLimit>,
    /// Share of the memory limit above which nothing new starts, and growing guests wait [default: 0.85]
    #[arg(long, value_name = "SHARE")]
    pub memory_high: Option<Fraction>,
    /// Share of the memory limit above which the youngest invocations are ended [default: 0.95]
    #[arg(long, value_name = "SHARE")]
    pub memory_eviction: Option<Fraction>,
    /// Share of the memory limit above which the box gives back what it keeps for later [default: 0.7]
    #[arg(long, value_name = "SHARE")]
    pub gc_utilization_threshold: Option<Fraction>,
    /// Cores in use, decimal, above which nothing new starts [default: none]
    #[arg(long, value_name = "CORES")]
    pub resource_utilization_threshold: Option<Cores>,
    /// Make a share of each invocation's memory resident before it runs
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub enable_mem_pre_allocation: Option<bool>,
    /// That share of its Memory-Request, as far as its memory exists already [default: 0.5]
    #[arg(long, value_name = "SHARE")]
    pub mem_pre_allocation_ratio: Option<Fraction>,
    /// How much more Memory-Request is admitted than there is memory, 0.1 to 100 [default: 1]
    #[arg(long, value_name = "RATIO")]
    pub overbooking_ratio: Option<OverbookingRatio>,
    /// Memory-Request admitted at once, in MiB [default: the memory limit times the overbooking ratio]
    #[arg(long, value_name = "MIB")]
    pub concurrent_resource_request: Option<u64>,
    /// Memory-Request waiting at most, in MiB [default: twice what is admitted]
    #[arg(long, value_name = "MIB")]
    pub queue_depth_resource_units: Option<u64>,
    /// Most client connections at once [default: 8192]
    #[arg(long, value_name = "NUMBER")]
    pub max_connections: Option<usize>,
    /// Threads that serve connections [default: one for two cores, at most 4]
    #[arg(long, value_name = "NUMBER")]
    pub io_threads: Option<usize>,
    /// Modules compiled at once [default: 2]
    #[arg(long, value_name = "NUMBER")]
    pub compile_jobs: Option<usize>,
    /// How long an idle worker thread is kept [default: 10s]
    #[arg(long, value_name = "TIME")]
    pub worker_idle: Option<InvocationTimeout>,
    /// How long running invocations may take after SIGTERM [default: 30s]
    #[arg(long, value_name = "TIME")]
    pub drain_timeout: Option<InvocationTimeout>,
    /// Directory below which functions' settings may open directories to their guests; may be given several times [default: none]
    #[arg(long = "preopen-root", value_name = "DIR", value_delimiter = ',')]
    pub preopen_roots: Option<Vec<PathBuf>>,
    /// HOST:PORT that functions' settings may open to their guests; may be given several times [default: none]
    #[arg(long = "allow-outbound", value_name = "HOST:PORT", value_delimiter = ',')]
    pub allow_outbound: Option<Vec<OutboundHost>>,
    /// Accepted for compatibility: everything runs on wasmtime
    #[arg(long, value_name = "NAME")]
    pub wasm_runtime: Option<WasmRuntime>,
    /// Value of the answers' header `Pod` [default: the host's name]
    #[arg(long, value_name = "NAME")]
    pub pod_name: Option<String>,
    /// Probes whose memory utilization is averaged, 1 to 1000 [default: 5]
    #[arg(long, value_name = "NUMBER")]
    pub readiness_window: Option<usize>,
    /// Working set over memory limit above which the box is not ready, 0 to 1 [default: 0.9]
    #[arg(long, value_name = "FRACTION")]
    pub readiness_utilization_threshold: Option<Fraction>,
    /// Percent of the probes, drawn at random, that stay ready above that threshold: some, where boxes must not all leave at once [default: 0]
    #[arg(long, value_name = "PERCENT")]
    pub readiness_rand_threshold: Option<u8>,
    /// Address of the queue-proxy that wants to know the CPU utilization; `none` reports to nobody [default: 127.0.0.1]
    #[arg(long, value_name = "ADDRESS")]
    pub qp_host: Option<QueueProxyHost>,
    /// Its port [default: 9096]
    #[arg(long, value_name = "PORT")]
    pub qp_port: Option<u16>,
    /// Time between two reports to it, in ms, 10 to 60000 [default: 50]
    #[arg(long, value_name = "MS")]
    pub reporting_period_ms: Option<u64>,
    /// Reporting periods over which the CPU utilization is averaged, 1 to 1000 [default: 5]
    #[arg(long, value_name = "NUMBER")]
    pub metrics_collection_window: Option<usize>,
    /// Wait between tries to reach it, in seconds, 1 to 60 [default: 2]
    #[arg(long, value_name = "SECONDS")]
    pub retry_delay_sec: Option<u64>,
    /// Tries with that wait, after which it doubles each time, up to a minute; there is no last try [default: 5]
    #[arg(long, value_name = "NUMBER")]
    pub max_retries: Option<u32>,
    /// error, warn, info, debug or trace; also by target: info,guest=off [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// How log lines look [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
}

/// Which environment variables set what: the first one that is set counts. Names of the original first.
pub const ENVIRONMENT: &[(&str, &[&str])] = &[
    ("functions-dir", &["FUNCTIONS_DIR"]),
    ("host", &["WEBSERVER_HOST"]),
    ("port", &["WEBSERVER_PORT", "PORT"]),
    ("admin-host", &["HEALTHCHECK_HOST"]),
    ("admin-port", &["HEALTHCHECK_PORT"]),
    ("cache-dir", &["CACHE_DIR"]),
    ("cache-size", &["CACHE_SIZE"]),
    ("module-memory", &["MODULE_MEMORY"]),
    ("max-module-size", &["MAX_MODULE_SIZE"]),
    ("trust-precompiled", &["TRUST_PRECOMPILED"]),
    ("cpu-quota", &["DEFAULT_CPU_QUOTA"]),
    ("memory-request", &["DEFAULT_MEMORY_REQUEST"]),
    ("invocation-timeout", &["DEFAULT_INVOCATION_TIMEOUT"]),
    ("max-cpu-quota", &["MAX_CPU_QUOTA"]),
    ("max-memory-request", &["MAX_MEMORY_REQUEST"]),
    ("max-invocation-timeout", &["MAX_INVOCATION_TIMEOUT"]),
    ("max-body", &["MAX_BODY"]),
    ("max-output", &["MAX_OUTPUT"]),
    ("output-buffer-bytes", &["OUTPUT_BUFFER_BYTES"]),
    ("max-wasm-stack", &["MAX_WASM_STACK"]),
    ("max-invocations", &["MAX_INVOCATIONS"]),
    ("enable-cgroups", &["ENABLE_CGROUPS"]),
    ("cgroup-mode", &["CGROUP_MODE"]),
    ("cgroup-root", &["CGROUP_ROOT"]),
    ("cpu-period", &["CPU_PERIOD"]),
    ("pod-uid", &["POD_UID"]),
    ("memory-limit", &["MEMORY_LIMIT"]),
    ("memory-high", &["MEMORY_HIGH"]),
    ("memory-eviction", &["MEMORY_EVICTION"]),
    ("gc-utilization-threshold", &["GC_UTILIZATION_TRESHOLD", "GC_UTILIZATION_THRESHOLD"]),
    ("resource-utilization-threshold", &["RESOURCE_UTILIZATION_THRESHOLD"]),
    ("enable-mem-pre-allocation", &["ENABLE_MEM_PRE_ALLOCATION"]),
    ("mem-pre-allocation-ratio", &["MEM_PRE_ALLOCATION_RATIO"]),
    ("overbooking-ratio", &["OVERBOOKING_RATIO"]),
    ("concurrent-resource-request", &["CONCURRENT_RESOURCE_REQUEST"]),
    ("queue-depth-resource-units", &["QUEUE_DEPTH_RESOURCE_UNITS"]),
    ("max-connections", &["MAX_CONNECTIONS"]),
    ("io-threads", &["IO_THREADS"]),
    ("compile-jobs", &["COMPILE_JOBS"]),
    ("worker-idle", &["WORKER_IDLE"]),
    ("drain-timeout", &["DRAIN_TIMEOUT"]),
    ("preopen-root", &["PREOPEN_ROOTS"]),
    ("allow-outbound", &["ALLOW_OUTBOUND"]),
    ("wasm-runtime", &["WASM_RUNTIME"]),
    ("pod-name", &["POD_NAME"]),
    ("readiness-window", &["READINESS_WINDOW"]),
    ("readiness-utilization-threshold", &["READINESS_UTILIZATION_TRESHOLD", "READINESS_UTILIZATION_THRESHOLD"]),
    ("readiness-rand-threshold", &["READINESS_RAND_TRESHOLD", "READINESS_RAND_THRESHOLD"]),
    ("qp-host", &["QP_HOST"]),
    ("qp-port", &["QP_PORT"]),
    ("reporting-period-ms", &["REPORTING_PERIOD_MS"]),
    ("metrics-collection-window", &["METRICS_COLLECTION_WINDOW"]),
    ("retry-delay-sec", &["RETRY_DELAY_SEC"]),
    ("max-retries", &["MAX_RETRIES"]),
    ("log-level", &["LOG_LEVEL"]),
    ("log-format", &["LOG_FORMAT"]),
];

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

/// A parser for the settings alone, through which the environment goes too: one grammar for both.
#[derive(Parser)]
#[command(no_binary_name = true)]
struct Alone {
    #[command(flatten)]
    settings: Settings,
}

impl Settings {
    /// The settings in the environment; an empty variable counts as not set.
    ///
    /// # Errors
    /// [`ConfigError`], naming the variable, its value, and what is expected.
    pub fn from_environment(get: impl Fn(&str) -> Option<OsString>) -> Result<Settings, ConfigError> {
        let mut all = Settings::default();
        for (setting, names) in ENVIRONMENT {
            let Some((name, value)) =
                names.iter().find_map(|name| Some((*name, get(name).filter(|value| !value.is_empty())?)))
            else {
                continue;
            };
            let value = value.into_string().map_err(|_| ConfigError::EnvironmentNotUtf8 { name: name.to_owned() })?;
            let error = |error: clap::Error| ConfigError::Environment {
                name: name.to_owned(),
                value: value.clone(),
                reason: reason(&error),
            };
            let matches = Alone::command().try_get_matches_from([format!("--{setting}={value}")]).map_err(error)?;
            let one = Alone::from_arg_matches(&matches).map_err(error)?.settings;
            all = one.over(all);
        }
        Ok(all)
    }

    /// The settings in a TOML file, whose keys are the flags' names.
    ///
    /// # Errors
    /// [`ConfigError::File`] with line and reason.
    pub fn from_file(path: &Path) -> Result<Settings, ConfigError> {
        let error = |reason: String| ConfigError::File { path: path.to_owned(), reason };
        let text = std::fs::read_to_string(path).map_err(|source| error(source.to_string()))?;
        toml::from_str(&text).map_err(|source| error(source.to_string().trim().to_owned()))
    }

    /// These settings, and those of `below` where there are none.
    pub fn over(self, below: Settings) -> Settings {
        let object = |settings: &Settings| match serde_json::to_value(settings) {
            Ok(serde_json::Value::Object(object)) => object,
            _ => unreachable!("a struct of texts and numbers is a JSON object"),
        };
        let mut merged = object(&below);
        merged.extend(object(&self).into_iter().filter(|(_, value)| !value.is_null()));
        serde_json::from_value(merged.into()).expect("what was just serialised is valid")
    }
}

/// clap's message without its surroundings: `invalid value 'x' for '--port <PORT>': invalid digit found in string`.
fn reason(error: &clap::Error) -> String {
    let text = error.to_string();
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("For more information"))
        .collect();
    lines.join("; ").trim_start_matches("error: ").to_owned()
}

/// Adds to each setting's help the variables that set it too.
pub fn with_environment_in_help(command: clap::Command) -> clap::Command {
    let ids: Vec<_> = command.get_arguments().map(|argument| argument.get_id().clone()).collect();
    ids.into_iter().fold(command, |command, id| {
        command.mut_arg(id, |argument| {
            let variables = ENVIRONMENT.iter().find(|(setting, _)| argument.get_long() == Some(setting));
            match (variables, argument.get_help().map(ToString::to_string)) {
                (Some((_, names)), Some(help)) => argument.help(format!("{help} [env: {}]", names.join(", "))),
                _ => argument,
            }
        })
    })
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
    pub max_connections: usize,
    pub io_threads: usize,
    pub compile_jobs: usize,
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

const MIB: u64 = 1 << 20;
/// The address space reserved for a linear memory.
const LARGEST_MEMORY: u64 = 4 << 30;
/// Of admission: 4 PiB.
const MOST_UNITS: u64 = u32::MAX as u64;

impl Config {
    /// Completes settings with defaults, and checks what depends on more than one of them.
    ///
    /// # Errors
    /// [`ConfigError::Value`], naming the setting, its value, and what is expected.
    pub fn new(settings: Settings) -> Result<Config, ConfigError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
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
        at_most("--output-buffer-bytes", output_buffer_bytes as u64, 16 << 20)?;
        // More than there is would only make the box believe so.
        let asked_memory_limit = settings.memory_limit.map(MemoryLimit::bytes);
        let memory_limit = asked_memory_limit.unwrap_or(u64::MAX).min(available_memory());
        let overbooked = settings.overbooking_ratio.unwrap_or(OverbookingRatio::ONE).times(memory_limit / MIB);
        let units = settings.concurrent_resource_request.unwrap_or(overbooked.clamp(1, MOST_UNITS));
        within("--concurrent-resource-request", units, 1, MOST_UNITS)?;
        // Each occupies a unit at least.
        let admissible = u32::try_from(units).unwrap_or(u32::MAX);
        let max_invocations =
            settings.max_invocations.unwrap_or_else(|| invocations_that_fit().min(1000).min(admissible));
        within("--max-invocations", u64::from(max_invocations), 1, 10_000)?;
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
            module_memory: usize::try_from(bytes(settings.module_memory, 1 << 30)).unwrap_or(usize::MAX),
            max_module_size: bytes(settings.max_module_size, 256 * MIB),
            trust_precompiled: settings.trust_precompiled.unwrap_or(false),
            defaults: Limits {
                cpu_quota: settings.cpu_quota.unwrap_or(defaults.cpu_quota),
                memory: default_memory(settings.memory_request, units)?,
                timeout: settings.invocation_timeout.unwrap_or(defaults.timeout),
            },
            caps,
            max_body: bytes(settings.max_body, 1 << 30),
            max_output: bytes(settings.max_output, 4 << 30),
            output_buffer_bytes,
            engine: EngineSize {
                invocations: max_invocations,
                keep_resident: keep_resident(memory_limit, max_invocations),
                max_memory: LARGEST_MEMORY as usize,
                max_wasm_stack,
            },
            cgroup: CgroupSettings {
                enable: settings.enable_cgroups.unwrap_or(cgroup::Enable::Auto),
                mode: settings.cgroup_mode.unwrap_or(cgroup::Mode::Pinned),
                root: settings.cgroup_root,
                pod_uid: settings.pod_uid,
                period: cpu_period,
            },
            capacity: Capacity {
                units,
                depth: settings.queue_depth_resource_units.unwrap_or(units.saturating_mul(2)),
                invocations: max_invocations as usize,
            },
            asked_memory_limit,
            thresholds,
            preallocation: settings
                .enable_mem_pre_allocation
                .unwrap_or(false)
                .then(|| settings.mem_pre_allocation_ratio.unwrap_or(Fraction::percent(50))),
            max_connections,
            io_threads,
            compile_jobs,
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

fn within(name: &'static str, value: u64, least: u64, most: u64) -> Result<(), ConfigError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(ConfigError::Value { name, value: value.to_string(), expected: format!("{least} to {most}") })
}

fn at_most(name: &'static str, value: u64, most: u64) -> Result<(), ConfigError> {
    within(name, value, 0, most)
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

/// In a small box the default is what it can admit at most; a default that was set must be admissible.
fn default_memory(set: Option<MemoryRequest>, units: u64) -> Result<MemoryRequest, ConfigError> {
    let most = MemoryRequest::from_bytes(units.saturating_mul(MIB)).unwrap_or(MemoryRequest::MAX);
    match set {
        Some(set) if set > most => Err(ConfigError::Value {
            name: "--memory-request",
            value: set.to_string(),
            expected: format!("at most what is admitted at once, {most}"),
        }),
        Some(set) => Ok(set),
        None => Ok(MemoryRequest::DEFAULT.min(most)),
    }
}

/// The container's memory limit or the machine's memory, whichever is less; bytes.
fn available_memory() -> u64 {
    let system = rustix::system::sysinfo();
    let machine = system.totalram.saturating_mul(u64::from(system.mem_unit).max(1));
    Container::open().memory_limit().map_or(machine, |limit| limit.min(machine))
}

/// What each slot may keep, so that all of them together keep an eighth of the memory at most: whole pages, at most 2 MiB.
fn keep_resident(memory_limit: u64, invocations: u32) -> usize {
    const MOST: u64 = 2 << 20;
    let each = (memory_limit / 8 / u64::from(invocations.max(1))).min(MOST);
    usize::try_from(each & !0xfff).unwrap_or(0)
}

#[cfg(test)]
mod tests;
