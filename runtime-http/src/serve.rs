//! `wasmbox serve`: from configuration to the last answer. [`ending`]: what happens at the end.

mod ending;

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use http::HeaderValue;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use wasmbox_cgroup::Cgroup;

use self::ending::{Signals, drain, end_within};
use crate::{
    admin::Admin,
    admission::Admission,
    api::{Api, ApiSettings, root_page::RootPage},
    boot::{self, BootError},
    config::{Config, WasmRuntime},
    container::Container,
    core::Core,
    exchange::{budget::Budgets, request_body::BodyBounds},
    function_log::FunctionLogs,
    io::IoThreads,
    logging,
    memory::{MemoryBudget, reclaim::Spare},
    metrics::Metrics,
    overview::source::OverviewSource,
    privileges::{self, Unconfined},
    readiness::Readiness,
    reporter::Reporter,
    sampler::Sampler,
    sandbox::{KeepLast, KeptInstances},
    server::{Ending, NoMemory, Server, patience::Timeouts},
    sizing::Sizing,
    status::StatusSource,
    store::StoreThreads,
    upload::{Uploads, token::Tokens},
    worker::{PoolSettings, WorkerPool},
};

/// The admin port: a few probes and scrapers, whose requests are small and answered at once.
const ADMIN_CONNECTIONS: usize = 512;
const ADMIN_TIMEOUTS: Timeouts =
    Timeouts { head: Duration::from_secs(5), idle: Duration::from_secs(60), send: Duration::from_secs(10) };
/// The admin port's budgets are this part of the function port's.
const ADMIN_SHARE: u64 = 4;
/// Counts of functions that are not in memory any more: of one for so many bytes of memory, less than 1/128 of it.
const KEPT_PART: u64 = 64 << 10;
const MOST_KEPT: usize = 16 << 10;
/// How long threads may take to end when nothing is left to do. One may be stuck in the kernel, in a file system that does not answer.
const JOIN_TIME: Duration = Duration::from_secs(5);

/// Serves until SIGTERM or SIGINT, then drains.
///
/// # Errors
/// Whatever prevents the start, with what to do about it.
pub fn serve(config: Config) -> anyhow::Result<()> {
    let descriptors = boot::descriptors()?;
    // Before there is a thread that would keep what is given up.
    privileges::access::make_directories(&config);
    // While the quota of its cgroup can be read.
    let all_cores = || std::thread::available_parallelism().map_or(1, usize::from) as f64;
    let cores = Cgroup::own("cpu").ok().and_then(|cgroup| cgroup.cpu_limit()).unwrap_or_else(all_cores);
    let roots = boot::roots(&config)?;
    let trace_roots = boot::trace_roots(&config)?;
    let tokens = config.uploads.token_file.as_deref().map(Tokens::load).transpose()?;
    let given_up = privileges::give_up(&config).map_err(Unconfined::from)?;
    let logs = logging::start(&config.log_level, config.log_format).map_err(anyhow::Error::msg)?;
    for missing in &given_up.missing {
        tracing::warn!("not given up: {missing}; a guest that escapes its sandbox has more to try (--confine)");
    }
    let metrics = Arc::new(Metrics::new());
    metrics
        .activities
        .keep(usize::try_from(config.thresholds.memory_limit / KEPT_PART).unwrap_or(MOST_KEPT).min(MOST_KEPT));
    if config.wasm_runtime == WasmRuntime::Wasmedge {
        tracing::info!(
            "WASM_RUNTIME=wasmedge: wasmtime runs its modules; sections made by WasmEdge's compiler are ignored"
        );
    }
    let directory = boot::functions_dir(&config)?;
    let cgroups = boot::cgroups(&config, &metrics)?;
    let wasm = boot::Wasm::new(&config, &metrics)?;
    let engines = wasm.compiler.engines().clone();
    let container = Arc::new(Container::for_limit(config.thresholds.memory_limit));
    let limit = config.thresholds.memory_limit;
    if let Some(asked) = config.asked_memory_limit.filter(|asked| *asked > limit) {
        tracing::warn!(
            "--memory-limit (MEMORY_LIMIT) is {} MiB, there are {} MiB, which count",
            asked >> 20,
            limit >> 20
        );
    }
    for ignored in &config.ignored {
        tracing::warn!("{ignored}; it is ignored");
    }
    let sizing = Arc::new(Sizing::new(config.admitted.clone(), limit, config.capacity.invocations));
    // What is neither a connection nor a guest: waiting for the compiler, accepting, and the timers and sockets behind guests' host calls.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("main")
        .on_thread_start(cgroups.leave())
        .enable_all()
        .build()
        .map_err(BootError::Threads)?;
    let io = Arc::new(IoThreads::start(config.io_threads).map_err(BootError::Threads)?);
    // Before a function is loaded.
    let logs_of_functions = tokens.is_some().then(|| FunctionLogs::start(limit, Arc::new(cgroups.leave()))).transpose();
    let logs_of_functions = logs_of_functions.map_err(BootError::Threads)?.map(|(logs, sender)| {
        let _ = metrics.logs.set(sender);
        logs
    });
    let cached = if wasm.compiler.has_cache() { "with" } else { "without" };
    let store = boot::store(
        &config,
        directory,
        wasm.compiler,
        descriptors,
        StoreThreads {
            runtime: runtime.handle().clone(),
            file_access: Arc::new(cgroups.leave()),
            outbound: boot::outbound(&config, &roots, descriptors, &cgroups, &metrics)?,
            keyvalue: boot::keyvalue(&config, &cgroups, &metrics)?,
        },
        metrics.clone(),
    )?;
    let instances = KeptInstances::start(config.reuse.bounds, metrics.instances.clone(), cgroups.leave())
        .map_err(BootError::Threads)?;
    let memory = MemoryBudget::new(metrics.growth_waits.clone(), metrics.evicted.clone());
    let spare: Arc<dyn Spare> = instances.clone();
    memory.set_spare(Arc::downgrade(&spare));
    let core = Arc::new(Core {
        store,
        admission: Admission::new(config.capacity, metrics.clone()),
        workers: WorkerPool::new(PoolSettings {
            runtime: runtime.handle().clone(),
            epochs: wasm.ticker.awake(),
            cgroups: cgroups.clone(),
            inline: config.inline,
            keep_idle: config.worker_idle,
            workers: metrics.workers.clone(),
            start_failures: metrics.worker_start_failures.clone(),
            slices: metrics.slices.clone(),
        })
        .map_err(BootError::Threads)?,
        memory,
        instances,
        budgets: config.budgets.clone(),
        admin_budgets: Budgets::new(limit / ADMIN_SHARE, ADMIN_CONNECTIONS),
        metrics: metrics.clone(),
        readiness: Readiness::new(config.readiness, container.clone(), sizing.clone()),
        sizing,
        draining: AtomicBool::new(false),
        over: CancellationToken::new(),
    });
    let uploads = Uploads::new(
        &config,
        tokens,
        logs_of_functions.clone(),
        core.store.clone(),
        runtime.handle().clone(),
        metrics.clone(),
    );
    let settings = ApiSettings {
        defaults: config.defaults,
        caps: config.caps,
        body: BodyBounds { length: config.max_body.bytes(), pause: config.body_timeout },
        max_output: config.max_output.bytes(),
        stderr_in_errors: if config.stderr_in_errors { KeepLast::Lines } else { KeepLast::Nothing },
        preallocation: config.preallocation,
        root_page: RootPage::new(&config.pages.listed_functions),
        pod: HeaderValue::from_str(&config.pod_name).unwrap_or(HeaderValue::from_static("unknown")),
    };
    let pod = settings.pod.to_str().unwrap_or_default().to_owned();
    let (exporter, traces) = boot::traces(&config, &trace_roots, &cgroups, &metrics)?.unzip();
    let api = Arc::new(Api { settings, core: core.clone(), traces });
    let status = Arc::new(StatusSource::new(core.clone(), pod, container.clone()));
    let shows = (uploads.are_on(), config.pages.live_page);
    let overview = OverviewSource::new(core.clone(), status.clone(), cores, shows, runtime.handle().clone());
    let reporter = config.reporter.map(|settings| Reporter::new(settings, container.clone(), metrics.clone()));
    let sampler = Sampler::start(core.clone(), engines, container, config.thresholds).map_err(BootError::Threads)?;
    let result = runtime.block_on(async {
        let server = Server::bind(
            &config.host,
            config.port,
            "--port (WEBSERVER_PORT) or --host (WEBSERVER_HOST)",
            config.timeouts,
            config.budgets.clone(),
            metrics.connections.clone(),
        )
        .await?;
        let gauge = prometheus::IntGauge::new("admin", "not shown")?;
        let admin = Server::bind(
            &config.admin_host,
            config.admin_port,
            "--admin-port (HEALTHCHECK_PORT) or --admin-host (HEALTHCHECK_HOST)",
            ADMIN_TIMEOUTS,
            core.admin_budgets.clone(),
            gauge,
        )
        .await?;
        let signals = [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?];
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            functions = %config.functions_dir.display(),
            address = %server.address(),
            admin = %admin.address(),
            memory_limit_mib = limit >> 20,
            capacity_mib = config.capacity.units,
            default_memory_request = %config.defaults.memory,
            max_invocations = config.capacity.invocations,
            given_up = %given_up,
            %cgroups,
            "serving, {cached} AOT cache"
        );
        let port = Admin { api: api.clone(), status, uploads, overview, pages: config.pages };
        let parts =
            Parts { api: api.clone(), port: Arc::new(port), server, admin, io, reporter, followed: logs_of_functions };
        let next_signal = serve_until_signal(parts, signals, config.drain_timeout, &logs).await;
        end_within(JOIN_TIME, move || drop((sampler, api, core, exporter)), next_signal, &logs).await;
        Ok::<_, anyhow::Error>(())
    });
    // Compilations that nobody waits for any more are left to the end of the process.
    runtime.shutdown_background();
    result?;
    tracing::info!("ended");
    Ok(())
}

/// What serves, put together.
struct Parts {
    api: Arc<Api>,
    port: Arc<Admin>,
    server: Server,
    admin: Server,
    io: Arc<IoThreads>,
    reporter: Option<Reporter>,
    followed: Option<Arc<FunctionLogs>>,
}

/// Gives back the signals, of which one has come.
async fn serve_until_signal(
    parts: Parts,
    signals: [Signal; 2],
    drain_timeout: Duration,
    logs: &logging::Logs,
) -> Signals {
    let Parts { api, port, server, admin, io, reporter, followed } = parts;
    let ending = Ending::default();
    // Probes, metrics and the report go on while the box drains.
    let closing = ending.close.clone();
    let reporter = tokio::spawn({
        let closing = closing.clone();
        async move {
            if let Some(reporter) = reporter {
                reporter.run(closing).await;
            }
        }
    });
    let functions = {
        let api = api.clone();
        tokio::spawn(server.serve(
            io.clone(),
            move |request, peers| {
                let api = api.clone();
                async move {
                    match request {
                        Ok(request) => api.handle(request, peers).await,
                        Err(NoMemory) => api.no_memory(),
                    }
                }
            },
            ending.clone(),
        ))
    };
    let admin = {
        let lost = logs.lost();
        tokio::spawn(admin.serve(
            io,
            move |request, peers| {
                let metric = &port.api.core.metrics.lost_log_lines;
                metric.inc_by(lost().saturating_sub(metric.get()));
                let port = port.clone();
                async move {
                    match request {
                        Ok(request) => port.handle(request, peers).await,
                        Err(NoMemory) => port.api.no_memory(),
                    }
                }
            },
            Ending { drain: closing.clone(), close: closing.clone() },
        ))
    };
    let mut signals = Signals(signals);
    let name = signals.next().await;
    tracing::info!(in_flight = api.core.admission.in_flight(), "{name}: draining; a second one ends at once");
    let drained = async {
        drain(&api.core, &ending, functions, drain_timeout).await;
        if let Some(followed) = followed {
            followed.end();
        }
        closing.cancel();
        let _ = tokio::join!(admin, reporter);
    };
    tokio::select! {
        () = drained => {}
        _ = signals.end_at_once(logs) => {}
    }
    signals
}
