//! From the bytes of a file to code that is ready: sniff, look in the AOT caches, have it compiled, store.
//!
//! Nothing is parsed here: compiling is the [confined compiler's](crate::confined), the node's if it serves, else this box's.

use std::{
    fmt::Display,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

pub use super::compile_error::CompileError;
use super::{
    native::{Code, Native},
    pace::Pace,
};
use crate::{
    artifacts::{ArtifactCache, ArtifactKey, file_identity::FileIdentity},
    confined::{
        self, Allowance, CompilerError, Isolation, Made, Wanted,
        memory_file::{MemoryFile, Sealed},
        stop::Stop,
    },
    engine::tier::Tiers,
    engine::{
        Engines,
        tier::{CodeMaker, Tier},
    },
    excerpt::excerpt,
    metrics::Metrics,
    module_format::{self, Format},
    node::client::{CompileService, Outcome},
    sandbox::{Program, ProgramError, Toolchain},
};

/// What [`Compiler::prepare`] found.
pub enum Prepared {
    Ready(Compiled),
    /// To be compiled: a binary module or component, or text.
    Wasm(Source),
}

/// Code, and what made it.
pub struct Compiled {
    pub code: Code,
    by: CodeMaker,
}

impl Compiled {
    fn optimised(code: Code) -> Compiled {
        Compiled { code, by: CodeMaker::Optimiser }
    }

    pub fn tier(&self) -> Tier {
        self.by.tier()
    }
}

/// What is to be compiled.
pub struct Source {
    bytes: Vec<u8>,
    key: ArtifactKey,
}

/// The same, where another process can read it.
pub struct SealedSource {
    module: Sealed,
    key: ArtifactKey,
}

impl Source {
    /// # Errors
    /// [`CompileError::Memory`].
    pub fn into_module(self) -> Result<SealedSource, CompileError> {
        Ok(SealedSource { module: MemoryFile::containing("module", &self.bytes)?, key: self.key })
    }
}

/// Compiled code on disk.
pub struct Caches {
    pub own: Option<ArtifactCache>,
    pub node: Option<NodeCache>,
}

/// What the node offers: code that it compiled, and to compile more.
pub struct NodeCache {
    cache: ArtifactCache,
    service: Option<CompileService>,
    /// Whether it was said that the service does not serve.
    complained: AtomicBool,
}

impl NodeCache {
    pub fn new(cache: ArtifactCache, service: Option<CompileService>) -> NodeCache {
        NodeCache { cache, service, complained: AtomicBool::new(false) }
    }

    fn complain(&self, service: &CompileService, reason: &dyn Display) {
        let socket = service.socket().display();
        if self.complained.swap(true, Ordering::Relaxed) {
            tracing::debug!("the node's compile service {socket} does not serve: {reason}");
        } else {
            tracing::warn!("the node's compile service {socket} does not serve, compiling here: {reason}");
        }
    }
}

/// Compiles, with caches on disk. These have optimised code only: baseline code is made about as soon as it is read, and would take the place of
/// what took longer.
pub struct Compiler {
    toolchain: Toolchain,
    caches: Caches,
    settings: CompilerSettings,
    compatibility: u64,
    metrics: Arc<Metrics>,
    paces: [Pace; 2],
}

#[derive(Debug, Clone, Copy)]
pub struct CompilerSettings {
    pub trust_precompiled: bool,
    /// Of one compilation by this box.
    pub allowance: Allowance,
    pub tiers: Tiers,
}

/// Below so many bytes compiling takes less time than two processes to start.
const WORTH_ASKING: u64 = 16 << 10;
/// A smaller module is optimised in a moment.
const WORTH_TWO_STEPS: u64 = confined::process::ONE_STEP;

impl Compiler {
    pub fn new(toolchain: Toolchain, caches: Caches, settings: CompilerSettings, metrics: Arc<Metrics>) -> Self {
        let compatibility = toolchain.engines().compatibility_key();
        let paces = [Duration::from_millis(100), Duration::from_secs(1)].map(Pace::guessed);
        Compiler { toolchain, caches, settings, compatibility, metrics, paces }
    }

    /// # Errors
    /// [`ProgramError`] if it is nothing that can be invoked.
    pub fn program(&self, compiled: &Compiled) -> Result<Program, ProgramError> {
        match &compiled.code {
            Code::Module(module) => self.toolchain.module(module),
            Code::Component(component) => self.toolchain.component(component),
        }
    }

    /// All that run what is compiled here.
    pub fn engines(&self) -> &Engines {
        self.toolchain.engines()
    }

    fn pace(&self, tier: Tier) -> &Pace {
        let [baseline, optimised] = &self.paces;
        match tier {
            Tier::Baseline => baseline,
            Tier::Optimised => optimised,
        }
    }

    /// How long a new module of `size` bytes takes until it can be called.
    pub fn estimate(&self, size: u64) -> Duration {
        self.pace(if self.has_two_steps(size) { Tier::Baseline } else { Tier::Optimised }).of(size)
    }

    fn has_two_steps(&self, size: u64) -> bool {
        self.settings.tiers == Tiers::Auto && size > WORTH_TWO_STEPS
    }

    pub fn has_cache(&self) -> bool {
        self.caches.own.is_some() || self.caches.node.is_some()
    }

    /// The code of a file that is as it was when [`Self::prepare`] found it in this box's cache.
    pub fn recall(&self, file: &FileIdentity) -> Option<Compiled> {
        let artifact = self.caches.own.as_ref()?.recall(file, self.compatibility)?;
        let code = Native::Cached(artifact).load(self.engines(), CodeMaker::Optimiser).ok()?;
        self.metrics.cache.with_label_values(&["disk", "recalled"]).inc();
        Some(Compiled::optimised(code))
    }

    /// The quick part: what is cached or native is loaded. `bytes` are those of `file`, if that is to be recalled.
    ///
    /// # Errors
    /// [`CompileError`].
    pub fn prepare(&self, bytes: Vec<u8>, file: Option<&FileIdentity>) -> Result<Prepared, CompileError> {
        match Format::of(&bytes).ok_or(CompileError::UnknownFormat)? {
            Format::Text => module_format::check_text(bytes.len())?,
            Format::Module | Format::Component => {}
            Format::Native if !self.settings.trust_precompiled => return Err(CompileError::PrecompiledUntrusted),
            Format::Native => {
                let code = Native::Trusted(&bytes).load(self.engines(), CodeMaker::Optimiser);
                let code = code.map(Compiled::optimised).map(Prepared::Ready);
                return code.map_err(|error| CompileError::PrecompiledUnusable(said(&error)));
            }
        }
        let key = ArtifactKey::new(&bytes, self.compatibility);
        let own = self.caches.own.as_ref().map(|cache| ("disk", cache));
        let node = self.caches.node.as_ref().map(|node| ("node", &node.cache));
        for (name, cache) in own.into_iter().chain(node) {
            let cached = cache.get(&key).map(|artifact| {
                if let Some(file) = file {
                    cache.remember(file, &key, &artifact);
                }
                Native::Cached(artifact).load(self.engines(), CodeMaker::Optimiser)
            });
            let result = match &cached {
                None => "miss",
                Some(Ok(_)) => "hit",
                Some(Err(error)) => {
                    tracing::warn!("an image of the AOT cache cannot be loaded, compiling anew: {}", said(error));
                    "refused"
                }
            };
            self.metrics.cache.with_label_values(&[name, result]).inc();
            if let Some(Ok(code)) = cached {
                return Ok(Prepared::Ready(Compiled::optimised(code)));
            }
        }
        Ok(Prepared::Wasm(Source { bytes, key }))
    }

    /// The slow part, for those who wait: makes baseline code, if optimised code takes longer than a moment. Blocks.
    ///
    /// # Errors
    /// As [`Compiler::compile`].
    pub fn compile_soon(&self, source: SealedSource) -> Result<Compiled, CompileError> {
        if self.has_two_steps(source.module.length()) {
            match self.compile_here(&source, Wanted::Soon, None) {
                // Of this compiler, which is not the only one.
                Err(
                    error @ (CompileError::Unloadable(_)
                    | CompileError::Compiler(CompilerError::Crashed { .. } | CompilerError::TooLong { .. })),
                ) => tracing::warn!("no baseline code, which is made otherwise at once: {error}"),
                ended => return ended,
            }
        }
        self.compile(source)
    }

    /// The slow part: makes optimised code. Blocks; the work is done by the node's service, else by a process of this box's own.
    ///
    /// # Errors
    /// [`CompileError`], of which [`CompilerError::Invalid`] has the validator's reason.
    pub fn compile(&self, source: SealedSource) -> Result<Compiled, CompileError> {
        match self.compile_on_node(&source)? {
            Some(compiled) => Ok(compiled),
            None => self.compile_here(&source, Wanted::Optimised, None),
        }
    }

    /// By a process of this box's own. Blocks.
    ///
    /// # Errors
    /// As [`Compiler::compile`].
    pub fn compile_here(
        &self,
        source: &SealedSource,
        wanted: Wanted,
        stop: Option<&Stop>,
    ) -> Result<Compiled, CompileError> {
        let SealedSource { module, key } = source;
        let started = Instant::now();
        let (optional, allowance) = (self.toolchain.optional(), self.settings.allowance);
        let made = confined::compile(module, wanted, optional, allowance, Isolation::Unprivileged, stop);
        let (tier, result) = match &made {
            Ok(made) => (made.by.tier(), "ok"),
            Err(error) => {
                let result = match error {
                    CompilerError::Invalid(_) => "invalid",
                    CompilerError::Stopped => "stopped",
                    _ => "failed",
                };
                (if wanted == Wanted::Soon { Tier::Baseline } else { Tier::Optimised }, result)
            }
        };
        self.count(tier, result, started);
        let Made { code, by } = made?;
        if wanted != Wanted::OptimisedLater {
            self.pace(tier).took(module.length(), started.elapsed());
        }
        if let Some(cache) = self.caches.own.as_ref().filter(|_| tier == Tier::Optimised) {
            if let Err(error) = code.map().and_then(|code| cache.put(key, &code)) {
                tracing::warn!("cannot write to the AOT cache {}: {error}", cache.directory().display());
            // From the file its pages can be given back to the system.
            } else if let Some(artifact) = cache.get(key)
                && let Ok(code) = Native::Cached(artifact).load(self.engines(), by)
            {
                return Ok(Compiled { code, by });
            }
        }
        let code = Native::Compiled(&code).load(self.engines(), by);
        code.map(|code| Compiled { code, by }).map_err(|error| CompileError::Unloadable(said(&error)))
    }

    fn count(&self, tier: Tier, result: &str, started: Instant) {
        self.metrics.tiers.compilation(tier, result).inc();
        self.metrics.tiers.duration(tier).observe(started.elapsed().as_secs_f64());
    }

    /// `None`: there is no service, it does not serve or does not know what is off here, and this box has to do it.
    ///
    /// # Errors
    /// As [`Compiler::compile`].
    pub fn compile_on_node(&self, source: &SealedSource) -> Result<Option<Compiled>, CompileError> {
        let SealedSource { module, key } = source;
        let Some(node) = &self.caches.node else { return Ok(None) };
        let Some(service) = node.service.as_ref().filter(|_| module.length() >= WORTH_ASKING) else { return Ok(None) };
        let bytes = module.map()?;
        // Which is found before compiling, but only here: the node compiles for boxes with more, too.
        if self.toolchain.optional().may_miss(&bytes) {
            return Ok(None);
        }
        let started = Instant::now();
        match service.compile(&bytes, self.compatibility) {
            Ok(Outcome::InCache) => {}
            Ok(Outcome::Failed(reason)) => {
                self.metrics.tiers.compilation(Tier::Optimised, "node-failed").inc();
                return Err(CompileError::Node(reason));
            }
            Err(error) => {
                node.complain(service, &error);
                return Ok(None);
            }
        }
        let Some(artifact) = node.cache.get(key) else {
            node.complain(service, &"what it compiled is not in the node's cache");
            return Ok(None);
        };
        match Native::Cached(artifact).load(self.engines(), CodeMaker::Optimiser) {
            Ok(code) => {
                self.count(Tier::Optimised, "node", started);
                Ok(Some(Compiled::optimised(code)))
            }
            Err(error) => {
                node.complain(service, &format_args!("what it compiled cannot be loaded: {}", said(&error)));
                Ok(None)
            }
        }
    }
}

fn said(error: &wasmtime::Error) -> String {
    excerpt(format_args!("{error:#}"))
}
