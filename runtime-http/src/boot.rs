//! Puts the parts of a box together, in the order in which they need each other.

use std::{io::ErrorKind, iter, path::PathBuf, sync::Arc};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::Semaphore;

use crate::{
    artifacts::{ArtifactCache, CacheError},
    cgroup::{CgroupError, Cgroups},
    config::{CacheDir, Config, places::default_cache_dir, traces::CA_SETTING},
    confined::optional_interfaces::OptionalInterfaces,
    engine::{EngineError, Engines, tier::Tiers},
    epoch,
    invocation::PreopenRoot,
    keyvalue::Keyvalue,
    metrics::Metrics,
    node::client::CompileService,
    sandbox::{Toolchain, outbound::OutboundAccess},
    store::{
        ModuleStore, StoreBounds, StoreThreads,
        compiler::{Caches, Compiler, CompilerSettings, NodeCache},
        file::FunctionsDir,
        function::Defaults,
        settings::OperatorGrants,
    },
    threads,
    tls::{Roots, RootsError},
    traces::{Exporter, Traces},
};

#[derive(Debug, thiserror::Error)]
pub enum BootError {
    #[error(
        "the limit on open files is {limit}, a box needs at least {LEAST_DESCRIPTORS}; raise it (ulimit -n, LimitNOFILE= of systemd)"
    )]
    Descriptors { limit: usize },
    #[error("functions directory {path}: {source}; {}, or name another with --functions-dir", has_to(source))]
    FunctionsDir { path: PathBuf, source: std::io::Error },
    #[error("{} is not a directory; name another with --functions-dir", path.display())]
    NotADirectory { path: PathBuf },
    #[error("--preopen-root {} overlaps with {}, which functions must not see; name another", path.display(), with.display())]
    PreopenRoot { path: PathBuf, with: PathBuf },
    #[error("--preopen-root {}: {source}; let it be a directory that this user may open, or name another", path.display())]
    PreopenRootUnusable { path: PathBuf, source: std::io::Error },
    #[error("--keyvalue-dir {} overlaps with {}, where others may write or read; name another", path.display(), with.display())]
    KeyvalueDir { path: PathBuf, with: PathBuf },
    #[error("--keyvalue-dir {}: {source}; let it be a directory that this user may write to, or leave it out", path.display())]
    KeyvalueUnusable { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Cache(#[from] CacheError),
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error("threads cannot be started: {0}; {remedy}", remedy = threads::REMEDY)]
    Threads(#[from] std::io::Error),
    #[error("what functions may import cannot be linked: {0:#}; this is a fault of this version of wasmbox: report it")]
    Linker(wasmtime::Error),
}

/// The compiler, and what lets its guests yield.
pub struct Wasm {
    pub ticker: epoch::Ticker,
    pub compiler: Compiler,
}

impl Wasm {
    /// For a box with that configuration.
    ///
    /// # Errors
    /// If the engine, or a cache that is configured, cannot be had.
    pub fn new(config: &Config, metrics: &Arc<Metrics>) -> Result<Wasm, BootError> {
        let optional = OptionalInterfaces { wasi_p3: config.wasi_p3, keyvalue: config.keyvalue.place.is_some() };
        Wasm::offering(config, optional, metrics)
    }

    /// # Errors
    /// As [`Wasm::new`].
    pub fn offering(config: &Config, optional: OptionalInterfaces, metrics: &Arc<Metrics>) -> Result<Wasm, BootError> {
        let engines = Engines::new(config.engine, config.tiers == Tiers::Auto)?;
        let ticker = epoch::Ticker::start(engines.clone())?;
        let toolchain = Toolchain::new(engines, optional).map_err(BootError::Linker)?;
        let caches = Caches { own: open_cache(config)?, node: open_node(config)? };
        let settings = CompilerSettings {
            trust_precompiled: config.trust_precompiled,
            allowance: config.compile,
            tiers: config.tiers,
        };
        let compiler = Compiler::new(toolchain, caches, settings, metrics.clone());
        Ok(Wasm { ticker, compiler })
    }
}

/// Raises their soft limit, which is often 1,024, since each connection needs one. Gives how many there may be.
///
/// # Errors
/// If these are too few for any box.
pub fn descriptors() -> Result<usize, BootError> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    // Up to the hard limit everybody may.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let limit = getrlimit(Resource::Nofile).current.and_then(|limit| usize::try_from(limit).ok());
    match limit.unwrap_or(Semaphore::MAX_PERMITS).min(Semaphore::MAX_PERMITS) {
        limit if limit < LEAST_DESCRIPTORS => Err(BootError::Descriptors { limit }),
        limit => Ok(limit),
    }
}

/// # Errors
/// If CPU limits must be enforced and cannot be.
pub fn cgroups(config: &Config, metrics: &Metrics) -> Result<Cgroups, BootError> {
    Ok(Cgroups::start(&config.cgroup, metrics.cgroup.clone())?)
}

/// # Errors
/// If the functions directory is none.
pub fn functions_dir(config: &Config) -> Result<FunctionsDir, BootError> {
    let path = config.functions_dir.clone();
    let metadata = std::fs::metadata(&path).map_err(|source| BootError::FunctionsDir { path: path.clone(), source })?;
    if !metadata.is_dir() {
        return Err(BootError::NotADirectory { path });
    }
    // Else each function would be one that is not there.
    std::fs::read_dir(&path).map_err(|source| BootError::FunctionsDir { path: path.clone(), source })?;
    Ok(FunctionsDir::new(path))
}

/// What a directory has to be that cannot be read.
fn has_to(error: &std::io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::PermissionDenied => "let this user read it and reach it",
        _ => "create it",
    }
}

/// Who vouches for the servers that guests talk to. They are read from files that the box gives up.
///
/// # Errors
/// If the operator names a file that has none.
pub fn roots(config: &Config) -> Result<Roots, RootsError> {
    match &config.outbound.ca {
        None if config.outbound.allow.is_empty() => Ok(Roots::none()),
        file => Roots::load(file.as_deref(), "--outbound-ca (OUTBOUND_CA)"),
    }
}

/// Who vouches for the collector of traces.
///
/// # Errors
/// If the operator names a file that has none.
pub fn trace_roots(config: &Config) -> Result<Roots, RootsError> {
    match &config.traces {
        Some(traces) if traces.endpoint.secure || traces.ca.is_some() => Roots::load(traces.ca.as_deref(), CA_SETTING),
        Some(_) | None => Ok(Roots::none()),
    }
}

/// What sends traces, and what they are told to, if there is a collector.
///
/// # Errors
/// If its thread cannot be started.
pub fn traces(
    config: &Config,
    roots: &Roots,
    cgroups: &Cgroups,
    metrics: &Metrics,
) -> Result<Option<(Exporter, Arc<Traces>)>, BootError> {
    let Some(settings) = &config.traces else { return Ok(None) };
    let (leave, memory) = (Arc::new(cgroups.leave()), config.thresholds.memory_limit);
    let started = Exporter::start(settings, roots, &config.pod_name, memory, metrics.traces.clone(), leave)?;
    Ok(Some(started))
}

/// `descriptors`: how many the process may have.
///
/// # Errors
/// If its thread cannot be started.
pub fn outbound(
    config: &Config,
    roots: &Roots,
    descriptors: usize,
    cgroups: &Cgroups,
    metrics: &Metrics,
) -> Result<Arc<OutboundAccess>, BootError> {
    let leave = Arc::new(cgroups.leave());
    let (budget, gauge) = (config.budgets.outbound.clone(), metrics.outbound.idle.clone());
    Ok(OutboundAccess::start(&config.outbound, roots, descriptors / OUTBOUND_PART, budget, gauge, leave)?)
}

/// # Errors
/// If the place for what functions keep cannot be used.
pub fn keyvalue(config: &Config, cgroups: &Cgroups, metrics: &Metrics) -> Result<Option<Arc<Keyvalue>>, BootError> {
    let directory = config.keyvalue.directory();
    // Without a directory, only the thread for it can be missing.
    let unusable = |source| match directory {
        Some(path) => BootError::KeyvalueUnusable { path: path.clone(), source },
        None => BootError::Threads(source),
    };
    if let Some(directory) = directory {
        crate::keyvalue::make_directory(directory).map_err(unusable)?;
        let path = directory.canonicalize().map_err(unusable)?;
        let functions = config.functions_dir.canonicalize().unwrap_or_else(|_| config.functions_dir.clone());
        if path.starts_with(&functions) || functions.starts_with(&path) {
            return Err(BootError::KeyvalueDir { path, with: functions });
        }
    }
    let memory = config.thresholds.memory_limit;
    let started = Keyvalue::start(&config.keyvalue, memory, metrics.keyvalue.clone(), Arc::new(cgroups.leave()));
    started.map_err(unusable)
}

/// `descriptors`: how many the process may have.
///
/// # Errors
/// [`BootError`], if a directory that may be granted cannot be opened or must not be granted.
pub fn store(
    config: &Config,
    directory: FunctionsDir,
    compiler: Compiler,
    descriptors: usize,
    threads: StoreThreads,
    metrics: Arc<Metrics>,
) -> Result<Arc<ModuleStore>, BootError> {
    let defaults = Defaults {
        limits: config.defaults,
        caps: config.caps,
        buffer_limit: config.output_buffer.as_usize(),
        log_rate: config.function_log_rate,
    };
    let grants = OperatorGrants {
        reuse: Some(config.reuse.most),
        concurrent: Some(config.reuse.most_at_once),
        preopen_roots: preopen_roots(config)?,
        outbound: config.outbound.allow.clone(),
    };
    let bounds = StoreBounds {
        memory: config.module_memory.as_usize(),
        entries: (descriptors / FUNCTIONS_PART).clamp(1, MOST_ENTRIES),
        guests_files: descriptors / GUESTS_PART,
        module: config.max_module_size.bytes(),
        reading: config.thresholds.memory_limit / 8,
        compile_jobs: config.compile_jobs,
    };
    Ok(ModuleStore::new(directory, compiler, defaults, grants, bounds, threads, metrics))
}

/// A box that does nothing has about thirty.
const LEAST_DESCRIPTORS: usize = 64;
/// The most functions, good or bad, held in memory.
const MOST_ENTRIES: usize = 10_000;
/// One descriptor in so many is for files that guests open, one in so many for functions that are loaded, each of which is mapped from a file, and
/// one in so many for connections of guests to others; the rest is for connections of clients and for the box itself.
const GUESTS_PART: usize = 2;
const FUNCTIONS_PART: usize = 8;
const OUTBOUND_PART: usize = 8;

/// Where nothing may be granted: what is there is the kernel's, or the container runtime's.
const NEVER_GRANTED: [&str; 3] = ["/proc", "/sys", "/run/wasmbox"];

/// Opens the directories below which functions may be granted some. A guest that can write to the functions or to the cache, or a directory
/// with these in it, would be another's code.
fn preopen_roots(config: &Config) -> Result<Vec<Arc<PreopenRoot>>, BootError> {
    let own_cache = match &config.cache_dir {
        Some(CacheDir::None) => None,
        Some(CacheDir::Path(path)) => Some(path.clone()),
        None => default_cache_dir(),
    };
    let node = config.node.iter().flat_map(|node| iter::once(&node.cache_dir).chain(&node.compile_socket)).cloned();
    let ours = iter::once(config.functions_dir.clone())
        .chain(own_cache)
        .chain(node)
        .chain(config.keyvalue.directory().cloned());
    let forbidden = NEVER_GRANTED.into_iter().map(PathBuf::from).chain(ours);
    // What is not there yet, like a cache, is what its name says.
    let forbidden: Vec<PathBuf> = forbidden.map(|path| path.canonicalize().unwrap_or(path)).collect();
    let open = |path: &PathBuf| {
        if let Some(with) = forbidden.iter().find(|with| path.starts_with(with) || with.starts_with(path)) {
            return Err(BootError::PreopenRoot { path: path.clone(), with: with.clone() });
        }
        let opened = PreopenRoot::open(path.clone());
        opened.map(Arc::new).map_err(|source| BootError::PreopenRootUnusable { path: path.clone(), source })
    };
    config.preopen_roots.iter().map(open).collect()
}

/// The cache that is configured must work; the default one is left out, with a warning, where it cannot, and where the node has one.
fn open_cache(config: &Config) -> Result<Option<ArtifactCache>, CacheError> {
    match &config.cache_dir {
        Some(CacheDir::None) => Ok(None),
        Some(CacheDir::Path(path)) => ArtifactCache::open(path, config.cache_size.bytes()).map(Some),
        // In a container the default one would be gone with it.
        None if config.node.is_some() => Ok(None),
        None => {
            let Some(path) = default_cache_dir() else {
                tracing::warn!(
                    "no AOT cache: neither XDG_CACHE_HOME nor HOME is set; name a directory with --cache-dir"
                );
                return Ok(None);
            };
            Ok(ArtifactCache::open(&path, config.cache_size.bytes())
                .map_err(|error| tracing::warn!("no AOT cache: {error}"))
                .ok())
        }
    }
}

/// Its service need not be there yet, or any more: then the box compiles itself.
fn open_node(config: &Config) -> Result<Option<NodeCache>, CacheError> {
    let Some(node) = &config.node else { return Ok(None) };
    let cache = ArtifactCache::open_mapped(&node.cache_dir)?;
    Ok(Some(NodeCache::new(cache, node.compile_socket.clone().map(CompileService::new))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_prevents_the_start_says_what_to_do() {
        let io = || std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let path = || PathBuf::from("/srv");
        for (error, remedy) in [
            (
                BootError::FunctionsDir { path: path(), source: io() },
                "let this user read it and reach it, or name another with --functions-dir",
            ),
            (
                BootError::FunctionsDir { path: path(), source: ErrorKind::NotFound.into() },
                "create it, or name another with --functions-dir",
            ),
            (BootError::NotADirectory { path: path() }, "name another with --functions-dir"),
            (BootError::PreopenRoot { path: path(), with: path() }, "name another"),
            (BootError::PreopenRootUnusable { path: path(), source: io() }, "or name another"),
            (BootError::KeyvalueDir { path: path(), with: path() }, "name another"),
            (BootError::KeyvalueUnusable { path: path(), source: io() }, "or leave it out"),
            (CacheError::Io { path: path(), source: io() }.into(), "or none with --cache-dir=none"),
            (CgroupError::Thread(io()).into(), threads::REMEDY),
            (BootError::Threads(io()), threads::REMEDY),
            (BootError::Descriptors { limit: 16 }, "of systemd)"),
            (BootError::Linker(wasmtime::Error::msg("no")), "report it"),
        ] {
            assert!(error.to_string().ends_with(remedy), "{error}");
        }
    }
}
