//! The process that compiles: from a module on standard input to native code on standard output, both files in memory.
//!
//! First it gives up all rights, then it starts its threads and makes its engine, then it gives up all system calls but a few. Only then it
//! looks at the module: formats, text, validity, imports, and at last the code.

use std::{io, os::fd::AsFd};

use rayon::ThreadPoolBuilder;
use wasmtime::Engine;

use super::{
    CompileConfinedArgs, advice, confinement,
    imports::{self, Wasi},
    memory_file::Sealed,
    optional_interfaces::OptionalInterfaces,
    syscalls,
};
use crate::{
    artifacts::mapping::Mapping,
    engine::{
        Concurrency, EngineError, EngineSize,
        features::Feature,
        tier::{CodeMaker, HAS_WINCH},
    },
    excerpt::excerpt,
    module_format::{self, Format},
};

/// How the process ends, if nobody else ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The code is on standard output, made in this way.
    Compiled(CodeMaker),
    /// It is no valid module, or cannot be linked; standard output has the reason.
    Invalid,
    /// It could not give up its rights; standard output has the reason.
    Unconfined,
}

impl Ending {
    const ALL: [Ending; 5] = [
        Ending::Compiled(CodeMaker::Optimiser),
        Ending::Invalid,
        Ending::Unconfined,
        Ending::Compiled(CodeMaker::SinglePass),
        Ending::Compiled(CodeMaker::Winch),
    ];

    /// The status of the process.
    pub fn code(self) -> u8 {
        match self {
            Ending::Compiled(CodeMaker::Optimiser) => 0,
            Ending::Invalid => 3,
            Ending::Unconfined => 4,
            Ending::Compiled(CodeMaker::SinglePass) => 5,
            Ending::Compiled(CodeMaker::Winch) => 6,
        }
    }

    pub(super) fn of(code: i32) -> Option<Ending> {
        Ending::ALL.into_iter().find(|ending| i32::from(ending.code()) == code)
    }
}

/// More help no more, and each has a stack.
pub(super) const MOST_THREADS: usize = 8;

/// Optimising so much code takes about a tenth of a second on two cores: nobody is helped by baseline code before it.
pub const ONE_STEP: u64 = 192 << 10;

/// What the process has once it is confined.
struct Confined {
    module: Mapping,
    optional: OptionalInterfaces,
    compilers: Compilers,
    /// For components of WASI 0.3; `None` if it is none.
    concurrent: Option<Compilers>,
}

/// What makes code.
struct Compilers {
    optimiser: Engine,
    /// What makes baseline code, if that is wanted; the first that can is to.
    baseline: Vec<(CodeMaker, Engine)>,
}

impl Compilers {
    /// `soon`: baseline code is wanted.
    fn new(concurrency: Concurrency, soon: bool) -> Result<Compilers, EngineError> {
        let engine = |maker| EngineSize::for_compiling().engine(maker, concurrency);
        let knows = |maker: &CodeMaker| *maker != CodeMaker::Winch || (HAS_WINCH && concurrency == Concurrency::None);
        let makers = [CodeMaker::Winch, CodeMaker::SinglePass].into_iter().filter(|maker| soon && knows(maker));
        let baseline = makers.map(|maker| Ok((maker, engine(maker)?))).collect::<Result<_, _>>()?;
        Ok(Compilers { optimiser: engine(CodeMaker::Optimiser)?, baseline })
    }

    /// Code of `binary`, which is valid.
    fn made(
        &self,
        binary: &[u8],
        compile: impl Fn(&Engine, &[u8]) -> wasmtime::Result<Vec<u8>>,
    ) -> wasmtime::Result<(CodeMaker, Vec<u8>)> {
        if !self.baseline.is_empty() && imports::code_bytes(binary)? > ONE_STEP {
            for (maker, engine) in &self.baseline {
                // What one of them does not know the next one does.
                if let Ok(code) = compile(engine, binary) {
                    return Ok((*maker, code));
                }
            }
        }
        compile(&self.optimiser, binary).map(|code| (CodeMaker::Optimiser, code))
    }
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
    let (ending, content) = match confined.compiled() {
        // It would be ended for writing it.
        Ok((_, code)) if code.len() as u64 > arguments.code => {
            (Ending::Invalid, format!("its code has {} bytes, more than {}", code.len(), arguments.code).into_bytes())
        }
        Ok((by, code)) => (Ending::Compiled(by), code),
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
        let compilers = Compilers::new(Concurrency::None, arguments.soon)?;
        // Later they could not be made. They take as much as the others, so they are not made for nothing.
        let optional = arguments.optional;
        let concurrent = optional.wasi_p3 && imports::may_be_p3(&module);
        let concurrent = concurrent.then(|| Compilers::new(Concurrency::Tasks, arguments.soon));
        let concurrent = concurrent.transpose()?;
        ThreadPoolBuilder::new().num_threads(threads).build_global()?;
        // When each has run something, all have started, and need no system call for it any more.
        rayon::broadcast(|_| ());
        confinement::enclose()?;
        syscalls::restrict()?;
        Ok(Confined { module, optional, compilers, concurrent })
    }

    fn compiled(&self) -> wasmtime::Result<(CodeMaker, Vec<u8>)> {
        let text;
        let (format, binary) = match Format::of(&self.module) {
            Some(Format::Text) => {
                module_format::check_text(self.module.len())?;
                text = wat::parse_bytes(&self.module)?;
                (Format::of(&text), &text[..])
            }
            format => (format, &self.module[..]),
        };
        let code = match format {
            Some(Format::Module) => imports::check_module(&self.compilers.optimiser, binary)
                .and_then(|()| self.compilers.made(binary, Engine::precompile_module)),
            Some(Format::Component) => imports::check_component(&self.compilers.optimiser, binary, self.optional)
                .and_then(|wasi| self.compilers_for(wasi)?.made(binary, Engine::precompile_component)),
            Some(Format::Text | Format::Native) | None => {
                return Err(wasmtime::Error::msg("not a WebAssembly module, component or text"));
            }
        };
        code.map_err(|error| {
            let concurrency = if imports::may_be_p3(binary) { Concurrency::Tasks } else { Concurrency::None };
            match advice::missing_feature(binary, concurrency) {
                Some(Feature { name, reason, .. }) => {
                    error.context(format!("it needs the feature `{name}`, which is off: {reason}"))
                }
                None => error,
            }
        })
    }

    fn compilers_for(&self, wasi: Wasi) -> wasmtime::Result<&Compilers> {
        match wasi {
            Wasi::P2 => Ok(&self.compilers),
            Wasi::P3 => self.concurrent.as_ref().ok_or_else(|| {
                wasmtime::Error::msg(
                    "it is a component of WASI 0.3, and hides that in escapes of its text: write `@0.3.` as it is",
                )
            }),
        }
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
