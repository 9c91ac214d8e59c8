//! The command line.

use std::{env, path::PathBuf};

use clap::{CommandFactory, Parser, Subcommand};

use crate::{
    api::problem::Code,
    config::{Settings, with_environment_in_help},
    confined::CompileConfinedArgs,
    deploy::{ListArgs, RmArgs, RollbackArgs, logs::LogsArgs, pull::PullArgs, push::PushArgs},
    develop::{build::BuildArgs, dev::DevArgs, invoke::InvokeArgs, new::NewArgs},
    explain::CodeParser,
    invocation::{HostDirectory, Preopen},
    limits::{CpuQuota, InvocationTimeout, MemoryRequest},
    node::service::CompileServiceArgs,
    terminal::arguments::{StatusArgs, TopArgs},
};

/// Serves WebAssembly functions on HTTP, each invocation in a sandbox of its own, with limits.
#[derive(Debug, Parser)]
#[command(name = "wasmbox", version, propagate_version = true, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  wasmbox new hello --lang rust                  a function of your own, to begin with
  wasmbox dev                                    build and serve it, and again when it changes
  wasmbox invoke hello --data 'some text'        call it, and see what the call took
  wasmbox serve                                  serve ./functions on port 8095
  curl 'localhost:8095/hello?arg=world'          call functions/hello.wasm with an argument
  echo data | wasmbox run functions/hello.wasm   run a module once, on this terminal
  wasmbox compile --functions-dir /functions     compile ahead, so that first calls are quick
  wasmbox status --watch                         look at a box that runs
  wasmbox top --sort errors                      which of its functions fail the most
  wasmbox push hello.wasm --url http://box:8086  put a function into a box that runs
  wasmbox pull oci://registry.example/hello:1.0  fetch a function from a registry
  wasmbox rollback hello                         go back to what it was before
  wasmbox logs -f hello                          see what it writes to its log
  wasmbox doctor                                 check what a box needs here
  wasmbox explain guest-trap                     what an error means, and what to do

Settings come from flags, else from environment variables, else from the file of --config, else from defaults.";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve a directory of functions on HTTP
    ///
    /// GET or POST /NAME runs NAME.wasm (or NAME.wat): a WASI command gets its arguments from `?arg=`, its standard input from the
    /// request's body, and answers on its standard output. A component with wasi:http/incoming-handler gets all requests at /NAME/...
    ///
    /// A request sets its own limits with the headers Cpu-Quota (millicores), Memory-Request (MiB) and Invocation-Timeout (ms).
    /// NAME.toml beside NAME.wasm holds the settings of that function.
    ///
    /// SIGTERM ends it when running invocations have ended; a second one ends it at once.
    Serve(ServeArgs),
    /// Make a project of one function, in a language of your choice
    ///
    /// It has the sources, their build, a test, and the function's settings. Nothing is installed: `wasmbox dev` and `wasmbox build` say what
    /// is missing, and how to get it.
    New(NewArgs),
    /// Serve a project on this machine; build it, and again what changes
    ///
    /// Shows what compilers say, what functions write to standard error, and a line for each call: status, time, CPU, memory.
    ///
    /// The table `build` in functions/NAME.toml says how that function is built: the command, the module that it makes, and what is watched.
    /// Functions without it are served as they are. Ctrl-C ends it.
    Dev(DevArgs),
    /// Build the functions of a project once, and check them
    ///
    /// Exit code 1 if one cannot be built, or is no function.
    Build(BuildArgs),
    /// Call a function, and say what the call took
    ///
    /// The answer is printed on standard output; on standard error status, times, CPU, memory, limits, and, of a box that was started for the
    /// call, what the function wrote to standard error.
    ///
    /// Exit code 1 if there is no answer, or one with the status of an error.
    Invoke(InvokeArgs),
    /// Run a module once, with this terminal's standard streams and the sandbox of `serve`
    ///
    /// The exit code is the guest's. 134: it trapped; 124: it did not end in time; 137: it reached its memory limit; 1: it cannot be run.
    Run(RunArgs),
    /// Compile all functions of a directory into the cache, with progress
    ///
    /// Exit code 1 if one of them cannot be compiled; the others are compiled all the same.
    Compile(CompileArgs),
    /// Show the live state of a box that runs
    ///
    /// Asks its admin port: readiness, memory and CPU in use, what runs, what waits, what was answered and refused. In a pod:
    /// kubectl exec POD -- wasmbox status
    ///
    /// Exit code 1 if no box answers.
    Status(StatusArgs),
    /// Show which functions of a box that runs use the most
    ///
    /// On a terminal it looks again each second until `q` ends it; `s` sorts by the next column, the arrows scroll. Elsewhere it prints them
    /// once: NAME, whether it is ready, what runs, calls and errors in a second and in all, cores in use, the most memory of an invocation, and
    /// the time within which 99 of 100 invocations ended.
    ///
    /// Exit code 1 if no box answers.
    Top(TopArgs),
    /// Put a function into a box that runs, or into a registry of images
    ///
    /// The box checks and compiles the module before it takes the place of the one that served; what runs goes on with that. The settings
    /// in FILE's place with the ending .toml go with it. A push that fails changes nothing, and `wasmbox rollback NAME` undoes one.
    ///
    /// The box must have been started with --upload-token-file; the token is shown with --token-file, or in WASMBOX_TOKEN. For instance:
    /// wasmbox push hello.wasm --token-file token, or, of a Kubernetes cluster,
    /// wasmbox push hello.wasm --token-file token --service default/wasmbox
    ///
    /// Boxes of one Service share their functions; one of them is asked, through the API server.
    ///
    /// With oci://REGISTRY/NAME:TAG after FILE it goes into that registry instead, as the CNCF's artifact of WebAssembly, with its settings in
    /// an annotation. Who may write there is what `docker login` and `podman login` have stored. FILE may itself be oci://..., on its way to a box:
    ///
    /// wasmbox push hello.wasm oci://registry.example/team/hello:1.0, then wasmbox push oci://registry.example/team/hello:1.0 --token-file token
    ///
    /// With --image FILE, or all functions of the directory FILE, become an image that Kubernetes mounts as a volume.
    ///
    /// Exit code 1 if it was not put there.
    Push(PushArgs),
    /// Fetch a function from a registry of images
    ///
    /// Writes NAME.wasm, and NAME.toml if settings came with it, into this directory: whole, or not at all. What arrives has the digest that was
    /// asked for, or that the registry has said. The table `build` of settings is left out, since it has commands for `wasmbox dev`.
    ///
    /// Who may read there is what `docker login` and `podman login` have stored. For instance:
    /// wasmbox pull oci://registry.example/team/hello:1.0 --output functions/
    ///
    /// Exit code 1 if nothing was fetched.
    Pull(PullArgs),
    /// List the functions in a box's directory, or the versions of one
    ///
    /// Versions are numbered in the order in which they began to serve; the newest is first. ETag is what `push --if-match` takes.
    List(ListArgs),
    /// Remove a function from a box that runs
    ///
    /// What runs goes on. The versions are kept, so that `wasmbox rollback NAME` restores it, unless --purge is given.
    Rm(RmArgs),
    /// Go back to an earlier version of a function, or restore one that was removed
    ///
    /// That version, with its settings, becomes the newest one and gets a number of its own; so a second rollback undoes the first.
    Rollback(RollbackArgs),
    /// Show the last lines of a function's log, of a box that runs, and follow it with -f
    ///
    /// Each line has its time (UTC), its invocation and its text: what the function wrote to standard error or gave to the log, and why it failed. They are shown to
    /// whoever has a token of the box's --upload-token-file.
    ///
    /// The lines are in that box's memory: with --service they are those of the oldest of its boxes; --pod names another.
    Logs(LogsArgs),
    /// Check what a box needs of the machine, the container and its settings, and say the remedy for what is missing
    ///
    /// Takes the settings of `serve`. One line for each check: `ok`; `warn`, the box runs but with less; `FAIL`, it does not start, or not
    /// as configured. Nothing is left behind, and a box that runs is not disturbed.
    ///
    /// Exit code 1 if something fails.
    Doctor(ServeArgs),
    /// Explain an error by its code: what happened, whose fault it is, what to do, with an example
    ///
    /// The code is in the header Wasmbox-Error of an answer, in `code` and `type` of its document, and in the log.
    ///
    /// Without a code it lists all of them.
    Explain {
        /// Code of an error, or its `type`
        #[arg(value_parser = CodeParser, hide_possible_values = true)]
        code: Option<Code>,
    },
    /// Print a completion script for a shell
    ///
    /// For instance: wasmbox completions bash > /etc/bash_completion.d/wasmbox
    Completions { shell: clap_complete::Shell },
    /// Write the manual's pages into a directory, for man(1)
    #[command(hide = true)]
    Man {
        /// For instance /usr/local/share/man/man1
        directory: PathBuf,
    },
    /// Serve for another process, and end with it; started by `dev` and `invoke`
    #[command(hide = true, args_override_self = true)]
    ServeLocal(ServeLocalArgs),
    /// Compile one module for a box of this node, which is connected to standard input and output; started by the shim, as root
    #[command(hide = true)]
    CompileService(CompileServiceArgs),
    /// Compile standard input to standard output, confined; started by whoever has a module compiled
    #[command(hide = true)]
    CompileConfined(CompileConfinedArgs),
}

#[derive(Debug, clap::Args)]
pub struct ServeArgs {
    /// TOML file with settings, named like the flags: port = 8095
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub settings: Settings,
}

#[derive(Debug, clap::Args)]
pub struct ServeLocalArgs {
    /// Who starts it, and with whom it ends
    #[arg(long)]
    pub parent: i32,
    #[command(flatten)]
    pub serve: ServeArgs,
}

#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// Most CPU of the guest, in millicores, by a cgroup [default: no limit]
    #[arg(long, value_name = "QUOTA")]
    pub cpu_quota: Option<CpuQuota>,
    /// Cgroup in which the guest's is made [default: as for `serve`]
    #[arg(long, value_name = "DIR")]
    pub cgroup_root: Option<PathBuf>,
    /// Most memory of the guest, MiB or with suffix
    #[arg(long, value_name = "SIZE", default_value_t = MemoryRequest::DEFAULT)]
    pub memory_request: MemoryRequest,
    /// Longest run, ms or with unit
    #[arg(long, value_name = "TIME", default_value_t = InvocationTimeout::DEFAULT)]
    pub invocation_timeout: InvocationTimeout,
    /// Variable of the guest's environment, which is empty otherwise; without a value, as it is in wasmbox's own; may be given several times
    #[arg(long, value_name = "NAME[=VALUE]", value_parser = parse_variable)]
    pub env: Vec<(String, String)>,
    /// Directory the guest sees, read-only unless `:rw` follows; may be given several times
    #[arg(long, value_name = "HOST:GUEST[:rw]", value_parser = parse_directory)]
    pub dir: Vec<Preopen>,
    /// Directory of compiled code, or `none`
    #[arg(long, value_name = "DIR")]
    pub cache_dir: Option<crate::config::CacheDir>,
    /// Directory of code that the node compiled, or `none`
    #[arg(long, value_name = "DIR", env = "NODE_CACHE_DIR")]
    pub node_cache_dir: Option<crate::config::CacheDir>,
    /// Socket of the node's compile service
    #[arg(long, value_name = "SOCKET", env = "COMPILE_SOCKET")]
    pub compile_socket: Option<PathBuf>,
    /// The module: a WASI command or a component with wasi:cli/run, binary or text
    pub module: PathBuf,
    /// Its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub args: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub struct CompileArgs {
    /// Also without a cache: to see what cannot be compiled
    #[arg(long, hide = true)]
    pub check: bool,
    /// TOML file with settings, as for `serve`
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub settings: Settings,
}

fn parse_variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        None if !text.is_empty() => match env::var(text) {
            Ok(value) => Ok((text.to_owned(), value)),
            Err(error) => Err(format!("expected NAME=VALUE, or the name of a variable of wasmbox's own: {error}")),
        },
        Some(_) | None => Err("expected NAME=VALUE or NAME".into()),
    }
}

fn parse_directory(text: &str) -> Result<Preopen, String> {
    let (paths, writable) = text.strip_suffix(":rw").map_or((text, false), |paths| (paths, true));
    match paths.split_once(':') {
        Some((host, guest)) if !host.is_empty() && !guest.is_empty() => {
            let directory = HostDirectory::Named(host.into());
            Ok(Preopen { directory, guest: guest.to_owned(), writable })
        }
        _ => Err("expected HOST:GUEST or HOST:GUEST:rw".into()),
    }
}

/// The whole command, with the environment's names in its help.
pub fn command() -> clap::Command {
    let command = Cli::command();
    ["serve", "compile", "doctor", "status", "top"]
        .into_iter()
        .fold(command, |command, name| command.mut_subcommand(name, with_environment_in_help))
}
