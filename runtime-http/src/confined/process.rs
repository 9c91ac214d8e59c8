//! The process that compiles: from a module on standard input to native code on standard output, both files in memory.
//!
//! First it gives up all rights, then it starts its threads and makes its engine, then it gives up all system calls but a few. Only then it
//! looks at the module: formats, text, validity, imports, and at last the code.

use std::{io, os::fd::AsFd};

use rayon::ThreadPoolBuilder;

use super::{
    advice, confinement,
    imports::{self, Wasi},
    memory_file::Sealed,
    syscalls,
};
use crate::{
    cli::CompileConfinedArgs,
    engine::{EngineSize, Engines, features::Feature},
    excerpt::excerpt,
    store::{
        kind::{self, Format},
        mapping::Mapping,
    },
};

/// How the process ends, if nobody else ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The code is on standard output.
    Compiled = 0,
    /// It is no valid module, or cannot be linked; standard output has the reason.
    Invalid = 3,
    /// It could not give up its rights; standard output has the reason.
    Unconfined = 4,
}

impl Ending {
    pub(super) fn of(code: i32) -> Option<Ending> {
        [Ending::Compiled, Ending::Invalid, Ending::Unconfined].into_iter().find(|ending| *ending as i32 == code)
    }
}

/// More help no more, and each has a stack.
pub(super) const MOST_THREADS: usize = 8;

/// What the process has once it is confined.
struct Confined {
    module: Mapping,
    engines: Engines,
}

/// Confines this process, and compiles.
pub fn compile(arguments: &CompileConfinedArgs) -> Ending {
    // Without what the standard library adds for developers.
    std::panic::set_hook(Box::new(|panic| eprintln!("{panic}")));
    let confined = match Confined::new(arguments) {
        Ok(confined) => confined,
        Err(error) => {
            eprintln!("{error:#}");
            return Ending::Unconfined;
        }
    };
    let (ending, content) = match compiled(&confined.engines, &confined.module) {
        // It would be ended for writing it.
        Ok(code) if code.len() as u64 > arguments.code => {
            (Ending::Invalid, format!("its code has {} bytes, more than {}", code.len(), arguments.code).into_bytes())
        }
        Ok(code) => (Ending::Compiled, code),
        Err(error) => (Ending::Invalid, excerpt(format_args!("{error:#}")).into_bytes()),
    };
    match write(&content) {
        Ok(()) => ending,
        Err(error) => panic!("writing {} bytes: {error}", content.len()),
    }
}

impl Confined {
    fn new(arguments: &CompileConfinedArgs) -> anyhow::Result<Confined> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS);
        confinement::enter(arguments)?;
        let module = Sealed::received(io::stdin().as_fd())?.map()?;
        let engines = Engines::new(EngineSize::for_compiling())?;
        // Later it could not be made. It reserves as much as the other one, so it is not made for nothing.
        if imports::may_be_p3(&module) {
            engines.concurrent()?;
        }
        ThreadPoolBuilder::new().num_threads(threads).build_global()?;
        // When each has run something, all have started, and need no system call for it any more.
        rayon::broadcast(|_| ());
        confinement::enclose()?;
        syscalls::restrict()?;
        Ok(Confined { module, engines })
    }
}

/// Not through the standard library's standard output: that looks for lines.
fn write(mut content: &[u8]) -> rustix::io::Result<()> {
    while !content.is_empty() {
        let written = rustix::io::write(io::stdout().as_fd(), content)?;
        content = content.get(written..).unwrap_or_default();
    }
    Ok(())
}

fn compiled(engines: &Engines, bytes: &[u8]) -> wasmtime::Result<Vec<u8>> {
    let text;
    let (format, binary) = match Format::of(bytes) {
        Some(Format::Text) => {
            kind::check_text(bytes.len())?;
            text = wat::parse_bytes(bytes)?;
            (Format::of(&text), &text[..])
        }
        format => (format, bytes),
    };
    let code = match format {
        Some(Format::Module) => {
            let engine = engines.plain();
            imports::check_module(engine, binary).and_then(|()| engine.precompile_module(binary))
        }
        Some(Format::Component) => {
            let engine = |wasi| match wasi {
                Wasi::P2 => Ok(engines.plain()),
                Wasi::P3 => engines.concurrent().map_err(wasmtime::Error::new),
            };
            imports::check_component(engines.plain(), binary)
                .and_then(|wasi| engine(wasi)?.precompile_component(binary))
        }
        Some(Format::Text | Format::Native) | None => {
            return Err(wasmtime::Error::msg("not a WebAssembly module, component or text"));
        }
    };
    code.map_err(|error| match advice::missing_feature(binary) {
        Some(Feature { name, reason, .. }) => {
            error.context(format!("it needs the feature `{name}`, which is off: {reason}"))
        }
        None => error,
    })
}
