//! `wasmbox run`: one invocation on the caller's terminal.

use std::{
    path::Path,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    boot,
    cgroup::Enable,
    cli::RunArgs,
    config::{Config, Settings},
    engine::tier::Tiers,
    invocation::{CancelToken, Failure, Grants, InvocationId},
    limits::{CpuQuota, Limits},
    memory::MemoryBudget,
    metrics::Metrics,
    sandbox::{self, Call, CommandInput, KeepLast, Program, Setup, Stderr, Stdio, outbound::InvocationAccess},
    store::compiler::Prepared,
    terminating_signals,
    worker::run::Invocation,
};
use anyhow::Context;

/// Runs the module and gives its exit code, or the one that says why there is none.
///
/// # Errors
/// If the module cannot be run at all.
pub fn run(arguments: RunArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    terminating_signals::end_the_first_process(&runtime)?;
    let metrics = Arc::new(Metrics::new());
    let mut settings = Settings::default();
    settings.places.cache_dir = arguments.cache_dir.clone();
    settings.places.node_cache_dir = arguments.node_cache_dir.clone();
    settings.places.compile_socket = arguments.compile_socket.clone();
    // Its one answer is not worth two compilations.
    settings.modules.tiers = Some(Tiers::Off);
    settings.capacity.max_invocations = Some(1);
    settings.cpu.enable_cgroups = Some(if arguments.cpu_quota.is_some() { Enable::True } else { Enable::False });
    settings.cpu.cgroup_root = arguments.cgroup_root;
    let config = Config::new(settings)?;
    let wasm = boot::Wasm::new(&config, &metrics)?;
    let cgroups = boot::cgroups(&config, &metrics)?;
    let program = load(&wasm, &arguments.module).with_context(|| arguments.module.display().to_string())?;
    let name = arguments.module.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let mut args = vec![name.clone()];
    args.extend(arguments.args);
    let input = CommandInput { args, env: Vec::new(), stdio: Stdio::Inherit };
    let call = match program {
        Program::Core(program) => Call::Core(program, input),
        Program::Command(program) => Call::Command(program, input),
        Program::Http(_) => anyhow::bail!(
            "{} answers HTTP requests and is no command; serve it: wasmbox serve --functions-dir {}",
            arguments.module.display(),
            arguments.module.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new(".")).display()
        ),
    };
    let id = InvocationId::next();
    let function: Arc<str> = name.into();
    let setup = Setup {
        id,
        stderr: Stderr::new(function.clone(), id, KeepLast::Nothing),
        outbound: Arc::new(InvocationAccess::none(id, function.clone())),
        function,
        grants: Arc::new(Grants { env: arguments.env, preopens: arguments.dir, ..Grants::default() }),
        limits: Limits {
            cpu_quota: arguments.cpu_quota.unwrap_or(CpuQuota::MAX),
            memory: arguments.memory_request,
            timeout: arguments.invocation_timeout,
        },
        deadline: Instant::now() + arguments.invocation_timeout.duration(),
        max_output: u64::MAX,
        max_body: u64::MAX,
        buffer_limit: 0,
        preallocated: 0,
        config: Arc::default(),
        files: None,
        reuse: None,
        keyvalue: None,
        // Nothing sets a ceiling: the terminal's user has the machine's memory.
        memory: MemoryBudget::new(metrics.growth_waits.clone(), metrics.evicted.clone())
            .reserve(id, CancelToken::default()),
    };
    let mut failure = None;
    {
        let _context = runtime.enter();
        let (reply, _) = sandbox::reply();
        let mut invocation = Invocation::new(call, setup, reply);
        let finished = invocation.run(&mut cgroups.thread(), &wasm.ticker.awake());
        failure.clone_from(&finished.outcome.failure);
        invocation.end(finished, None);
    }
    // A guest may have left a read of the terminal behind.
    runtime.shutdown_timeout(Duration::ZERO);
    Ok(failure.map_or(ExitCode::SUCCESS, |failure| report(&failure)))
}

fn load(wasm: &boot::Wasm, path: &Path) -> anyhow::Result<Program> {
    let compiled = match wasm.compiler.prepare(std::fs::read(path)?, None)? {
        Prepared::Ready(compiled) => compiled,
        Prepared::Wasm(source) => wasm.compiler.compile(source.into_module()?)?,
    };
    Ok(wasm.compiler.program(&compiled)?)
}

/// Says on standard error why there is no exit code of the guest; the codes are those that `timeout`, the kernel and wasmtime use.
fn report(failure: &Failure) -> ExitCode {
    let code = match failure {
        // The system keeps the low eight bits; what would become success there must not.
        Failure::Exit { code } => {
            return ExitCode::from(u8::try_from(*code & 0xff).ok().filter(|code| *code != 0).unwrap_or(1));
        }
        // What it wrote is to be seen already.
        Failure::Reported { failure, .. } => return report(failure),
        Failure::Trap { .. } => 134,
        Failure::MemoryLimit { .. } => 137,
        Failure::DeadlineExceeded { .. } => 124,
        Failure::OutputLimit { .. }
        | Failure::BadHeader { .. }
        | Failure::NoResponse { .. }
        | Failure::BodyTooLarge { .. }
        | Failure::BodyUnreadable { .. }
        | Failure::ClientGone
        | Failure::Draining
        | Failure::Evicted
        | Failure::PreopenUnavailable { .. }
        | Failure::NoSlot
        | Failure::Internal { .. } => 1,
    };
    eprintln!("wasmbox: {failure}");
    ExitCode::from(code)
}
