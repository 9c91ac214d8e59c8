//! Configuration: flags over environment over a TOML file over defaults.
//!
//! [`Settings`] names each setting once; the three sources are three values of that type. [`Config`] is what comes out: checked, complete.
//!
//! - [`settings`]: reading them from the three sources
//! - [`admitted`]: what is admitted where something is set
//! - [`places`], [`admin`], [`invocation`], [`instances`], [`cpu`], [`capacity`], [`reports`], [`modules`], [`outbound`], [`keyvalue`], [`confinement`], [`upload`],
//!   [`pages`], [`traces`]: the settings in groups, with their defaults and bounds

pub mod admin;
pub mod admitted;
pub mod capacity;
pub mod confinement;
pub mod cpu;
pub mod instances;
pub mod invocation;
pub mod keyvalue;
pub mod modules;
pub mod outbound;
pub mod pages;
pub mod places;
pub mod reports;
pub mod settings;
pub mod traces;
pub mod upload;

use std::{fmt::Display, num::NonZeroU64, path::PathBuf, time::Duration};

pub use self::{
    admin::AdminSettings,
    confinement::Confine,
    instances::ReuseConfig,
    modules::WasmRuntime,
    pages::PageConfig,
    places::CacheDir,
    settings::{Settings, with_environment_in_help, without_secrets},
    upload::UploadConfig,
};
use crate::{
    admission::Capacity,
    cgroup::{self, CgroupSettings},
    confined::Allowance,
    container::Container,
    engine::{self, EngineSize, tier::Tiers},
    exchange::budget::Budgets,
    keyvalue::place::KeyvalueConfig,
    limits::{ByteSize, ConfigDuration, Fraction, LimitCaps, Limits},
    logging::LogFormat,
    readiness::ReadinessSettings,
    reporter::ReporterSettings,
    sampler::Thresholds,
    sandbox::outbound::OutboundConfig,
    server::patience::Timeouts,
    sizing::admitted::AdmittedByLimit,
    traces::ExporterSettings,
    worker::Inline,
};

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("environment variable {name}={value:?}: {reason}")]
    Environment { name: String, value: String, reason: String },
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
    pub cache_size: ByteSize,
    /// What the node offers, if it does.
    pub node: Option<NodeSettings>,
    pub module_memory: ByteSize,
    pub max_module_size: ByteSize,
    pub trust_precompiled: bool,
    pub defaults: Limits,
    pub caps: LimitCaps,
    pub max_body: ByteSize,
    pub max_output: ByteSize,
    pub stderr_in_errors: bool,
    pub output_buffer: ByteSize,
    pub engine: EngineSize,
    pub cgroup: CgroupSettings,
    pub confine: Confine,
    pub capacity: Capacity,
    /// How that follows from the memory limit, and the default and the cap of requests with it.
    pub admitted: AdmittedByLimit,
    /// What was set, although there may be less: [`Thresholds::memory_limit`].
    pub asked_memory_limit: Option<u64>,
    pub thresholds: Thresholds,
    pub preallocation: Option<Fraction>,
    pub timeouts: Timeouts,
    /// How long a request body may pause.
    pub body_timeout: Duration,
    pub budgets: Budgets,
    pub io_threads: usize,
    pub inline: Inline,
    pub compile_jobs: usize,
    /// What one of them may use.
    pub compile: Allowance,
    pub tiers: Tiers,
    pub wasi_p3: bool,
    pub worker_idle: Duration,
    pub drain_timeout: Duration,
    pub preopen_roots: Vec<PathBuf>,
    pub reuse: ReuseConfig,
    pub outbound: OutboundConfig,
    pub keyvalue: KeyvalueConfig,
    pub uploads: UploadConfig,
    pub pages: PageConfig,
    /// `None`: there are none.
    pub traces: Option<ExporterSettings>,
    pub wasm_runtime: WasmRuntime,
    pub pod_name: String,
    pub readiness: ReadinessSettings,
    /// `None`: to nobody.
    pub reporter: Option<ReporterSettings>,
    pub log_level: String,
    /// What one function may write to the log, bytes a second; `None`: as much as it likes.
    pub function_log_rate: Option<NonZeroU64>,
    pub log_format: LogFormat,
    /// What the log is to say of variables that are ignored.
    pub ignored: Vec<String>,
}

/// Where a box finds what its node offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSettings {
    /// Compiled code, read-only.
    pub cache_dir: PathBuf,
    /// Who compiles.
    pub compile_socket: Option<PathBuf>,
}

impl Config {
    /// Completes settings with defaults, and checks what depends on more than one of them.
    ///
    /// # Errors
    /// [`ConfigError::Value`], naming the setting, its value, and what is expected.
    pub fn new(settings: Settings) -> Result<Config, ConfigError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let Settings {
            places,
            admin,
            invocation,
            instances,
            cpu,
            capacity,
            reports,
            modules,
            outbound,
            keyvalue,
            confinement,
            upload,
            pages,
            traces,
            without_traces: _,
            ignored,
        } = settings;
        let by_limit = AdmittedByLimit::new(&capacity, &invocation);
        let admitted = by_limit.at(Container::open().available_memory());
        by_limit.check(&admitted)?;
        let memory_limit = admitted.memory_limit;
        let resolved = capacity.resolve(&admitted)?;
        let limits = invocation.resolve(cores, &admitted)?;
        let cgroup = cpu.resolve()?;
        // A cgroup of its own for each invocation is one for its thread.
        let inline = match cgroup.mode {
            cgroup::Mode::Fresh => Inline::Off,
            cgroup::Mode::Pinned => capacity.inline.unwrap_or(Inline::Auto),
        };
        let io_threads = capacity.io_threads.unwrap_or(match inline {
            Inline::Auto => cores.clamp(1, 64),
            Inline::Off => (cores / 2).clamp(1, 4),
        });
        within("--io-threads", io_threads as u64, 1, 64)?;
        let compile_jobs = modules.jobs(memory_limit);
        within("--compile-jobs", compile_jobs as u64, 1, 64)?;
        let compile = modules.compile(memory_limit, compile_jobs)?;
        let max_connections = capacity.max_connections.unwrap_or(8192);
        within("--max-connections", max_connections as u64, 1, 1_000_000)?;
        let outbound = outbound.resolve()?;
        let budgets = Budgets::new(memory_limit, max_connections);
        let budgets = if outbound.allow.is_empty() { budgets } else { budgets.with_outbound(memory_limit) };
        Ok(Config {
            node: places.node()?,
            host: places.host().to_owned(),
            port: places.port(),
            functions_dir: places.functions_dir.unwrap_or_else(|| "functions".into()),
            admin_host: admin.host().to_owned(),
            admin_port: admin.port(),
            cache_dir: places.cache_dir,
            cache_size: modules.cache_size.unwrap_or(ByteSize::of_mebibytes(2 << 10)),
            module_memory: modules.module_memory.unwrap_or(ByteSize::of_bytes((memory_limit / 4).min(1 << 30))),
            max_module_size: modules
                .max_module_size
                .unwrap_or(ByteSize::of_bytes((memory_limit / 8).clamp(16 << 20, 256 << 20))),
            trust_precompiled: modules.trust_precompiled.unwrap_or(false),
            defaults: limits.defaults,
            caps: limits.caps,
            max_body: limits.max_body,
            max_output: limits.max_output,
            stderr_in_errors: limits.stderr_in_errors,
            output_buffer: limits.output_buffer,
            engine: EngineSize {
                invocations: resolved.invocations,
                keep_resident: keep_resident(memory_limit, engine::memory_slots(resolved.invocations)),
                max_memory: engine::LARGEST_MEMORY,
                max_wasm_stack: limits.max_wasm_stack.as_usize(),
                compiles_only: false,
            },
            cgroup,
            confine: confinement.confine.unwrap_or(Confine::Auto),
            capacity: admitted.capacity(resolved.invocations as usize),
            admitted: by_limit,
            asked_memory_limit: resolved.asked_memory_limit,
            thresholds: resolved.thresholds,
            preallocation: capacity
                .enable_mem_pre_allocation
                .unwrap_or(false)
                .then(|| capacity.mem_pre_allocation_ratio.unwrap_or(Fraction::percent(50))),
            timeouts: capacity.timeouts(),
            body_timeout: capacity.body_timeout.unwrap_or(ConfigDuration::from_secs(30)).duration(),
            budgets,
            io_threads,
            inline,
            compile_jobs,
            compile,
            tiers: modules.tiers.unwrap_or(Tiers::Auto),
            wasi_p3: modules.wasi_p3.unwrap_or(true),
            worker_idle: capacity.worker_idle.unwrap_or(ConfigDuration::from_secs(10)).duration(),
            drain_timeout: capacity.drain_timeout.unwrap_or(ConfigDuration::from_secs(30)).duration(),
            preopen_roots: modules::canonical(modules.preopen_root.unwrap_or_default())?,
            reuse: instances.resolve(memory_limit, resolved.invocations)?,
            outbound,
            keyvalue: keyvalue.resolve()?,
            uploads: upload.resolve()?,
            pages: pages.resolve()?,
            traces: traces.resolve()?,
            wasm_runtime: modules.wasm_runtime.unwrap_or(WasmRuntime::Wasmtime),
            pod_name: places
                .pod_name
                .unwrap_or_else(|| rustix::system::uname().nodename().to_string_lossy().into_owned()),
            readiness: reports.readiness()?,
            reporter: reports.reporter()?,
            function_log_rate: NonZeroU64::new(places.function_log_rate.unwrap_or(ByteSize::of_mebibytes(1)).bytes()),
            log_level: places.log_level.unwrap_or_else(|| "info".into()),
            log_format: places.log_format.unwrap_or(LogFormat::Text),
            ignored,
        })
    }
}

fn within<T: PartialOrd + Display>(name: &'static str, value: T, least: T, most: T) -> Result<(), ConfigError> {
    if value >= least && value <= most {
        return Ok(());
    }
    Err(ConfigError::Value { name, value: value.to_string(), expected: format!("{least} to {most}") })
}

/// What each slot may keep, so that all of them together keep an eighth of the memory at most: whole pages, at most 2 MiB.
fn keep_resident(memory_limit: u64, slots: u32) -> usize {
    const MOST: u64 = 2 << 20;
    let each = (memory_limit / 8 / u64::from(slots.max(1))).min(MOST);
    usize::try_from(each & !0xfff).unwrap_or(0)
}

#[cfg(test)]
mod tests;
