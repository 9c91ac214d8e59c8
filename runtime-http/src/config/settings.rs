//! The settings by name: what flags, environment and a TOML file can say, each once.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use clap::{Args, CommandFactory, FromArgMatches, Parser};
use serde::{Deserialize, Serialize};

use super::ConfigError;
use crate::{
    admission::OverbookingRatio,
    cgroup,
    invocation::OutboundHost,
    limits::{Cores, CpuQuota, Fraction, InvocationTimeout, MemoryLimit, MemoryRequest},
    logging::LogFormat,
    reporter::QueueProxyHost,
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
    /// Directory of code that the node compiled, read-only for this box; `none` does without [default: none]
    #[arg(long, value_name = "DIR")]
    pub node_cache_dir: Option<CacheDir>,
    /// Socket of the node's compile service, which fills that directory [default: none]
    #[arg(long, value_name = "SOCKET")]
    pub compile_socket: Option<PathBuf>,
    /// Most compiled code held ready in memory [default: a quarter of the memory limit, at most 1Gi]
    #[arg(long, value_name = "SIZE")]
    pub module_memory: Option<MemoryRequest>,
    /// Largest module file [default: an eighth of the memory limit, 16Mi to 256Mi]
    #[arg(long, value_name = "SIZE")]
    pub max_module_size: Option<MemoryRequest>,
    /// Run native images (.cwasm) found in the functions directory: only if nobody else can write there
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub trust_precompiled: Option<bool>,
    /// CPU of an invocation that names none, in millicores [default: 500]
    #[arg(long, value_name = "QUOTA")]
    pub cpu_quota: Option<CpuQuota>,
    /// Memory limit of an invocation that names none, MiB or with suffix [default: 200, or a quarter of what is admitted if that is less]
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
    /// Memory-Request waiting at most, in MiB [default: twice what is admitted, or 256 invocations if that is more]
    #[arg(long, value_name = "MIB")]
    pub queue_depth_resource_units: Option<u64>,
    /// Most client connections at once [default: 8192, or what a twentieth of the memory holds]
    #[arg(long, value_name = "NUMBER")]
    pub max_connections: Option<usize>,
    /// How long a new connection may take to send its first request's head [default: 10s]
    #[arg(long, value_name = "TIME")]
    pub head_timeout: Option<InvocationTimeout>,
    /// How long a connection may be idle between requests [default: 2m]
    #[arg(long, value_name = "TIME")]
    pub idle_timeout: Option<InvocationTimeout>,
    /// How long a client may send nothing of a request body that is waited for [default: 30s]
    #[arg(long, value_name = "TIME")]
    pub body_timeout: Option<InvocationTimeout>,
    /// How long a client may take nothing of its answer [default: 30s]
    #[arg(long, value_name = "TIME")]
    pub send_timeout: Option<InvocationTimeout>,
    /// Threads that serve connections [default: one for two cores, at most 4]
    #[arg(long, value_name = "NUMBER")]
    pub io_threads: Option<usize>,
    /// Modules compiled at once [default: 2]
    #[arg(long, value_name = "NUMBER")]
    pub compile_jobs: Option<usize>,
    /// Most memory of one compilation, at least 64Mi [default: half of the memory limit divided by --compile-jobs, at most 4Gi]
    #[arg(long, value_name = "SIZE")]
    pub compile_memory: Option<MemoryRequest>,
    /// Longest compilation, ms or with unit [default: 10m]
    #[arg(long, value_name = "TIME")]
    pub compile_time: Option<InvocationTimeout>,
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
    ("node-cache-dir", &["NODE_CACHE_DIR"]),
    ("compile-socket", &["COMPILE_SOCKET"]),
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
    ("head-timeout", &["HEAD_TIMEOUT"]),
    ("idle-timeout", &["IDLE_TIMEOUT"]),
    ("body-timeout", &["BODY_TIMEOUT"]),
    ("send-timeout", &["SEND_TIMEOUT"]),
    ("io-threads", &["IO_THREADS"]),
    ("compile-jobs", &["COMPILE_JOBS"]),
    ("compile-memory", &["COMPILE_MEMORY"]),
    ("compile-time", &["COMPILE_TIME"]),
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

/// A parser for the settings alone, through which the environment goes too: one grammar for both.
#[derive(Parser)]
#[command(no_binary_name = true)]
pub(super) struct Alone {
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
