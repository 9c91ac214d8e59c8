//! The module store: from a name to a function that is ready.
//!
//! A changed file is seen by the next request: each request costs two or three `stat` calls. Loading happens once for all
//! who wait for it, never on the threads that serve connections, and goes on when they leave. What a file's content made fail stays failed until
//! it changes; what may pass is tried again. The store does not run anything and knows nothing of HTTP.
//!
//! - [`name`]: names of modules; [`mod@file`]: the functions directory
//! - [`cache`]: what is in memory; [`loader`], [`loading`]: how it gets there, on which thread; [`compile_queue`]: who compiles next
//! - [`listing`]: what there is, for operators
//! - [`settings`]: per-function settings; [`unknown_key`]: what was meant in them; [`function`]: the ready function
//! - [`promotion`]: whose baseline code is replaced, and when; [`pace`]: how long compiling may take
//! - [`compiler`], [`native`]: compiling, loading native code

pub mod cache;
mod compile_error;
mod compile_queue;
pub mod compiler;
pub mod file;
pub mod function;
pub mod listing;
pub mod loader;
mod loading;
pub mod methods;
pub mod name;
pub mod native;
pub mod pace;
mod promoter;
pub mod promotion;
pub mod settings;
pub mod unknown_key;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use prometheus::IntCounter;
use tokio::{
    runtime::Handle,
    sync::{Notify, watch},
};

pub use self::loader::{LARGEST_SETTINGS, LoadError};
use self::{
    cache::{Cache, LookUp},
    compiler::Compiler,
    file::{FileError, FileVersion, FunctionsDir},
    function::{Defaults, Function},
    loader::Loader,
    loading::Loading,
    name::ModuleName,
    promotion::Promotions,
    settings::{BadSettings, OperatorGrants},
};
use crate::{
    keyvalue::Keyvalue,
    metrics::{Metrics, gauge},
    module_format::ProgramKind,
    sandbox::outbound::OutboundAccess,
    threads::ThreadStart,
};

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{0}")]
    Load(Arc<LoadError>),
    /// With about how long it still takes.
    #[error("{file} is still being compiled")]
    Compiling { file: String, takes: Duration },
}

type LoadResult = Result<Arc<Function>, Arc<LoadError>>;

/// For what is being loaded.
#[derive(Clone)]
struct Waiting {
    result: watch::Receiver<Option<LoadResult>>,
    until: Instant,
}

/// Bounds of the store.
#[derive(Debug, Clone, Copy)]
pub struct StoreBounds {
    /// The most bytes of compiled code held in memory.
    pub memory: usize,
    /// The most functions, good or bad, held in memory.
    pub entries: usize,
    /// Descriptors that files of guests may take.
    pub guests_files: usize,
    /// The largest file.
    pub module: u64,
    /// The most bytes of files held in memory while they are read and looked up, but for one that is larger by itself.
    pub reading: u64,
    /// Modules compiled at once.
    pub compile_jobs: usize,
}

/// Threads that are not the store's own.
pub struct StoreThreads {
    /// Where loading waits for the compiler, also when the connection that asked for it is gone.
    pub runtime: Handle,
    /// What those do first that do guests' file access.
    pub file_access: ThreadStart,
    /// What drives connections of guests to others.
    pub outbound: Arc<OutboundAccess>,
    /// Where functions keep values, if they do.
    pub keyvalue: Option<Arc<Keyvalue>>,
}

/// Code that has not been used for this long is let go of when memory runs short.
const IDLE: Duration = Duration::from_secs(60);

/// Functions by file.
pub struct ModuleStore {
    loader: Arc<Loader>,
    /// Whether looking at a file may take long, because it is on another machine.
    remote: bool,
    bounds: StoreBounds,
    metrics: Arc<Metrics>,
    cache: Mutex<Cache<Arc<Function>, Arc<LoadError>, Waiting>>,
    promotions: Mutex<Promotions<Function>>,
    /// Another one is due, or one is due sooner.
    promotions_changed: Notify,
    runtime: Handle,
    hits: IntCounter,
    misses: IntCounter,
}

impl ModuleStore {
    pub fn new(
        directory: FunctionsDir,
        compiler: Compiler,
        defaults: Defaults,
        grants: OperatorGrants,
        bounds: StoreBounds,
        threads: StoreThreads,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(ModuleStore {
            remote: file::is_remote(directory.path()),
            runtime: threads.runtime.clone(),
            loader: Arc::new(Loader::new(directory, compiler, defaults, grants, bounds, threads, metrics.clone())),
            bounds,
            cache: Mutex::default(),
            promotions: Mutex::default(),
            promotions_changed: Notify::new(),
            hits: metrics.cache.with_label_values(&["memory", "hit"]),
            misses: metrics.cache.with_label_values(&["memory", "miss"]),
            metrics,
        })
    }

    fn cache(&self) -> MutexGuard<'_, Cache<Arc<Function>, Arc<LoadError>, Waiting>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The function of that name, as its file is now; waits for its loading until `deadline`.
    ///
    /// # Errors
    /// [`StoreError::Compiling`] if it is not ready by then, else why it cannot be loaded.
    pub async fn get(self: &Arc<Self>, name: &ModuleName, deadline: Instant) -> Result<Arc<Function>, StoreError> {
        let now = Instant::now();
        // Without the lock in what follows.
        let just_looked_at = self.cache().just_looked_at(name, now);
        if let Some(function) = just_looked_at {
            self.hits.inc();
            self.called(&function);
            return Ok(function);
        }
        let version = match self.find(name).await {
            Ok(version) => version,
            Err(error) => {
                if let FileError::NotFound { .. } = error {
                    self.forget(name);
                }
                return Err(StoreError::Load(Arc::new(error.into())));
            }
        };
        let (found, loading) = {
            let mut cache = self.cache();
            match cache.look_up(name, &version, now) {
                LookUp::Missing => {
                    let (sender, result) = watch::channel(None);
                    let until = now + self.loader.compiler.estimate(version.module.size());
                    let waiting = Waiting { result, until };
                    let ticket = cache.start(&version, waiting.clone(), now);
                    (LookUp::Loading(waiting), Some(Loading::new(self, ticket, sender)))
                }
                found => (found, None),
            }
        };
        let waiting = match found {
            LookUp::Ready(function) => {
                self.hits.inc();
                self.called(&function);
                return Ok(function);
            }
            LookUp::Failed(error) => return Err(StoreError::Load(error)),
            LookUp::Loading(waiting) => waiting,
            LookUp::Missing => unreachable!("then it is being loaded"),
        };
        // Without the lock, which a loading that cannot start takes at its end.
        if let Some(loading) = loading {
            loading.start(version.clone());
        }
        self.misses.inc();
        wait_for(waiting, deadline, &version.file).await
    }

    async fn find(self: &Arc<Self>, name: &ModuleName) -> Result<FileVersion, FileError> {
        if !self.remote {
            return self.loader.directory.find(name);
        }
        let (directory, name) = (self.loader.directory.clone(), name.clone());
        let file = name.to_string();
        let found = tokio::task::spawn_blocking(move || directory.find(&name)).await;
        found.unwrap_or_else(|error| Err(FileError::Io { file, source: std::io::Error::other(error) }))
    }

    /// Lets go of what there was for a name that there is no file for any more.
    fn forget(&self, name: &ModuleName) {
        let mut cache = self.cache();
        let removed = FunctionsDir::candidates(name).filter(|file| cache.remove(file)).count();
        if removed > 0 {
            self.show(&cache);
        }
    }

    /// Lets go of compiled code that has not been used for a minute, if it is on disk too; gives how many functions that were.
    pub fn trim(&self) -> usize {
        if !self.loader.compiler.has_cache() {
            return 0;
        }
        let mut cache = self.cache();
        let removed = cache.remove_idle(IDLE, Instant::now());
        self.show(&cache);
        removed
    }

    fn show(&self, cache: &Cache<Arc<Function>, Arc<LoadError>, Waiting>) {
        self.metrics.cached_bytes.set(gauge(cache.bytes()));
        self.metrics.cached_modules.set(gauge(cache.functions()));
    }

    /// What would be wrong with a file of `size` bytes of a directory that is not served; else its kind. What was optimised for it is in the AOT cache.
    ///
    /// # Errors
    /// [`LoadError`], as a request for it would be told.
    pub async fn check(&self, directory: &FunctionsDir, file: &str, size: u64) -> Result<ProgramKind, LoadError> {
        self.loader.check(directory, file, size).await
    }

    /// # Errors
    /// What would be wrong with the settings `file`, if it had that text. Blocks.
    pub fn check_settings(&self, file: &str, text: &str) -> Result<(), BadSettings> {
        self.loader.check_settings(file, text)
    }
}

async fn wait_for(mut waiting: Waiting, deadline: Instant, file: &str) -> Result<Arc<Function>, StoreError> {
    let takes = waiting.until.saturating_duration_since(deadline);
    let compiling = || StoreError::Compiling { file: file.to_owned(), takes };
    let loaded = tokio::time::timeout_at(deadline.into(), waiting.result.wait_for(Option::is_some)).await;
    let loaded = loaded.map_err(|_| compiling())?.map_err(|_| compiling())?;
    match loaded.as_ref() {
        Some(Ok(function)) => Ok(function.clone()),
        Some(Err(error)) => Err(StoreError::Load(error.clone())),
        None => Err(compiling()),
    }
}

#[cfg(test)]
mod tests;
