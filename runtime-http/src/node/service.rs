//! The trusted process: one connection of a box on standard input and output, one module.
//!
//! It takes nobody's word: the hash under which code is kept is its own, of the bytes that it then passes on. Modules are bytes to it, and so
//! is code. In the order of what it does: receive, hash, look in the cache, be the only one with this module, get a place among those that
//! compile, have it compiled, store it.

use std::{
    io::{self, Write},
    os::fd::{AsFd, BorrowedFd},
    path::PathBuf,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use super::{
    Answer, COMPILE_TIME, Greeting, RECEIVE_TIME, SLOT_TIME,
    lock::{Held, Locks},
};
use crate::{
    artifacts::{ArtifactCache, ArtifactKey, CacheError},
    confined::{
        self, Allowance, CompilerError, Isolation, Wanted,
        confinement::{self, ConfinementError},
        memory_file::{MemoryFile, Sealed},
        optional_interfaces::OptionalInterfaces,
        ready,
    },
    engine::{EngineError, EngineSize, Engines},
    limits::{ByteSize, ConfigDuration},
};

#[derive(Debug, clap::Args)]
pub struct CompileServiceArgs {
    /// The node's cache, root's, which boxes see read-only; DIR.locks beside it is for locks
    #[arg(long, value_name = "DIR")]
    pub cache_dir: PathBuf,
    /// Most compiled code in that directory
    #[arg(long, value_name = "SIZE", default_value = "2Gi")]
    pub cache_size: ByteSize,
    /// Largest module
    #[arg(long, value_name = "SIZE", default_value = "256Mi")]
    pub max_module_size: ByteSize,
    /// How long a module may take to arrive
    #[arg(long, value_name = "TIME", default_value_t = RECEIVE_TIME)]
    pub receive_time: ConfigDuration,
    /// How long compiling may take
    #[arg(long, value_name = "TIME", default_value_t = COMPILE_TIME)]
    pub compile_time: ConfigDuration,
    /// Most memory of one compilation
    #[arg(long, value_name = "SIZE", default_value = "4Gi")]
    pub compile_memory: ByteSize,
}

/// How many compile at once on a node, unless it has more cores.
const SLOTS: u64 = 4;
/// How often one looks whether what one waits for is free.
const LOOK: Duration = Duration::from_millis(20);

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
    #[error("the code has {length} bytes, and the node's cache may have {limit} in all")]
    NoRoom { length: u64, limit: u64 },
    #[error("this node compiles too much at once")]
    Busy,
    #[error(transparent)]
    Compiler(#[from] CompilerError),
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
        let compatibility = Engines::new(EngineSize::for_compiling(), false)?.compatibility_key();
        Ok(Service { arguments, cache, locks, compatibility })
    }

    /// From when the module has arrived nothing depends on the box. One that leaves, and comes again, would otherwise keep those waiting who
    /// have the same module.
    fn answer(&self, connection: BorrowedFd<'_>) -> Result<Answer, ServiceError> {
        let receiving = wait(SLOT_TIME, || self.place("receiving", 2))?;
        let module = self.receive(connection)?;
        let Ok(bytes) = module.map() else { return Ok(Answer::Failed("it is empty".into())) };
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
        match self.compile(&module) {
            Ok(code) => {
                let code = code.map().map_err(failed("the code"))?;
                let (length, limit) = (code.len() as u64, self.arguments.cache_size.bytes());
                // Another place may have room.
                if length > limit {
                    return Err(ServiceError::NoRoom { length, limit });
                }
                self.cache.put(&key, &code).map_err(failed("writing to the node's cache"))?;
                Ok(Answer::Done)
            }
            Err(error) if error.is_of_module() => Ok(Answer::Failed(error.to_string())),
            Err(error) => Err(error.into()),
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

    fn compile(&self, module: &Sealed) -> Result<Sealed, CompilerError> {
        let allowance = Allowance {
            memory: self.arguments.compile_memory.bytes(),
            time: self.arguments.compile_time.duration(),
            code: confined::LARGEST_CODE,
        };
        let user = confinement::user_of_child(std::process::id());
        let (isolation, optional) = (Isolation::Namespaces { user }, OptionalInterfaces::ALL);
        let made = confined::compile(module, Wanted::Optimised, optional, allowance, isolation, None);
        made.map(|made| made.code)
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
