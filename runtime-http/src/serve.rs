//! `wasmbox serve`: from configuration to the last answer.

use std::{
    pin::pin,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use http::HeaderValue;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{Semaphore, oneshot},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::{
    admin::Admin,
    admission::Admission,
    api::{Api, ApiSettings},
    boot::{self, BootError},
    config::{Config, WasmRuntime},
    container::Container,
    core::Core,
    exchange::{budget::Budgets, request_body::BodyBounds},
    io::IoThreads,
    logging,
    memory::MemoryBudget,
    metrics::Metrics,
    privileges::{self, Unconfined},
    readiness::Readiness,
    reporter::Reporter,
    sampler::Sampler,
    sandbox::KeepLast,
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
/// How long threads may take to end when nothing is left to do. One may be stuck in the kernel, in a file system that does not answer.
const JOIN_TIME: Duration = Duration::from_secs(5);
/// The status of a process that a second SIGTERM ended.
const ENDED_AT_ONCE: i32 = 128 + 15;

/// Serves until SIGTERM or SIGINT, then drains.
///
/// # Errors
/// Whatever prevents the start, with what to do about it.
pub fn serve(config: Config) -> anyhow::Result<()> {
    // Before there is a thread that would keep what is given up.
    privileges::access::make_cache_dir(&config);
    let roots = boot::roots(&config)?;
    let tokens = config.uploads.token_file.as_deref().map(Tokens::load).transpose()?;
    let given_up = privileges::give_up(&config).map_err(Unconfined::from)?;
    let logs = logging::start(&config.log_level, config.log_format).map_err(anyhow::Error::msg)?;
    for missing in &given_up.missing {
        tracing::warn!("not given up: {missing}; a guest that escapes its sandbox has more to try (--confine)");
    }
    let metrics = Arc::new(Metrics::new());
    let descriptors = raise_descriptor_limit();
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
    let sizing = Arc::new(Sizing::new(config.admitted.clone(), limit, config.capacity.invocations));
    // What is neither a connection nor a guest: loading, accepting, and the timers and sockets behind guests' host calls.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("main")
        .on_thread_start(cgroups.leave())
        .enable_all()
        .build()
        .map_err(BootError::Threads)?;
    let io = Arc::new(IoThreads::start(config.io_threads).map_err(BootError::Threads)?);
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
        },
        metrics.clone(),
    )?;
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
        memory: MemoryBudget::new(metrics.growth_waits.clone(), metrics.evicted.clone()),
        budgets: config.budgets.clone(),
        admin_budgets: Budgets::new(limit / ADMIN_SHARE, ADMIN_CONNECTIONS),
        metrics: metrics.clone(),
        readiness: Readiness::new(config.readiness, container.clone(), sizing.clone()),
        sizing,
        draining: AtomicBool::new(false),
        over: CancellationToken::new(),
    });
    let uploads =
        Uploads::new(&config, tokens, core.store.clone(), &core.admin_budgets.bodies, runtime.handle().clone());
    let settings = ApiSettings {
        defaults: config.defaults,
        caps: config.caps,
        body: BodyBounds {
            length: config.max_body.bytes(),
            pause: config.body_timeout,
            budget: config.budgets.bodies.clone(),
        },
        max_output: config.max_output.bytes(),
        stderr_in_errors: if config.stderr_in_errors { KeepLast::Lines } else { KeepLast::Nothing },
        preallocation: config.preallocation,
        pod: HeaderValue::from_str(&config.pod_name).unwrap_or(HeaderValue::from_static("unknown")),
    };
    let pod = settings.pod.to_str().unwrap_or_default().to_owned();
    let api = Arc::new(Api { settings, core: core.clone() });
    let status = Arc::new(StatusSource::new(core.clone(), pod, container.clone()));
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
        let parts = Parts { api: api.clone(), status, uploads, server, admin, io, reporter };
        let next_signal = serve_until_signal(parts, signals, config.drain_timeout, &logs).await;
        end_within(JOIN_TIME, move || drop((sampler, api, core)), next_signal, &logs).await;
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
    status: Arc<StatusSource>,
    uploads: Arc<Uploads>,
    server: Server,
    admin: Server,
    io: Arc<IoThreads>,
    reporter: Option<Reporter>,
}

/// The signals that end a server.
struct Signals([Signal; 2]);

impl Signals {
    async fn next(&mut self) -> &'static str {
        let [terminate, interrupt] = &mut self.0;
        tokio::select! { _ = terminate.recv() => "SIGTERM", _ = interrupt.recv() => "SIGINT" }
    }

    /// Waits for a second one, and ends the process.
    async fn end_at_once(&mut self, logs: &logging::Logs) -> ! {
        let name = self.next().await;
        tracing::warn!("second signal ({name}): ending at once");
        logs.flush();
        std::process::exit(ENDED_AT_ONCE)
    }
}

/// Gives back the signals, of which one has come.
async fn serve_until_signal(
    parts: Parts,
    signals: [Signal; 2],
    drain_timeout: Duration,
    logs: &logging::Logs,
) -> Signals {
    let Parts { api, status, uploads, server, admin, io, reporter } = parts;
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
        let (port, lost) = (Arc::new(Admin { api: api.clone(), status, uploads }), logs.lost());
        tokio::spawn(admin.serve(
            io,
            move |request, peers| {
                let metric = &port.api.core.metrics.lost_log_lines;
                metric.inc_by(lost().saturating_sub(metric.get()));
                let port = port.clone();
                async move {
                    match request {
                        Ok(request) => port.handle(request, peers.client).await,
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
        closing.cancel();
        let _ = tokio::join!(admin, reporter);
    };
    tokio::select! {
        () = drained => {}
        _ = signals.end_at_once(logs) => {}
    }
    signals
}

/// The box is not ready any more, and takes no new connection. What arrives on open ones is served, until they are closed or idle; what
/// has not ended after `timeout` is stopped.
async fn drain(core: &Core, ending: &Ending, functions: JoinHandle<()>, timeout: Duration) {
    core.set_draining();
    ending.drain.cancel();
    let mut functions = pin!(functions);
    let served = async {
        let _ = functions.as_mut().await;
        // The client of one that still runs has left.
        core.admission.idle().await;
    };
    if tokio::time::timeout(timeout, served).await.is_ok() {
        return;
    }
    tracing::warn!(in_flight = core.admission.in_flight(), "the drain time is over: stopping what still runs");
    core.end_invocations().await;
    ending.close.cancel();
    if !functions.is_finished() {
        let _ = functions.await;
    }
}

/// Has `last` done, which joins threads. If that takes longer than `time` the process ends without.
async fn end_within(time: Duration, last: impl FnOnce() + Send + 'static, mut signals: Signals, logs: &logging::Logs) {
    let (sender, done) = oneshot::channel();
    let joining = std::thread::Builder::new().name("end".into()).spawn(move || {
        last();
        let _ = sender.send(());
    });
    if joining.is_err() {
        // Then it was dropped, on this thread.
        return;
    }
    tokio::select! {
        _ = done => {}
        () = tokio::time::sleep(time) => {
            tracing::error!("a thread does not end: ending without it");
            logs.flush();
            std::process::exit(0);
        }
        _ = signals.end_at_once(logs) => {}
    }
}

/// Each connection needs a descriptor; the soft limit is often 1,024. Gives how many there may be.
fn raise_descriptor_limit() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!("cannot raise the limit on open files from {:?}: {error}", limit.current);
    }
    let descriptors = getrlimit(Resource::Nofile).current.and_then(|limit| usize::try_from(limit).ok());
    descriptors.unwrap_or(Semaphore::MAX_PERMITS).min(Semaphore::MAX_PERMITS)
}
