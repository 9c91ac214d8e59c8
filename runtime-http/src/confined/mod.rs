//! The confined compiler: the only place where modules are parsed, validated and compiled.
//!
//! A module may be made to use up what compiles it, or to take it over. So each is compiled by a process of its own, made of this binary, that
//! can do nothing but compute: it gets the module in a sealed file in memory, writes code to another one, and has limits. It is the same for a box
//! and for the node's compile service, which has the rights to shut it in namespaces, too.
//!
//! What it wrote is machine code, and whoever takes over the compiler chooses that code. The process protects the box from what compiling
//! costs, and what else the compiler's process could reach; it does not make an untrustworthy compiler trustworthy.
//!
//! - here: the side of whoever wants a module compiled; [`process`]: the process itself
//! - [`imports`], [`instances`], [`entry_point`], [`optional_interfaces`]: what it checks before it compiles; [`unusable`]: what it says then
//! - [`stop`]: ending it early
//! - [`confinement`], [`syscalls`]: what it is kept from; [`memory_file`]: how bytes get into it and out of it

mod advice;
pub mod confinement;
mod entry_point;
pub mod imports;
mod instances;
pub mod memory_file;
pub mod optional_interfaces;
pub mod process;
pub mod stop;
pub mod syscalls;
pub mod unusable;

use std::{
    fs, io, iter,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::process::{CommandExt, ExitStatusExt},
    },
    process::{Child, Command, ExitStatus},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open},
};

use self::{
    memory_file::{MemoryFile, Sealed},
    optional_interfaces::OptionalInterfaces,
    process::Ending,
    stop::Stop,
};
use crate::{engine::tier::CodeMaker, excerpt::excerpt};

#[derive(Debug, clap::Args)]
pub struct CompileConfinedArgs {
    /// Who starts it, and with whom it ends
    #[arg(long)]
    pub parent: Option<i32>,
    /// The user to become, in namespaces of its own; takes root
    #[arg(long)]
    pub user: Option<u32>,
    /// Most private memory, bytes
    #[arg(long)]
    pub memory: u64,
    /// Most CPU time
    #[arg(long)]
    pub cpu_seconds: u64,
    /// Most code, bytes
    #[arg(long)]
    pub code: u64,
    /// Baseline code, if optimised code takes longer than a moment
    #[arg(long)]
    pub soon: bool,
    /// Nobody waits for it
    #[arg(long)]
    pub later: bool,
    #[command(flatten)]
    pub optional: OptionalInterfaces,
}

/// The most code of one module.
pub const LARGEST_CODE: u64 = 1 << 30;
/// What is read of a reason, before it is made an excerpt.
const LONGEST_REASON: usize = 4 << 10;
/// CPU time of all threads together, for each second that compiling may take. It is more than they can use in that time, so that a module that takes
/// too long is found to do so by the clock: a process that the kernel ends at its limit looks like one that somebody killed.
const CPU_SECONDS: u64 = process::MOST_THREADS as u64 + 1;

/// What one compilation may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// Bytes of memory.
    pub memory: u64,
    /// From its start to its end.
    pub time: Duration,
    /// Bytes of code.
    pub code: u64,
}

/// What is to be made of a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    Optimised,
    /// The same, when there is nothing else to do.
    OptimisedLater,
    /// Baseline code, unless optimising takes no longer than one waits for anyway.
    Soon,
}

/// What was made of it.
pub struct Made {
    pub code: Sealed,
    pub by: CodeMaker,
}

/// How the process is shut in, beside what always holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// By what each process may do to itself, without any right.
    Unprivileged,
    /// In namespaces, as this user; takes root's rights, and [`confinement::prepare`] beforehand.
    Namespaces { user: u32 },
}

/// Why there is no code.
#[derive(Debug, thiserror::Error)]
pub enum CompilerError {
    /// The module's fault, with the reason.
    #[error("{0}")]
    Invalid(String),
    #[error("compiling took longer than {} ms (--compile-time)", time.as_millis())]
    TooLong { time: Duration },
    /// A limit, or a fault of the compiler's that this module provokes.
    #[error(
        "the compiler ended with {ending}: {reason}; it may use {} MiB of memory (--compile-memory)", memory >> 20
    )]
    Crashed { ending: ExitStatus, reason: String, memory: u64 },
    /// By somebody else, such as the kernel for want of memory.
    #[error("the compiler was killed")]
    Killed,
    /// To make room for others.
    #[error("the compiler was stopped, to make room for others")]
    Stopped,
    #[error("the compiler cannot be confined: {0}")]
    Unconfined(String),
    #[error("{step}: {source}")]
    Io { step: &'static str, source: io::Error },
}

fn failed<E: Into<io::Error>>(step: &'static str) -> impl Fn(E) -> CompilerError {
    move |source| CompilerError::Io { step, source: source.into() }
}

impl CompilerError {
    /// Whether the same module would end the same way at another time, and in another place.
    pub fn is_of_module(&self) -> bool {
        match self {
            CompilerError::Invalid(_) | CompilerError::TooLong { .. } | CompilerError::Crashed { .. } => true,
            CompilerError::Killed
            | CompilerError::Stopped
            | CompilerError::Unconfined(_)
            | CompilerError::Io { .. } => false,
        }
    }
}

/// Compiles `module`, binary or text, to a native image of wasmtime's, for boxes with these interfaces, until `stop` says to end that. Blocks;
/// the process ends with the calling thread.
///
/// # Errors
/// [`CompilerError`]
pub fn compile(
    module: &Sealed,
    wanted: Wanted,
    optional: OptionalInterfaces,
    allowance: Allowance,
    isolation: Isolation,
    stop: Option<&Stop>,
) -> Result<Made, CompilerError> {
    let output = MemoryFile::new("code").map_err(failed("memory for the code"))?;
    let mut compiler = Compiler::start(module, wanted, optional, &output, allowance, isolation)
        .map_err(failed("starting the compiler"))?;
    let until = Instant::now() + allowance.time;
    match first_ready(compiler.ended.as_fd(), stop.map(Stop::as_fd), until)
        .map_err(failed("waiting for the compiler"))?
    {
        Some(First::File) => {}
        Some(First::Other) => return Err(CompilerError::Stopped),
        None => return Err(CompilerError::TooLong { time: allowance.time }),
    }
    let status = compiler.child.wait().map_err(failed("waiting for the compiler"))?;
    // It could start no other process, so nobody writes any more.
    let output = output.seal().map_err(failed("sealing the code"))?;
    let reason = || {
        let text =
            output.map().map(|text| String::from_utf8_lossy(&text[..text.len().min(LONGEST_REASON)]).into_owned());
        // Notes are for developers.
        let text = text.unwrap_or_default();
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("note: ")).collect();
        excerpt(lines.join("\n").trim())
    };
    match status.code().map(Ending::of) {
        Some(Some(Ending::Compiled(by))) => Ok(Made { code: output, by }),
        Some(Some(Ending::Invalid)) => Err(CompilerError::Invalid(reason())),
        Some(Some(Ending::Unconfined)) => Err(CompilerError::Unconfined(reason())),
        None if status.signal() == Some(Signal::KILL.as_raw()) => Err(CompilerError::Killed),
        Some(None) | None => Err(CompilerError::Crashed { ending: status, reason: reason(), memory: allowance.memory }),
    }
}

/// The process, killed when nobody waits for it any more.
struct Compiler {
    child: Child,
    ended: OwnedFd,
}

impl Compiler {
    fn start(
        module: &Sealed,
        wanted: Wanted,
        optional: OptionalInterfaces,
        output: &MemoryFile,
        allowance: Allowance,
        isolation: Isolation,
    ) -> io::Result<Compiler> {
        let mut command = Command::new("/proc/self/exe");
        command
            .arg0("wasmbox")
            .arg("compile-confined")
            .arg(format!("--memory={}", allowance.memory))
            .arg(format!("--cpu-seconds={}", CPU_SECONDS * allowance.time.as_secs().max(1)))
            .arg(format!("--code={}", allowance.code.min(LARGEST_CODE)))
            .args(optional.arguments());
        match wanted {
            Wanted::Optimised => &mut command,
            Wanted::OptimisedLater => command.arg("--later"),
            Wanted::Soon => command.arg("--soon"),
        };
        match isolation {
            // In a pid namespace of its own it does not see its parent.
            Isolation::Namespaces { user } => command.arg(format!("--user={user}")),
            Isolation::Unprivileged => command.arg(format!("--parent={}", std::process::id())),
        };
        // The child cannot say it itself, if what starts it has given up the right to write to other processes' files.
        let first = KilledFirst::begin();
        let child = command
            .env_clear()
            // The limit counts memory when it may be written, not when it is. So the allocator has as much as it needs, not a gibibyte at first,
            // nor each of its pages of up to 4 MiB as a whole: with both, a component of 300 KB takes 60 MiB, with the first alone up to 170.
            .env("MIMALLOC_ARENA_EAGER_COMMIT", "0")
            .env("MIMALLOC_PAGE_COMMIT_ON_DEMAND", "1")
            .stdin(module.stdio()?)
            .stdout(output.stdio()?)
            // Last words, such as those of a panic, are the reason.
            .stderr(output.stdio()?)
            .spawn()?;
        drop(first);
        match pidfd_open(Pid::from_child(&child), PidfdFlags::empty()) {
            Ok(ended) => Ok(Compiler { child, ended }),
            Err(errno) => {
                let mut child = child;
                let _ = child.kill();
                let _ = child.wait();
                Err(errno.into())
            }
        }
    }
}

/// Children that start meanwhile are the first to be killed when memory is short: they have that from this process, for which it is undone at
/// once. Where it cannot be said, it is not worth failing.
struct KilledFirst {
    usual: Option<String>,
    _alone: MutexGuard<'static, ()>,
}

impl KilledFirst {
    const FILE: &str = "/proc/self/oom_score_adj";

    fn begin() -> KilledFirst {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let usual = fs::read_to_string(Self::FILE).ok().filter(|_| fs::write(Self::FILE, "1000").is_ok());
        KilledFirst { usual, _alone: alone }
    }
}

impl Drop for KilledFirst {
    fn drop(&mut self) {
        if let Some(usual) = &self.usual {
            let _ = fs::write(Self::FILE, usual.trim());
        }
    }
}

impl Drop for Compiler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until there is something to read; `false` if that is not so before `until`.
///
/// # Errors
/// The kernel's.
pub fn ready(file: impl AsFd, until: Instant) -> io::Result<bool> {
    first_ready(file.as_fd(), None, until).map(|first| first.is_some())
}

/// Of two files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum First {
    File,
    Other,
}

/// Which of both has something to read first; `None` if that is not so before `until`.
fn first_ready(file: BorrowedFd<'_>, other: Option<BorrowedFd<'_>>, until: Instant) -> io::Result<Option<First>> {
    let mut polled: Vec<PollFd<'_>> =
        iter::once(file).chain(other).map(|file| PollFd::from_borrowed_fd(file, PollFlags::IN)).collect();
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut polled, Some(&left)) {
            Ok(0) => return Ok(None),
            Ok(_) if polled.first().is_some_and(|file| !file.revents().is_empty()) => return Ok(Some(First::File)),
            Ok(_) => return Ok(Some(First::Other)),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}
