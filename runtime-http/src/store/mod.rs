//! The module store: from a name to a function that is ready.
//!
//! A changed file is seen by the next request: each request costs two or three `stat` calls. Loading happens once for all
//! who wait for it, never on the threads that serve connections, and goes on when they leave. What failed stays failed until its
//! file changes. The store does not run anything and knows nothing of HTTP.
//!
//! - [`name`]: names of modules; [`mod@file`]: the functions directory; [`kind`]: what a file is
//! - [`settings`]: per-function settings; [`function`]: the ready function
//! - [`compiler`], [`native`], [`artifact`]: compiling, loading native code, the AOT cache on disk; [`mapping`]: its files in memory

pub mod artifact;
pub mod compiler;
pub mod file;
pub mod function;
pub mod kind;
pub mod mapping;
pub mod name;
pub mod native;
pub mod settings;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use prometheus::IntCounter;
use tokio::{
    runtime::Handle,
    sync::{Semaphore, watch},
};
use tokio_util::task::TaskTracker;

use self::{
    compiler::{CompileError, Compiler, Prepared},
    file::{FileError, Found, FunctionsDir, settings_file},
    function::{Defaults, Function},
    name::ModuleName,
    native::Code,
    settings::{BadSettings, FunctionSettings, OperatorGrants},
};
use crate::{
    admission::Shares,
    metrics::{Metrics, gauge},
    sandbox::ProgramError,
};

/// Why a function cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Settings(#[from] BadSettings),
    #[error("{file}: {source}")]
    Compile { file: String, source: CompileError },
    #[error("{file}: {source}")]
    Program { file: String, source: ProgramError },
    #[error("compiling {file} did not end: {reason}")]
    Panicked { file: String, reason: String },
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{0}")]
    Load(Arc<LoadError>),
    #[error("{file} is still being compiled")]
    Compiling { file: String },
}

type Loaded = Result<Arc<Function>, Arc<LoadError>>;

/// Bounds of the store.
#[derive(Debug, Clone, Copy)]
pub struct StoreBounds {
    /// The most bytes of compiled code held in memory.
    pub memory: usize,
    /// The largest file.
    pub module: u64,
    /// Modules compiled at once.
    pub compile_jobs: usize,
}

/// The most functions, good or bad, held in memory.
const MOST_ENTRIES: usize = 10_000;
/// Files read, or looked up in the AOT cache, at once.
const LOADS_AT_ONCE: usize = 16;
/// A look at a file serves all requests for it that come this soon after. Shorter than a round trip: whoever changes a file and then
/// calls its function gets the change.
const LOOK_SERVES: Duration = Duration::from_micros(200);
/// Code that has not been used for this long is let go of when memory runs short.
const IDLE: Duration = Duration::from_secs(60);
/// The largest settings file.
const LARGEST_SETTINGS: u64 = 64 << 10;

/// Functions by file.
pub struct ModuleStore {
    directory: FunctionsDir,
    /// Whether looking at a file may take long, because it is on another machine.
    remote: bool,
    compiler: Compiler,
    defaults: Defaults,
    grants: OperatorGrants,
    bounds: StoreBounds,
    metrics: Arc<Metrics>,
    shares: Shares,
    entries: Mutex<Entries>,
    loads: Semaphore,
    compiles: Semaphore,
    tasks: TaskTracker,
    /// Where loading goes on when the connection that asked for it is gone.
    runtime: Handle,
    hits: IntCounter,
    misses: IntCounter,
}

#[derive(Default)]
struct Entries {
    by_file: HashMap<String, Entry>,
    /// Functions by requested name, as of the last look at their files.
    looked: HashMap<ModuleName, (Arc<Function>, Instant)>,
    /// Counts look-ups: the least recently used entry has the smallest number.
    clock: u64,
    code_bytes: usize,
}

struct Entry {
    found: Found,
    state: State,
    last_used: u64,
    used_at: Instant,
}

enum State {
    Loading(watch::Receiver<Option<Loaded>>),
    Ready(Arc<Function>),
    Failed(Arc<LoadError>),
}

impl ModuleStore {
    pub fn new(
        directory: FunctionsDir,
        compiler: Compiler,
        defaults: Defaults,
        grants: OperatorGrants,
        bounds: StoreBounds,
        runtime: Handle,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(ModuleStore {
            remote: file::is_remote(directory.path()),
            directory,
            compiler,
            defaults,
            grants,
            bounds,
            shares: Shares::default(),
            entries: Mutex::default(),
            loads: Semaphore::new(LOADS_AT_ONCE),
            compiles: Semaphore::new(bounds.compile_jobs),
            tasks: TaskTracker::new(),
            runtime,
            hits: metrics.cache.with_label_values(&["memory", "hit"]),
            misses: metrics.cache.with_label_values(&["memory", "miss"]),
            metrics,
        })
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The function of that name, as its file is now; waits for its loading until `deadline`.
    ///
    /// # Errors
    /// [`StoreError::Compiling`] if it is not ready by then, else why it cannot be loaded.
    pub async fn get(self: &Arc<Self>, name: &ModuleName, deadline: Instant) -> Result<Arc<Function>, StoreError> {
        let now = Instant::now();
        if let Some((function, looked)) = self.entries().looked.get(name)
            && now.duration_since(*looked) < LOOK_SERVES
        {
            self.hits.inc();
            return Ok(function.clone());
        }
        let found = self.find(name).await.map_err(|error| StoreError::Load(Arc::new(error.into())))?;
        let loading = {
            let mut entries = self.entries();
            entries.clock += 1;
            let clock = entries.clock;
            match entries.by_file.get_mut(&found.file).filter(|entry| entry.found == found) {
                Some(entry) => {
                    entry.last_used = clock;
                    entry.used_at = now;
                    match &entry.state {
                        State::Ready(function) => {
                            let function = function.clone();
                            entries.looked.insert(name.clone(), (function.clone(), now));
                            self.hits.inc();
                            return Ok(function);
                        }
                        State::Failed(error) => return Err(StoreError::Load(error.clone())),
                        State::Loading(loading) => loading.clone(),
                    }
                }
                None => self.start_loading(&mut entries, found.clone()),
            }
        };
        self.misses.inc();
        wait_for(loading, deadline, &found.file).await
    }

    async fn find(self: &Arc<Self>, name: &ModuleName) -> Result<Found, FileError> {
        if !self.remote {
            return self.directory.find(name);
        }
        let (directory, name) = (self.directory.clone(), name.clone());
        let file = name.to_string();
        let found = tokio::task::spawn_blocking(move || directory.find(&name)).await;
        found.unwrap_or_else(|error| Err(FileError::Io { file, source: std::io::Error::other(error) }))
    }

    fn start_loading(self: &Arc<Self>, entries: &mut Entries, found: Found) -> watch::Receiver<Option<Loaded>> {
        let (sender, receiver) = watch::channel(None);
        let entry = Entry {
            found: found.clone(),
            state: State::Loading(receiver.clone()),
            last_used: entries.clock,
            used_at: Instant::now(),
        };
        entries.insert(entry);
        let store = self.clone();
        let loading = async move {
            let loaded = store.load(&found.file).await.map(Arc::new).map_err(Arc::new);
            match &loaded {
                Ok(function) => tracing::info!(
                    file = found.file,
                    kind = function.program.kind(),
                    code_bytes = function.code_bytes,
                    "function loaded"
                ),
                Err(error) => tracing::warn!(file = found.file, "function not loaded: {error}"),
            }
            store.entries().finish(&found, &loaded);
            store.make_room(&found.file);
            // No receiver: everybody left.
            let _ = sender.send(Some(loaded));
        };
        self.tasks.spawn_on(loading, &self.runtime);
        receiver
    }

    async fn load(self: &Arc<Self>, file: &str) -> Result<Function, LoadError> {
        let permit = self.loads.acquire().await.expect("the semaphore is never closed");
        let (store, file_name) = (self.clone(), file.to_owned());
        let (prepared, found, settings) = blocking(file, move || store.prepare(&file_name)).await??;
        drop(permit);
        let code = match prepared {
            Prepared::Ready(code) => code,
            Prepared::Wasm { bytes, kind, key } => {
                let _permit = self.compiles.acquire().await.expect("the semaphore is never closed");
                let store = self.clone();
                tracing::info!(file, bytes = bytes.len(), "compiling");
                let compiled = blocking(file, move || store.compiler.compile(&bytes, kind, &key)).await?;
                compiled.map_err(|source| LoadError::Compile { file: file.to_owned(), source })?
            }
        };
        let code_bytes = code.size();
        let program = match &code {
            Code::Module(module) => self.compiler.toolchain().module(module),
            Code::Component(component) => self.compiler.toolchain().component(component),
        };
        let program = program.map_err(|source| LoadError::Program { file: file.to_owned(), source })?;
        Ok(Function::new(found, program, code_bytes, settings, &self.defaults, &self.metrics, &self.shares))
    }

    /// Reads the files; blocks.
    fn prepare(&self, file: &str) -> Result<(Prepared, Found, FunctionSettings), LoadError> {
        let settings_file = settings_file(file);
        let (settings, settings_identity) = match self.directory.read(&settings_file, LARGEST_SETTINGS) {
            Ok((bytes, identity)) => {
                let text = String::from_utf8(bytes)
                    .map_err(|_| BadSettings::Unreadable { file: settings_file.clone(), reason: "not UTF-8".into() })?;
                (FunctionSettings::parse(&settings_file, &text, self.defaults.caps, &self.grants)?, Some(identity))
            }
            Err(FileError::NotFound { .. }) => (FunctionSettings::default(), None),
            Err(error) => return Err(error.into()),
        };
        let (bytes, module) = self.directory.read(file, self.bounds.module)?;
        let prepared =
            self.compiler.prepare(bytes).map_err(|source| LoadError::Compile { file: file.to_owned(), source })?;
        Ok((prepared, Found { file: file.to_owned(), module, settings: settings_identity }, settings))
    }

    fn make_room(&self, newest: &str) {
        let mut entries = self.entries();
        while entries.code_bytes > self.bounds.memory || entries.by_file.len() > MOST_ENTRIES {
            let oldest = entries
                .by_file
                .iter()
                .filter(|(file, entry)| *file != newest && !matches!(entry.state, State::Loading(_)))
                .min_by_key(|(_, entry)| entry.last_used)
                .map(|(file, _)| file.clone());
            let Some(oldest) = oldest else { break };
            entries.remove(&oldest);
        }
        self.show(&entries);
    }

    /// Lets go of compiled code that has not been used for a minute, if it is on disk too; gives how many functions that were.
    pub fn trim(&self) -> usize {
        if !self.compiler.has_cache() {
            return 0;
        }
        let mut entries = self.entries();
        let now = Instant::now();
        let idle: Vec<String> = entries
            .by_file
            .iter()
            .filter(|(_, entry)| matches!(entry.state, State::Ready(_)) && now.duration_since(entry.used_at) > IDLE)
            .map(|(file, _)| file.clone())
            .collect();
        idle.iter().for_each(|file| entries.remove(file));
        self.show(&entries);
        idle.len()
    }

    fn show(&self, entries: &Entries) {
        self.metrics.cached_bytes.set(gauge(entries.code_bytes));
        let ready = entries.by_file.values().filter(|entry| matches!(entry.state, State::Ready(_))).count();
        self.metrics.cached_modules.set(gauge(ready));
    }

    /// All entries, for the operator: file, kind or state, bytes of code, why not.
    pub fn listing(&self) -> Vec<Listed> {
        let entries = self.entries();
        let mut listing: Vec<Listed> = entries
            .by_file
            .iter()
            .map(|(file, entry)| {
                let (state, kind, code_bytes, reason) = match &entry.state {
                    State::Loading(_) => ("loading", None, 0, None),
                    State::Ready(function) => ("ready", Some(function.program.kind()), function.code_bytes, None),
                    State::Failed(error) => ("failed", None, 0, Some(error.to_string())),
                };
                Listed { file: file.clone(), state, kind, code_bytes, reason }
            })
            .collect();
        listing.sort_by(|a, b| a.file.cmp(&b.file));
        listing
    }
}

/// One line of [`ModuleStore::listing`].
#[derive(Debug, serde::Serialize)]
pub struct Listed {
    pub file: String,
    pub state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<&'static str>,
    pub code_bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Entries {
    fn insert(&mut self, entry: Entry) {
        self.remove(&entry.found.file);
        if let State::Ready(function) = &entry.state {
            self.code_bytes += function.code_bytes;
        }
        self.by_file.insert(entry.found.file.clone(), entry);
    }

    fn remove(&mut self, file: &str) {
        if let Some(Entry { state: State::Ready(function), .. }) = self.by_file.remove(file) {
            self.looked.retain(|_, (looked, _)| !Arc::ptr_eq(looked, &function));
            self.code_bytes -= function.code_bytes;
        }
    }

    /// Puts a result in place of its `Loading`, unless a newer loading is there.
    fn finish(&mut self, found: &Found, loaded: &Loaded) {
        let Some(entry) = self.by_file.get(&found.file) else { return };
        if entry.found != *found || !matches!(entry.state, State::Loading(_)) {
            return;
        }
        let (last_used, used_at) = (entry.last_used, entry.used_at);
        match loaded {
            // What was read may be newer than what was found.
            Ok(function) => {
                self.insert(Entry {
                    found: function.found.clone(),
                    state: State::Ready(function.clone()),
                    last_used,
                    used_at,
                });
            }
            // These may pass by themselves.
            Err(error)
                if matches!(
                    **error,
                    LoadError::File(FileError::Unsettled { .. } | FileError::Io { .. }) | LoadError::Panicked { .. }
                ) =>
            {
                self.remove(&found.file);
            }
            Err(error) => {
                self.insert(Entry { found: found.clone(), state: State::Failed(error.clone()), last_used, used_at })
            }
        }
    }
}

async fn wait_for(
    mut loading: watch::Receiver<Option<Loaded>>,
    deadline: Instant,
    file: &str,
) -> Result<Arc<Function>, StoreError> {
    let compiling = || StoreError::Compiling { file: file.to_owned() };
    let loaded = tokio::time::timeout_at(deadline.into(), loading.wait_for(Option::is_some)).await;
    let loaded = loaded.map_err(|_| compiling())?.map_err(|_| compiling())?;
    match loaded.as_ref() {
        Some(Ok(function)) => Ok(function.clone()),
        Some(Err(error)) => Err(StoreError::Load(error.clone())),
        None => Err(compiling()),
    }
}

async fn blocking<T: Send + 'static>(file: &str, work: impl FnOnce() -> T + Send + 'static) -> Result<T, LoadError> {
    let panicked =
        |error: tokio::task::JoinError| LoadError::Panicked { file: file.to_owned(), reason: error.to_string() };
    tokio::task::spawn_blocking(work).await.map_err(panicked)
}
