//! Compiled code, linked and checked: what is left to do per invocation is to instantiate it.

use std::sync::Arc;

use wasmtime::{
    Engine, InstancePre, Linker, Module, ModuleExport,
    component::{Component, Linker as ComponentLinker},
};
use wasmtime_wasi::p2::bindings::CommandPre;
use wasmtime_wasi_http::p2::bindings::ProxyPre;

use super::{command::CoreHost, http::ComponentHost};
use crate::excerpt::excerpt;

/// Something that can be invoked.
pub enum Program {
    Core(Arc<CoreProgram>),
    Command(Arc<CommandPre<ComponentHost>>),
    Http(Arc<ProxyPre<ComponentHost>>),
}

/// A WASI preview 1 command.
pub struct CoreProgram {
    pub(super) pre: InstancePre<CoreHost>,
    pub(super) start: ModuleExport,
    reads_environment: bool,
}

/// Why compiled code cannot be invoked.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// With the names that the module chose, as an excerpt.
    #[error("{0}")]
    Link(String),
    #[error(
        "the module exports no function `_start` without parameters and results; build it as a WASI command, not as a library"
    )]
    NoStart,
    #[error("the component exports neither wasi:http/incoming-handler nor wasi:cli/run (WASI 0.2)")]
    NoEntryPoint,
}

/// The engine and what guests may import.
pub struct Toolchain {
    engine: Engine,
    core: Linker<CoreHost>,
    component: ComponentLinker<ComponentHost>,
}

impl Toolchain {
    /// # Errors
    /// Only if wasmtime's own interfaces collide: a mistake in this file.
    pub fn new(engine: Engine) -> wasmtime::Result<Self> {
        let mut core = Linker::new(&engine);
        wasmtime_wasi::p1::add_to_linker_async(&mut core, CoreHost::wasi)?;
        // wasmtime takes codes up to 125 only, and a trap is what others become; but C's -1 and 200 of Python are codes like any other.
        core.allow_shadowing(true);
        core.func_wrap("wasi_snapshot_preview1", "proc_exit", |code: i32| Err::<(), _>(exit(code)))?;
        core.allow_shadowing(false);
        let mut component = ComponentLinker::new(&engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut component)?;
        wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut component)?;
        Ok(Toolchain { engine, core, component })
    }

    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// # Errors
    /// [`ProgramError`] if imports are unknown or there is no `_start`.
    pub fn module(&self, module: &Module) -> Result<Program, ProgramError> {
        let pre = self.core.instantiate_pre(module).map_err(link)?;
        let start = module
            .get_export("_start")
            .and_then(|export| export.func().cloned())
            .filter(|start| start.params().len() == 0 && start.results().len() == 0)
            .and_then(|_| module.get_export_index("_start"))
            .ok_or(ProgramError::NoStart)?;
        let reads_environment = module.imports().any(|import| import.name().starts_with("environ_"));
        Ok(Program::Core(Arc::new(CoreProgram { pre, start, reads_environment })))
    }

    /// # Errors
    /// [`ProgramError`] if imports are unknown or there is no entry point.
    pub fn component(&self, component: &Component) -> Result<Program, ProgramError> {
        let pre = self.component.instantiate_pre(component).map_err(link)?;
        if let Ok(http) = ProxyPre::new(pre.clone()) {
            return Ok(Program::Http(Arc::new(http)));
        }
        CommandPre::new(pre).map(|command| Program::Command(Arc::new(command))).map_err(|_| ProgramError::NoEntryPoint)
    }
}

/// What ends a guest that exits. As for processes, the low 8 bits of its code are what is known of it; but an error is never taken for none.
fn exit(code: i32) -> wasmtime::Error {
    let known = code & 0xff;
    wasmtime_wasi::I32Exit(if known == 0 { code } else { known }).into()
}

fn link(error: wasmtime::Error) -> ProgramError {
    ProgramError::Link(excerpt(format_args!("{error:#}")))
}

impl Program {
    /// Whether it can see its environment: most small programs do not import it, and need not be given one.
    pub fn reads_environment(&self) -> bool {
        match self {
            Program::Core(core) => core.reads_environment,
            Program::Command(_) | Program::Http(_) => true,
        }
    }

    /// The word for it in logs and listings.
    pub fn kind(&self) -> &'static str {
        match self {
            Program::Core(_) => "command",
            Program::Command(_) => "command-component",
            Program::Http(_) => "http-component",
        }
    }
}
