//! From the bytes of a file to code that is ready: sniff, look in the AOT caches, have it compiled, store.
//!
//! Nothing is parsed here: compiling is the [confined compiler's](crate::confined), the node's if it serves, else this box's.

use std::{
    fmt::Display,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use super::{
    artifact::{ArtifactCache, ArtifactKey},
    kind::{self, Format, TextTooLarge},
    native::{Code, Native},
};
use crate::{
    confined::{
        self, Allowance, CompilerError, Isolation,
        memory_file::{MemoryFile, Sealed},
    },
    excerpt::excerpt,
    metrics::Metrics,
    node::client::{CompileService, Outcome},
    sandbox::Toolchain,
};

/// Why the bytes of a file cannot become a program.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    #[error("not a WebAssembly module, component or text (the file starts with none of their signatures)")]
    UnknownFormat,
    #[error(transparent)]
    Text(#[from] TextTooLarge),
    #[error(transparent)]
    Compiler(#[from] CompilerError),
    /// The node's service could not, and so nobody can.
    #[error("{0}")]
    Node(String),
    #[error(
        "a native image, which runs only with TRUST_PRECOMPILED=true; serve the .wasm instead, it is compiled and cached"
    )]
    PrecompiledUntrusted,
    #[error("a native image that this wasmbox cannot load: {0}")]
    PrecompiledUnusable(String),
    #[error("compiled code that cannot be loaded: {0}")]
    Unloadable(String),
    #[error("memory for the module: {0}")]
    Memory(#[from] io::Error),
}

impl CompileError {
    /// Whether the same bytes would fail the same way at any other time.
    pub fn is_of_module(&self) -> bool {
        match self {
            CompileError::UnknownFormat
            | CompileError::Text(_)
            | CompileError::Node(_)
            | CompileError::PrecompiledUntrusted => true,
            CompileError::Compiler(error) => error.is_of_module(),
            // Memory may have been short.
            CompileError::PrecompiledUnusable(_) | CompileError::Unloadable(_) | CompileError::Memory(_) => false,
        }
    }
}

/// What [`Compiler::prepare`] found.
pub enum Prepared {
    Ready(Code),
    /// To be compiled: a binary module or component, or text.
    Wasm(Source),
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

/// Compiles, with caches on disk.
pub struct Compiler {
    toolchain: Arc<Toolchain>,
    caches: Caches,
    trust_precompiled: bool,
    /// Of one compilation by this box.
    allowance: Allowance,
    compatibility: u64,
    metrics: Arc<Metrics>,
}

/// Below so many bytes compiling takes less time than two processes to start.
const WORTH_ASKING: u64 = 16 << 10;

impl Compiler {
    pub fn new(
        toolchain: Arc<Toolchain>,
        caches: Caches,
        trust_precompiled: bool,
        allowance: Allowance,
        metrics: Arc<Metrics>,
    ) -> Self {
        let compatibility = toolchain.engines().compatibility_key();
        Compiler { toolchain, caches, trust_precompiled, allowance, compatibility, metrics }
    }

    pub fn toolchain(&self) -> &Toolchain {
        &self.toolchain
    }

    pub fn has_cache(&self) -> bool {
        self.caches.own.is_some() || self.caches.node.is_some()
    }

    /// The quick part: what is cached or native is loaded.
    ///
    /// # Errors
    /// [`CompileError`].
    pub fn prepare(&self, bytes: Vec<u8>) -> Result<Prepared, CompileError> {
        match Format::of(&bytes).ok_or(CompileError::UnknownFormat)? {
            Format::Text => kind::check_text(bytes.len())?,
            Format::Module | Format::Component => {}
            Format::Native if !self.trust_precompiled => return Err(CompileError::PrecompiledUntrusted),
            Format::Native => {
                let code = Native::Trusted(&bytes).load(self.toolchain.engines());
                return code.map(Prepared::Ready).map_err(|error| CompileError::PrecompiledUnusable(said(&error)));
            }
        }
        let key = ArtifactKey::new(&bytes, self.compatibility);
        let own = self.caches.own.as_ref().map(|cache| ("disk", cache));
        let node = self.caches.node.as_ref().map(|node| ("node", &node.cache));
        for (name, cache) in own.into_iter().chain(node) {
            let cached = cache.get(&key).map(|artifact| Native::Cached(artifact).load(self.toolchain.engines()));
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
                return Ok(Prepared::Ready(code));
            }
        }
        Ok(Prepared::Wasm(Source { bytes, key }))
    }

    /// The slow part. Blocks; the work is done by the node's service, else by a process of this box's own.
    ///
    /// # Errors
    /// [`CompileError`], of which [`CompilerError::Invalid`] has the validator's reason.
    pub fn compile(&self, module: SealedSource) -> Result<Code, CompileError> {
        let SealedSource { module, key } = module;
        if let Some(code) = self.compile_on_node(&module, &key)? {
            return Ok(code);
        }
        let started = Instant::now();
        let compiled = confined::compile(&module, self.allowance, Isolation::Unprivileged);
        drop(module);
        let result = match &compiled {
            Ok(_) => "ok",
            Err(CompilerError::Invalid(_)) => "invalid",
            Err(_) => "failed",
        };
        self.metrics.compiles.with_label_values(&[result]).inc();
        self.metrics.compile.observe(started.elapsed().as_secs_f64());
        let code = compiled?;
        if let Some(cache) = &self.caches.own {
            let stored = code.map().and_then(|code| cache.put(&key, &code));
            match stored {
                // From the file its pages can be given back to the system.
                Ok(()) => {
                    if let Some(artifact) = cache.get(&key)
                        && let Ok(code) = Native::Cached(artifact).load(self.toolchain.engines())
                    {
                        return Ok(code);
                    }
                }
                Err(error) => tracing::warn!("cannot write to the AOT cache {}: {error}", cache.directory().display()),
            }
        }
        Native::Compiled(&code).load(self.toolchain.engines()).map_err(|error| CompileError::Unloadable(said(&error)))
    }

    /// `None`: there is no service, or it does not serve, and this box has to do it.
    fn compile_on_node(&self, module: &Sealed, key: &ArtifactKey) -> Result<Option<Code>, CompileError> {
        let Some(node) = &self.caches.node else { return Ok(None) };
        let Some(service) = node.service.as_ref().filter(|_| module.length() >= WORTH_ASKING) else { return Ok(None) };
        let started = Instant::now();
        match service.compile(&module.map()?, self.compatibility) {
            Ok(Outcome::InCache) => {}
            Ok(Outcome::Failed(reason)) => {
                self.metrics.compiles.with_label_values(&["node-failed"]).inc();
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
        match Native::Cached(artifact).load(self.toolchain.engines()) {
            Ok(code) => {
                self.metrics.compiles.with_label_values(&["node"]).inc();
                self.metrics.compile.observe(started.elapsed().as_secs_f64());
                Ok(Some(code))
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
