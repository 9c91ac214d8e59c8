//! `wasmbox serve`: from configuration to the last answer.

use std::{sync::Arc, time::Duration};

use http::HeaderValue;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{
    admin,
    admission::Admission,
    api::{Api, ApiSettings},
    boot,
    config::{Config, WasmRuntime},
    container::Container,
    core::Core,
    io::IoThreads,
    logging,
    memory::MemoryBudget,
    metrics::Metrics,
    readiness::Readiness,
    reporter::Reporter,
    sampler::Sampler,
    server::Server,
    status::StatusSource,
    worker::WorkerPool,
};

/// Connections to the admin port: a few probes and scrapers.
const ADMIN_CONNECTIONS: usize = 64;
/// The status of a process that a second SIGTERM ended.
const ENDED_AT_ONCE: i32 = 128 + 15;

/// Serves until SIGTERM or SIGINT, then drains.
///
/// # Errors
/// Whatever prevents the start, with what to do about it.
pub fn serve(config: Config) -> anyhow::Result<()> {
    let logs = logging::start(&config.log_level, config.log_format).map_err(anyhow::Error::msg)?;
    let metrics = Arc::new(Metrics::new());
    raise_descriptor_limit();
    if config.wasm_runtime == WasmRuntime::Wasmedge {
        tracing::info!(
            "WASM_RUNTIME=wasmedge: wasmtime runs its modules; sections made by WasmEdge's compiler are ignored"
        );
    }
    let directory = boot::functions_dir(&config)?;
    let cgroups = boot::cgroups(&config, &metrics)?;
    let wasm = boot::Wasm::new(&config, &metrics)?;
    let engine = wasm.toolchain.engine().clone();
    let container = Arc::new(Container::for_limit(config.thresholds.memory_limit));
    let limit = config.thresholds.memory_limit;
    if let Some(asked) = config.asked_memory_limit.filter(|asked| *asked > limit) {
        tracing::warn!(
            "--memory-limit (MEMORY_LIMIT) is {} MiB, there are {} MiB, which count",
            asked >> 20,
            limit >> 20
        );
    }
    // What is neither a connection nor a guest: loading, accepting, and the timers and sockets behind guests' host calls.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).thread_name("main").enable_all().build()?;
    let io = Arc::new(IoThreads::start(config.io_threads)?);
    let cached = if wasm.compiler.has_cache() { "with" } else { "without" };
    let store = boot::store(&config, directory, wasm.compiler, runtime.handle().clone(), metrics.clone());
    let core = Arc::new(Core {
        store,
        admission: Admission::new(config.capacity, metrics.clone()),
        workers: WorkerPool::new(
            runtime.handle().clone(),
            wasm.ticker.awake(),
            cgroups.clone(),
            config.worker_idle,
            metrics.workers.clone(),
        )?,
        memory: MemoryBudget::new(metrics.growth_waits.clone()),
        metrics: metrics.clone(),
        readiness: Readiness::new(config.readiness, container.clone()),
    });
    let settings = ApiSettings {
        defaults: config.defaults,
        caps: config.caps,
        max_body: config.max_body,
        max_output: config.max_output,
        preallocation: config.preallocation,
        pod: HeaderValue::from_str(&config.pod_name).unwrap_or(HeaderValue::from_static("unknown")),
    };
    let pod = settings.pod.to_str().unwrap_or_default().to_owned();
    let api = Arc::new(Api { settings, core: core.clone() });
    let status = Arc::new(StatusSource::new(core.clone(), pod, container.clone(), config.thresholds.memory_limit));
    let reporter = config.reporter.map(|settings| Reporter::new(settings, container.clone(), metrics.clone()));
    let sampler = Sampler::start(core.clone(), engine, container, config.thresholds)?;
    runtime.block_on(async {
        let server = Server::bind(
            &config.host,
            config.port,
            "--port (WEBSERVER_PORT)",
            config.max_connections,
            metrics.connections.clone(),
        )
        .await?;
        let gauge = prometheus::IntGauge::new("admin", "not shown")?;
        let admin = Server::bind(
            &config.admin_host,
            config.admin_port,
            "--admin-port (HEALTHCHECK_PORT)",
            ADMIN_CONNECTIONS,
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
            %cgroups,
            "serving, {cached} AOT cache"
        );
        let parts = Parts { api: api.clone(), status, server, admin, io, reporter };
        serve_until_signal(parts, signals, config.drain_timeout, &logs).await;
        Ok::<_, anyhow::Error>(())
    })?;
    // Compilations that nobody waits for any more are left to the end of the process.
    runtime.shutdown_background();
    drop(sampler);
    drop(api);
    drop(core);
    tracing::info!("ended");
    Ok(())
}

/// What serves, put together.
struct Parts {
    api: Arc<Api>,
    status: Arc<StatusSource>,
    server: Server,
    admin: Server,
    io: Arc<IoThreads>,
    reporter: Option<Reporter>,
}

async fn serve_until_signal(parts: Parts, signals: [Signal; 2], drain_timeout: Duration, logs: &logging::Logs) {
    let Parts { api, status, server, admin, io, reporter } = parts;
    let closing = CancellationToken::new();
    // It reports while the box drains, too.
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
                async move { api.handle(request, peers).await }
            },
            closing.clone(),
        ))
    };
    let admin = {
        let (api, status, lost) = (api.clone(), status.clone(), logs.lost());
        tokio::spawn(admin.serve(
            io,
            move |request, _| {
                let metric = &api.core.metrics.lost_log_lines;
                metric.inc_by(lost().saturating_sub(metric.get()));
                let response = admin::handle(&api, &status, &request);
                async move { response }
            },
            closing.clone(),
        ))
    };
    let [mut terminate, mut interrupt] = signals;
    let mut next_signal =
        async || tokio::select! { _ = terminate.recv() => "SIGTERM", _ = interrupt.recv() => "SIGINT" };
    let name = next_signal().await;
    tracing::info!(in_flight = api.core.admission.in_flight(), "{name}: draining; a second one ends at once");
    let drained = async {
        api.core.drain(drain_timeout).await;
        closing.cancel();
        let _ = tokio::join!(functions, admin, reporter);
    };
    tokio::select! {
        () = drained => {}
        name = next_signal() => {
            tracing::warn!(in_flight = api.core.admission.in_flight(), "second signal ({name}): ending at once");
            logs.flush();
            std::process::exit(ENDED_AT_ONCE);
        }
    }
}

/// Each connection needs a descriptor; the soft limit is often 1,024.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        tracing::warn!("cannot raise the limit on open files from {:?}: {error}", limit.current);
    }
}
