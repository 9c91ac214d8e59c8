//! `wasmbox`: see `wasmbox --help`.

use std::{env, ffi::OsString, path::PathBuf, process::ExitCode};

use clap::FromArgMatches;
use wasmbox::{
    allocator::Allocator,
    cli::{self, Cli, Command},
    compile,
    config::{Config, Settings, without_secrets},
    confined, deploy,
    develop::{build, dev, invoke, local_box, new},
    doctor::{self, first::FirstProcess},
    explain, manual, node, run, serve,
    terminal::{status, top},
};

/// What one thread allocates another frees, for each invocation several times: the system's allocator takes a lock for that, this does not.
#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

fn main() -> ExitCode {
    // The allocator asks for huge pages: that takes several times the memory, and clearing 2 MiB for each thread's few kilobytes
    // is what a cold start then waits for. Where the kernel cannot be told, nothing is lost.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    let matches = cli::command().try_get_matches().unwrap_or_else(|error| without_secrets(error).exit());
    let result = Cli::from_arg_matches(&matches).map_err(Into::into).and_then(|cli| execute(cli.command));
    result.unwrap_or_else(|error: anyhow::Error| {
        eprintln!("wasmbox: {}", with_causes(&error));
        ExitCode::FAILURE
    })
}

/// The error and its causes; not those that it names already.
fn with_causes(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |text, cause| {
        let cause = cause.to_string();
        if text.is_empty() {
            cause
        } else if text.contains(&cause) {
            text
        } else {
            format!("{text}: {cause}")
        }
    })
}

fn execute(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve(arguments) => {
            serve::serve(configuration(arguments.config, arguments.settings)?)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::ServeLocal(arguments) => {
            local_box::end_with_parent(arguments.parent)?;
            serve::serve(configuration(arguments.serve.config, arguments.serve.settings)?)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::New(arguments) => Ok(new::new(&arguments)?),
        Command::Dev(arguments) => dev::dev(&arguments),
        Command::Build(arguments) => build::build(&arguments),
        Command::Invoke(arguments) => invoke::invoke(&arguments, &settings(None, Settings::default())?),
        Command::Run(arguments) => run::run(arguments),
        Command::Compile(arguments) => {
            compile::compile(configuration(arguments.config, arguments.settings)?, arguments.check)
        }
        Command::Status(arguments) => {
            let settings = settings(None, Settings { admin: arguments.place.admin.clone(), ..Settings::default() })?;
            Ok(status::status(&arguments, &settings)?)
        }
        Command::Top(arguments) => {
            let settings = settings(None, Settings { admin: arguments.place.admin.clone(), ..Settings::default() })?;
            Ok(top::top(&arguments, &settings)?)
        }
        Command::Doctor(arguments) => {
            let first = FirstProcess::read();
            let variable = |name: &str| env::var_os(name).or_else(|| first.variable(name));
            let flags = arguments.settings.over(first.flags.clone());
            let settings = settings_of(arguments.config.or_else(|| first.config.clone()), flags, variable)?;
            Ok(doctor::doctor(&Config::new(settings)?)?)
        }
        Command::Push(arguments) => Ok(deploy::push::push(&arguments)?),
        Command::Pull(arguments) => Ok(deploy::pull::pull(&arguments)?),
        Command::List(arguments) => Ok(deploy::list(&arguments)?),
        Command::Rm(arguments) => Ok(deploy::rm(&arguments)?),
        Command::Rollback(arguments) => Ok(deploy::roll_back(&arguments)?),
        Command::Logs(arguments) => Ok(deploy::logs::logs(&arguments)?),
        Command::Explain { code } => Ok(explain::explain(code)?),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut cli::command(), "wasmbox", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
        Command::Man { directory } => Ok(manual::write(&directory)?),
        Command::CompileService(arguments) => Ok(node::service::serve(arguments)),
        Command::CompileConfined(arguments) => Ok(ExitCode::from(confined::process::compile(&arguments).code())),
    }
}

fn configuration(file: Option<PathBuf>, flags: Settings) -> anyhow::Result<Config> {
    Ok(Config::new(settings(file, flags)?)?)
}

fn settings(file: Option<PathBuf>, flags: Settings) -> anyhow::Result<Settings> {
    settings_of(file, flags, |name| env::var_os(name))
}

/// Flags over environment over a file over defaults.
fn settings_of(
    file: Option<PathBuf>,
    flags: Settings,
    variable: impl Fn(&str) -> Option<OsString>,
) -> anyhow::Result<Settings> {
    let file = file.or_else(|| variable("WASMBOX_CONFIG").map(Into::into));
    let file = file.map(|path| Settings::from_file(&path)).transpose()?.unwrap_or_default();
    Ok(flags.over(Settings::from_environment(variable)?.over(file)))
}
