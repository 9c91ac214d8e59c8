//! The process that compiles: from a module on standard input to native code on standard output, both files in memory.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::AsFd,
};

use rayon::ThreadPoolBuilder;

use super::{confinement, memory_file::Sealed};
use crate::{cli::CompileConfinedArgs, engine::EngineSize, store::kind::Format};

/// How the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The code is on standard output.
    Compiled = 0,
    /// Standard output has the reason.
    Failed = 1,
    /// It is no valid module.
    Invalid = 3,
}

/// More help no more, and each has a stack.
const MOST_THREADS: usize = 8;

/// Confines this process, and compiles.
pub fn compile(arguments: &CompileConfinedArgs) -> Ending {
    let result = compiled(arguments).and_then(|code| {
        let Some(code) = code else { return Ok(Ending::Invalid) };
        write(&code)?;
        Ok(Ending::Compiled)
    });
    result.unwrap_or_else(|error| {
        let _ = write(format!("{error:#}").as_bytes());
        Ending::Failed
    })
}

/// Not through the standard library's standard output: that looks for lines.
fn write(bytes: &[u8]) -> io::Result<()> {
    File::from(io::stdout().as_fd().try_clone_to_owned()?).write_all(bytes)
}

/// `None`: the module is invalid.
fn compiled(arguments: &CompileConfinedArgs) -> anyhow::Result<Option<Vec<u8>>> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS);
    confinement::enter(arguments.user, arguments.allowance())?;
    let module = Sealed::received(io::stdin().as_fd())?.map()?;
    let engine = EngineSize::for_compiling().engine()?;
    ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    Ok(match Format::of(&module) {
        Some(Format::Module) => engine.precompile_module(&module).ok(),
        Some(Format::Component) => engine.precompile_component(&module).ok(),
        Some(Format::Text | Format::Native) | None => None,
    })
}
