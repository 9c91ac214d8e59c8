//! The trusted process: one connection of a box on standard input and output, one module.
//!
//! It takes nobody's word: the hash under which code is kept is its own, of the bytes that it then passes on. Modules are bytes to it, and so
//! is code. In the order of what it does: receive, hash, look in the cache, be the only one with this module, get a place among those that
//! compile, have it compiled, store it.

use std::{
    io::{self, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::PathBuf,
    process::{Child, Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, PidfdFlags, pidfd_open},
};

use super::{
    Answer, Greeting, SLOT_TIME,
    confined::Ending,
    confinement::{self, ConfinementError},
    lock::{Held, Locks},
    memory_file::{MemoryFile, Sealed},
};
use crate::{
    cli::CompileServiceArgs,
    engine::{EngineError, EngineSize, compatibility_key},
    store::artifact::{ArtifactCache, ArtifactKey, CacheError},
};

/// How many compile at once on a node, unless it has more cores.
const SLOTS: u64 = 4;
/// How often one looks whether what one waits for is free.
const LOOK: Duration = Duration::from_millis(20);
/// The most code of one module.
const LARGEST_OUTPUT: u64 = 1 << 30;
/// Private memory of the process that compiles.
const MEMORY: u64 = 4 << 30;
/// What is told of a reason that the process that compiles gave.
const LONGEST_REASON: usize = 300;

#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    #[error(transparent)]
    Cache(#[from] CacheError),
    #[error("{}: no directory can be made beside it", path.display())]
    NoPlace { path: PathBuf },
    #[error("cannot confine the compiler: {0}; it takes root's rights on the host")]
    Confinement(#[from] ConfinementError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("the module did not arrive within {} ms", time.as_millis())]
    Slow { time: Duration },
    #[error("the module is larger than {limit} bytes")]
    TooLarge { limit: u64 },
    #[error("this node compiles too much at once")]
    Busy,
    #[error("compiling took longer than {} ms", time.as_millis())]
    TooLong { time: Duration },
    #[error("the compiler ended with {ending}: {reason}")]
    Compiler { ending: String, reason: String },
    #[error("{step}: {source}")]
    Io { step: &'static str, source: io::Error },
}

fn failed<E: Into<io::Error>>(step: &'static str) -> impl Fn(E) -> ServiceError {
    move |source| ServiceError::Io { step, source: source.into() }
}

/// Serves one box; what goes wrong it is told.
pub fn serve(arguments: CompileServiceArgs) -> ExitCode {
    let (input, mut output) = (io::stdin(), io::stdout());
    let answer = Service::open(arguments).and_then(|service| {
        writeln!(output, "{}", Greeting(service.compatibility)).map_err(failed("greeting the box"))?;
        service.answer(input.as_fd())
    });
    let (answer, code) = match answer {
        Ok(answer) => (answer, ExitCode::SUCCESS),
        Err(error) => {
            eprintln!("wasmbox compile-service: {error}");
            (Answer::Refused(error.to_string()), ExitCode::FAILURE)
        }
    };
    // A box that left does not want it.
    let _ = writeln!(output, "{answer}");
    code
}

struct Service {
    arguments: CompileServiceArgs,
    cache: ArtifactCache,
    locks: Locks,
    compatibility: u64,
}

/// The process that compiles, killed when nobody waits for it any more.
struct Compiler {
    child: Child,
    ended: OwnedFd,
}

impl Drop for Compiler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Service {
    fn open(arguments: CompileServiceArgs) -> Result<Service, ServiceError> {
        confinement::prepare()?;
        let cache = ArtifactCache::open_node(&arguments.cache_dir, arguments.cache_size.bytes())?;
        let mut beside = arguments
            .cache_dir
            .file_name()
            .ok_or_else(|| ServiceError::NoPlace { path: arguments.cache_dir.clone() })?
            .to_owned();
        beside.push(".locks");
        let locks = Locks::open(&arguments.cache_dir.with_file_name(beside))?;
        let compatibility = compatibility_key(&EngineSize::for_compiling().engine()?);
        Ok(Service { arguments, cache, locks, compatibility })
    }

    /// From when the module has arrived nothing depends on the box. One that leaves, and comes again, would otherwise keep those waiting who
    /// have the same module.
    fn answer(&self, connection: BorrowedFd<'_>) -> Result<Answer, ServiceError> {
        let receiving = wait(SLOT_TIME, || self.place("receiving", 2))?;
        let module = self.receive(connection)?;
        // An empty one.
        let Ok(bytes) = module.map() else { return Ok(Answer::Invalid) };
        let key = ArtifactKey::new(&bytes, self.compatibility);
        if self.cache.get(&key).is_some() {
            return Ok(Answer::Done);
        }
        let only = || self.locks.try_take("modules", key.number());
        let Some(_only) = only().map_err(failed("locking"))? else {
            // Somebody compiles it for all who wait, of whom there may be many: they keep nothing in memory.
            drop((bytes, module, receiving));
            wait(SLOT_TIME + self.arguments.compile_time.duration(), only)?;
            return self.cache.get(&key).map(|_| Answer::Done).ok_or(ServiceError::Busy);
        };
        // Whoever had it may have stored the code meanwhile.
        if self.cache.get(&key).is_some() {
            return Ok(Answer::Done);
        }
        let _slot = wait(SLOT_TIME, || self.place("slots", 1))?;
        match self.compile(&module)? {
            None => Ok(Answer::Invalid),
            Some(code) => {
                let code = code.map().map_err(failed("the code"))?;
                self.cache.put(&key, &code).map_err(failed("writing to the node's cache"))?;
                Ok(Answer::Done)
            }
        }
    }

    /// Reads to the end of what the box sends.
    fn receive(&self, connection: BorrowedFd<'_>) -> Result<Sealed, ServiceError> {
        let time = self.arguments.receive_time.duration();
        let limit = self.arguments.max_module_size.bytes();
        let until = Instant::now() + time;
        let mut module = MemoryFile::new("module").map_err(failed("memory for the module"))?;
        let mut buffer = vec![0; 256 << 10];
        let mut received = 0;
        loop {
            if !ready(connection, until).map_err(failed("receiving"))? {
                return Err(ServiceError::Slow { time });
            }
            let count = rustix::io::read(connection, &mut buffer).map_err(failed("receiving"))?;
            if count == 0 {
                return module.seal().map_err(failed("sealing the module"));
            }
            received += count as u64;
            if received > limit {
                return Err(ServiceError::TooLarge { limit });
            }
            module.file().write_all(&buffer[..count]).map_err(failed("memory for the module"))?;
        }
    }

    /// One of the node's places, of which there are so many for each core, or for [`SLOTS`].
    fn place(&self, kind: &str, times: u64) -> io::Result<Option<Held>> {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
        for number in 0..times * cores.max(SLOTS) {
            if let Some(place) = self.locks.try_take(kind, number)? {
                return Ok(Some(place));
            }
        }
        Ok(None)
    }

    /// Has the module compiled; `None` if it is invalid.
    fn compile(&self, module: &Sealed) -> Result<Option<Sealed>, ServiceError> {
        let time = self.arguments.compile_time.duration();
        let output = MemoryFile::new("code").map_err(failed("memory for the code"))?;
        let mut compiler = self.start(module, &output).map_err(failed("starting the compiler"))?;
        if !ready(&compiler.ended, Instant::now() + time).map_err(failed("waiting for the compiler"))? {
            return Err(ServiceError::TooLong { time });
        }
        let status = compiler.child.wait().map_err(failed("waiting for the compiler"))?;
        // Nothing of its pid namespace outlives the first process there, which it was: nobody writes any more.
        let code = output.seal().map_err(failed("sealing the code"))?;
        match status.code() {
            Some(ending) if ending == Ending::Invalid as i32 => Ok(None),
            Some(ending) if ending == Ending::Compiled as i32 => Ok(Some(code)),
            Some(_) | None => {
                let reason = code.map().map(|text| {
                    String::from_utf8_lossy(&text[..text.len().min(LONGEST_REASON)]).escape_debug().to_string()
                });
                Err(ServiceError::Compiler { ending: status.to_string(), reason: reason.unwrap_or_default() })
            }
        }
    }

    fn start(&self, module: &Sealed, output: &MemoryFile) -> io::Result<Compiler> {
        let user = confinement::user_of_child(std::process::id());
        let mut child = Command::new("/proc/self/exe")
            .arg0("wasmbox")
            .arg("compile-confined")
            .arg(format!("--user={user}"))
            .arg(format!("--memory={MEMORY}"))
            // All its threads together.
            .arg(format!("--cpu-seconds={}", 4 * self.arguments.compile_time.duration().as_secs().max(1)))
            .arg(format!("--output={}", LARGEST_OUTPUT.min(self.arguments.cache_size.bytes())))
            .env_clear()
            .stdin(module.stdio()?)
            .stdout(output.stdio()?)
            .stderr(Stdio::null())
            .spawn()?;
        match pidfd_open(Pid::from_child(&child), PidfdFlags::empty()) {
            Ok(ended) => Ok(Compiler { child, ended }),
            Err(errno) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(errno.into())
            }
        }
    }
}

/// Asks again and again, for `time` at most.
fn wait<T>(time: Duration, mut attempt: impl FnMut() -> io::Result<Option<T>>) -> Result<T, ServiceError> {
    let until = Instant::now() + time;
    loop {
        if let Some(taken) = attempt().map_err(failed("locking"))? {
            return Ok(taken);
        }
        if Instant::now() >= until {
            return Err(ServiceError::Busy);
        }
        thread::sleep(LOOK);
    }
}

/// Waits until there is something to read; `false` if that is not so before `until`.
fn ready(file: impl AsFd, until: Instant) -> io::Result<bool> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&file, PollFlags::IN)], Some(&left)) {
            Ok(count) => return Ok(count > 0),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}
