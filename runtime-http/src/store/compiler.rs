//! From the bytes of a file to code that is ready: sniff, look in the AOT caches, have it compiled, store.

use std::{
    fmt::Display,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use rayon::{ThreadPool, ThreadPoolBuilder};
use wasmtime::Precompiled;

use super::{
    artifact::{ArtifactCache, ArtifactKey},
    kind::Format,
    native::{Code, Native},
};
use crate::{
    engine::compatibility_key,
    metrics::Metrics,
    node::client::{CompileService, Outcome},
    sandbox::Toolchain,
};

/// Why the bytes of a file cannot become a program.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    #[error("not a WebAssembly module, component or text (the file starts with none of their signatures)")]
    UnknownFormat,
    #[error("{0:#}")]
    Invalid(wasmtime::Error),
    #[error("{0}")]
    Text(#[from] wat::Error),
    #[error(
        "a native image, which runs only with TRUST_PRECOMPILED=true; serve the .wasm instead, it is compiled and cached"
    )]
    PrecompiledUntrusted,
    #[error("a native image that this wasmbox cannot load: {0:#}")]
    PrecompiledUnusable(wasmtime::Error),
}

/// What [`Compiler::prepare`] found.
pub enum Prepared {
    Ready(Code),
    /// To be compiled: a binary module or component.
    Wasm {
        bytes: Vec<u8>,
        kind: Precompiled,
        key: ArtifactKey,
    },
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
    /// Cranelift works on as many functions at once as this pool has threads.
    threads: ThreadPool,
    compatibility: u64,
    metrics: Arc<Metrics>,
}

/// Below so many bytes compiling takes less time than two processes to start.
const WORTH_ASKING: usize = 16 << 10;
/// The nice value of compile threads: a warm function gets about ten times their share of a busy core.
const NICE: i32 = 10;

impl Compiler {
    /// # Errors
    /// If threads cannot be started.
    pub fn new(
        toolchain: Arc<Toolchain>,
        caches: Caches,
        trust_precompiled: bool,
        threads: usize,
        metrics: Arc<Metrics>,
    ) -> Result<Self, rayon::ThreadPoolBuildError> {
        let threads = ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|index| format!("compile-{index}"))
            .start_handler(|_| {
                // On Linux the nice value belongs to the thread. Without it compilation works all the same.
                let _ = rustix::process::setpriority_process(None, NICE);
            })
            .build()?;
        let compatibility = compatibility_key(toolchain.engine());
        Ok(Compiler { toolchain, caches, trust_precompiled, threads, compatibility, metrics })
    }

    pub fn toolchain(&self) -> &Toolchain {
        &self.toolchain
    }

    pub fn has_cache(&self) -> bool {
        self.caches.own.is_some() || self.caches.node.is_some()
    }

    /// The quick part: what is cached or native is loaded, text becomes binary.
    ///
    /// # Errors
    /// [`CompileError`].
    pub fn prepare(&self, bytes: Vec<u8>) -> Result<Prepared, CompileError> {
        match Format::of(&bytes).ok_or(CompileError::UnknownFormat)? {
            Format::Module => self.prepare_wasm(bytes, Precompiled::Module),
            Format::Component => self.prepare_wasm(bytes, Precompiled::Component),
            Format::Text => {
                let binary = wat::parse_bytes(&bytes)?.into_owned();
                match Format::of(&binary) {
                    Some(Format::Component) => self.prepare_wasm(binary, Precompiled::Component),
                    _ => self.prepare_wasm(binary, Precompiled::Module),
                }
            }
            Format::Native if !self.trust_precompiled => Err(CompileError::PrecompiledUntrusted),
            Format::Native => {
                let engine = self.toolchain.engine();
                let kind = wasmtime::Engine::detect_precompiled(&bytes).ok_or(CompileError::UnknownFormat)?;
                Native::Trusted(&bytes)
                    .load(engine, kind)
                    .map(Prepared::Ready)
                    .map_err(CompileError::PrecompiledUnusable)
            }
        }
    }

    fn prepare_wasm(&self, bytes: Vec<u8>, kind: Precompiled) -> Result<Prepared, CompileError> {
        let key = ArtifactKey::new(&bytes, self.compatibility);
        let own = self.caches.own.as_ref().map(|cache| ("disk", cache));
        let node = self.caches.node.as_ref().map(|node| ("node", &node.cache));
        for (name, cache) in own.into_iter().chain(node) {
            let cached = cache.get(&key).map(|artifact| Native::Cached(artifact).load(self.toolchain.engine(), kind));
            let result = match &cached {
                None => "miss",
                Some(Ok(_)) => "hit",
                Some(Err(error)) => {
                    tracing::warn!("an image of the AOT cache cannot be loaded, compiling anew: {error:#}");
                    "refused"
                }
            };
            self.metrics.cache.with_label_values(&[name, result]).inc();
            if let Some(Ok(code)) = cached {
                return Ok(Prepared::Ready(code));
            }
        }
        Ok(Prepared::Wasm { bytes, kind, key })
    }

    /// The slow part. Blocks; the work is done by the node's service, else on the compile threads.
    ///
    /// # Errors
    /// [`CompileError::Invalid`] with the validator's reason.
    pub fn compile(&self, bytes: &[u8], kind: Precompiled, key: &ArtifactKey) -> Result<Code, CompileError> {
        if let Some(code) = self.compile_on_node(bytes, kind, key) {
            return Ok(code);
        }
        let engine = self.toolchain.engine();
        let started = Instant::now();
        let compiled = self.threads.install(|| match kind {
            Precompiled::Module => engine.precompile_module(bytes),
            Precompiled::Component => engine.precompile_component(bytes),
        });
        let result = if compiled.is_ok() { "ok" } else { "invalid" };
        self.metrics.compiles.with_label_values(&[result]).inc();
        self.metrics.compile.observe(started.elapsed().as_secs_f64());
        let code = compiled.map_err(CompileError::Invalid)?;
        if let Some(cache) = &self.caches.own {
            match cache.put(key, &code) {
                // From the file its pages are shared, and can be given back to the system.
                Ok(()) => {
                    if let Some(artifact) = cache.get(key)
                        && let Ok(code) = Native::Cached(artifact).load(engine, kind)
                    {
                        return Ok(code);
                    }
                }
                Err(error) => tracing::warn!("cannot write to the AOT cache {}: {error}", cache.directory().display()),
            }
        }
        Native::Compiled(&code).load(engine, kind).map_err(CompileError::Invalid)
    }

    /// `None`: this box has to do it, were it only to find what is wrong with the module.
    fn compile_on_node(&self, bytes: &[u8], kind: Precompiled, key: &ArtifactKey) -> Option<Code> {
        let node = self.caches.node.as_ref()?;
        let service = node.service.as_ref().filter(|_| bytes.len() >= WORTH_ASKING)?;
        let started = Instant::now();
        match service.compile(bytes, self.compatibility) {
            Ok(Outcome::InCache) => {}
            Ok(Outcome::Invalid) => return None,
            Err(error) => {
                node.complain(service, &error);
                return None;
            }
        }
        let Some(artifact) = node.cache.get(key) else {
            node.complain(service, &"what it compiled is not in the node's cache");
            return None;
        };
        match Native::Cached(artifact).load(self.toolchain.engine(), kind) {
            Ok(code) => {
                self.metrics.compiles.with_label_values(&["node"]).inc();
                self.metrics.compile.observe(started.elapsed().as_secs_f64());
                Some(code)
            }
            Err(error) => {
                node.complain(service, &format_args!("what it compiled cannot be loaded: {error:#}"));
                None
            }
        }
    }
}
