//! Compiled code, linked and checked: what is left to do per invocation is to instantiate it.

use std::sync::{Arc, OnceLock};

use wasmtime::{
    Engine, InstancePre, Linker, Module, ModuleExport,
    component::{Component, InstancePre as ComponentPre, Linker as ComponentLinker},
};
use wasmtime_wasi::{p2::bindings::CommandPre as P2CommandPre, p3::bindings::CommandPre as P3CommandPre};
use wasmtime_wasi_http::{p2::bindings::ProxyPre, p3::bindings::ServicePre};

use super::{
    command::CoreHost,
    component::ComponentHost,
    keyvalue, listing, logging,
    outbound::{sockets_p2, sockets_p3},
};
use crate::{
    confined::{optional_interfaces::OptionalInterfaces, unusable::Unusable},
    engine::{EngineError, Engines},
    excerpt::excerpt,
    module_format::ProgramKind,
};

/// Something that can be invoked.
pub enum Program {
    Core(Arc<CoreProgram>),
    Command(Arc<CommandComponent>),
    Http(Arc<HttpComponent>),
}

/// A component that is a command: `wasi:cli/run`.
pub enum CommandComponent {
    P2(P2CommandPre<ComponentHost>),
    P3(P3CommandPre<ComponentHost>),
}

/// A component that answers HTTP requests.
pub enum HttpComponent {
    /// `wasi:http/incoming-handler` of WASI 0.2.
    P2(ProxyPre<ComponentHost>),
    /// `wasi:http/handler` of WASI 0.3.
    P3(ServicePre<ComponentHost>),
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
    /// Which is found before compiling, unless that was done where more was on.
    #[error(transparent)]
    Unusable(#[from] Unusable),
    /// For components of WASI 0.3.
    #[error(transparent)]
    Engine(Arc<EngineError>),
}

/// The engines and what guests may import.
pub struct Toolchain {
    engines: Engines,
    optional: OptionalInterfaces,
    plain: Linkers,
    winch: Option<Linkers>,
    /// Of the concurrent engine: WASI 0.3 beside 0.2.
    concurrent: OnceLock<ComponentLinker<ComponentHost>>,
}

impl Toolchain {
    /// # Errors
    /// Only if wasmtime's own interfaces collide: a mistake in this file.
    pub fn new(engines: Engines, optional: OptionalInterfaces) -> wasmtime::Result<Self> {
        let plain = Linkers::new(engines.plain())?;
        let winch = engines.winch().map(Linkers::new).transpose()?;
        Ok(Toolchain { engines, optional, plain, winch, concurrent: OnceLock::new() })
    }

    /// `None`: it is the concurrent one.
    fn linkers(&self, engine: &Engine) -> Option<&Linkers> {
        [Some(&self.plain), self.winch.as_ref()].into_iter().flatten().find(|linkers| linkers.are_of(engine))
    }

    pub fn engines(&self) -> &Engines {
        &self.engines
    }

    /// What components may need of it, of what the operator turns on or off.
    pub fn optional(&self) -> OptionalInterfaces {
        self.optional
    }

    /// # Errors
    /// [`ProgramError`] if imports are unknown or there is no `_start`.
    pub fn module(&self, module: &Module) -> Result<Program, ProgramError> {
        let linkers = self.linkers(module.engine()).unwrap_or(&self.plain);
        let pre = linkers.core.instantiate_pre(module).map_err(link)?;
        let start = module
            .get_export("_start")
            .and_then(|export| export.func().cloned())
            .filter(|start| start.params().len() == 0 && start.results().len() == 0)
            .and_then(|_| module.get_export_index("_start"))
            .ok_or(Unusable::NoStart)?;
        let reads_environment = module.imports().any(|import| import.name().starts_with("environ_"));
        Ok(Program::Core(Arc::new(CoreProgram { pre, start, reads_environment })))
    }

    /// # Errors
    /// [`ProgramError`] if imports are unknown or there is no entry point.
    pub fn component(&self, component: &Component) -> Result<Program, ProgramError> {
        let (engine, kind) = (component.engine(), component.component_type());
        let linkers = self.linkers(engine);
        self.optional.check(linkers.is_none(), kind.imports(engine).map(|(name, _)| name))?;
        if let Some(linkers) = linkers {
            let pre = linkers.component.instantiate_pre(component).map_err(link)?;
            return p2_program(&pre).ok_or(ProgramError::Unusable(Unusable::NoEntryPoint));
        }
        let pre = self.concurrent()?.instantiate_pre(component).map_err(link)?;
        if let Ok(http) = ServicePre::new(pre.clone()) {
            return Ok(Program::Http(Arc::new(HttpComponent::P3(http))));
        }
        if let Ok(command) = P3CommandPre::new(pre.clone()) {
            return Ok(Program::Command(Arc::new(CommandComponent::P3(command))));
        }
        p2_program(&pre).ok_or(ProgramError::Unusable(Unusable::NoEntryPoint))
    }

    fn concurrent(&self) -> Result<&ComponentLinker<ComponentHost>, ProgramError> {
        if let Some(linker) = self.concurrent.get() {
            return Ok(linker);
        }
        let engine = self.engines.concurrent().map_err(ProgramError::Engine)?;
        let linker = p3_linker(engine).map_err(link)?;
        Ok(self.concurrent.get_or_init(|| linker))
    }
}

/// What core modules and components of WASI 0.2 may import.
struct Linkers {
    core: Linker<CoreHost>,
    component: ComponentLinker<ComponentHost>,
}

impl Linkers {
    fn new(engine: &Engine) -> wasmtime::Result<Linkers> {
        let mut core = Linker::new(engine);
        wasmtime_wasi::p1::add_to_linker_async(&mut core, CoreHost::wasi)?;
        // wasmtime takes codes up to 125 only, and a trap is what others become; but C's -1 and 200 of Python are codes like any other.
        core.allow_shadowing(true);
        core.func_wrap("wasi_snapshot_preview1", "proc_exit", |code: i32| Err::<(), _>(exit(code)))?;
        listing::link_core(&mut core)?;
        core.allow_shadowing(false);
        Ok(Linkers { core, component: p2_linker(engine)? })
    }

    fn are_of(&self, engine: &Engine) -> bool {
        Engine::same(self.component.engine(), engine)
    }
}

fn p2_linker(engine: &Engine) -> wasmtime::Result<ComponentLinker<ComponentHost>> {
    let mut linker = ComponentLinker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    wasmtime_wasi_config::add_to_linker(&mut linker, ComponentHost::config)?;
    logging::link(&mut linker)?;
    keyvalue::link(&mut linker)?;
    sockets_p2::link(&mut linker)?;
    listing::link(&mut linker)?;
    Ok(linker)
}

fn p3_linker(engine: &Engine) -> wasmtime::Result<ComponentLinker<ComponentHost>> {
    let mut linker = p2_linker(engine)?;
    wasmtime_wasi::p3::add_to_linker(&mut linker)?;
    wasmtime_wasi_http::p3::add_to_linker(&mut linker)?;
    sockets_p3::link(&mut linker)?;
    Ok(linker)
}

fn p2_program(pre: &ComponentPre<ComponentHost>) -> Option<Program> {
    if let Ok(http) = ProxyPre::new(pre.clone()) {
        return Some(Program::Http(Arc::new(HttpComponent::P2(http))));
    }
    P2CommandPre::new(pre.clone()).ok().map(|command| Program::Command(Arc::new(CommandComponent::P2(command))))
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

    pub fn kind(&self) -> ProgramKind {
        match self {
            Program::Core(_) => ProgramKind::Core,
            Program::Command(_) => ProgramKind::Command,
            Program::Http(http) => ProgramKind::Http { at_once: matches!(**http, HttpComponent::P3(_)) },
        }
    }
}
