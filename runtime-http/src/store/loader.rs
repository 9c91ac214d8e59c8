//! From a file to a function: read, look in the caches, have it compiled, link.
//!
//! What waits holds no bytes: at most so many are read at once that they fit in a budget, and a module that has to wait until it may be compiled
//! is read again when it may.

mod reading;

use std::{sync::Arc, thread};

use tokio::sync::{Semaphore, oneshot};

pub use self::reading::{Files, Room};
use super::{
    StoreBounds, StoreThreads,
    compile_queue::CompileQueue,
    compiler::{CompileError, Compiled, Compiler, Prepared},
    file::{FileError, FileVersion, FunctionsDir, settings_file, stem},
    function::{ByFunction, Defaults, Function},
    settings::{BadSettings, FunctionSettings, GrantedSettings, OperatorGrants},
};
use crate::{
    confined::{Wanted, stop::Stop},
    keyvalue::Keyvalue,
    metrics::Metrics,
    module_format::ProgramKind,
    sandbox::{Program, ProgramError, file_access::FileQuotas, outbound::OutboundAccess},
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
    #[error("loading {file} did not end; it is tried again")]
    Aborted { file: String },
}

/// For how long a failure is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remembered {
    /// The file's content made it fail.
    UntilItChanges,
    /// It may pass.
    ForAWhile,
    /// The file was changing.
    NotAtAll,
}

impl LoadError {
    pub fn remembered(&self) -> Remembered {
        match self {
            LoadError::File(FileError::Unsettled { .. } | FileError::NotFound { .. }) => Remembered::NotAtAll,
            // Where a symlink leads is not the file's content, and neither is whether a directory to open for the guest exists.
            LoadError::File(FileError::Io { .. } | FileError::NotRegular { .. })
            | LoadError::Settings(BadSettings::PreopenNotGranted { .. })
            | LoadError::Aborted { .. } => Remembered::ForAWhile,
            LoadError::Compile { source, .. } if !source.is_of_module() => Remembered::ForAWhile,
            LoadError::File(FileError::TooLarge { .. })
            | LoadError::Settings(
                BadSettings::Unreadable { .. }
                | BadSettings::OutboundNotGranted { .. }
                | BadSettings::NotReusable { .. }
                | BadSettings::AboveCap { .. },
            )
            | LoadError::Compile { .. }
            | LoadError::Program { .. } => Remembered::UntilItChanges,
        }
    }
}

/// Files read, or looked up in the AOT cache, at once.
const LOADS_AT_ONCE: usize = 16;
/// The largest settings file.
pub const LARGEST_SETTINGS: u64 = 64 << 10;

/// What loading takes.
pub(super) struct Loader {
    pub directory: FunctionsDir,
    pub compiler: Compiler,
    pub defaults: Defaults,
    grants: OperatorGrants,
    bounds: StoreBounds,
    metrics: Arc<Metrics>,
    functions: ByFunction,
    files: FileQuotas,
    outbound: Arc<OutboundAccess>,
    keyvalue: Option<Arc<Keyvalue>>,
    loads: Arc<Semaphore>,
    /// Of files that are read, KiB.
    reading: Arc<Semaphore>,
    reading_kibibytes: u32,
    compiles: CompileQueue,
}

/// Whether a function's settings are read with its module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Settings {
    Read,
    /// The module alone is looked at.
    Ignored,
}

impl Loader {
    pub fn new(
        directory: FunctionsDir,
        compiler: Compiler,
        defaults: Defaults,
        grants: OperatorGrants,
        bounds: StoreBounds,
        threads: StoreThreads,
        metrics: Arc<Metrics>,
    ) -> Loader {
        let reading_kibibytes = kibibytes(bounds.reading).max(1);
        Loader {
            directory,
            compiler,
            defaults,
            grants,
            bounds,
            metrics,
            functions: ByFunction::default(),
            files: FileQuotas::new(bounds.guests_files, threads.file_access),
            outbound: threads.outbound,
            keyvalue: threads.keyvalue,
            loads: Arc::new(Semaphore::new(LOADS_AT_ONCE)),
            reading: Arc::new(Semaphore::new(reading_kibibytes as usize)),
            reading_kibibytes,
            compiles: CompileQueue::new(bounds.compile_jobs),
        }
    }

    /// Waits for nothing if its code is there already.
    ///
    /// # Errors
    /// [`LoadError`].
    pub async fn load(self: &Arc<Self>, found: &FileVersion, files: Files) -> Result<Function, LoadError> {
        let (code, version, settings) =
            self.code(&self.directory, files, &found.file, found.module.size(), Settings::Read).await?;
        self.link(code, version, settings)
    }

    /// What [`Self::load`] finds wrong with a file of `size` bytes of another directory, which is not served; else its kind.
    ///
    /// # Errors
    /// [`LoadError`].
    pub async fn check(
        self: &Arc<Self>,
        directory: &FunctionsDir,
        file: &str,
        size: u64,
    ) -> Result<ProgramKind, LoadError> {
        let files = self.read(directory, file, size, Settings::Ignored).await?;
        let (code, _, _) = self.code(directory, files, file, size, Settings::Ignored).await?;
        Ok(self.program(&code, file)?.kind())
    }

    /// The settings that `file` would be with that text.
    ///
    /// # Errors
    /// [`BadSettings`].
    pub fn check_settings(&self, file: &str, text: &str) -> Result<(), BadSettings> {
        FunctionSettings::parse(file, text, self.defaults.caps, &self.grants).map(drop)
    }

    /// Code that is not linked yet.
    async fn code(
        self: &Arc<Self>,
        directory: &FunctionsDir,
        files: Files,
        file: &str,
        size: u64,
        settings: Settings,
    ) -> Result<(Compiled, FileVersion, GrantedSettings), LoadError> {
        let source = match files.prepared {
            Prepared::Ready(code) => return Ok((code, files.version, files.settings)),
            Prepared::Wasm(source) => source,
        };
        let (turn, files, source, reading) = match self.compiles.try_turn(size) {
            Some(turn) => (turn, (files.version, files.settings), source, files.reading),
            None => {
                drop((source, files.reading));
                tracing::debug!(file, bytes = size, "waiting to be compiled");
                let turn = self.compiles.turn(size).await;
                let files = self.read(directory, file, size, settings).await?;
                match files.prepared {
                    // Meanwhile somebody had the same content compiled.
                    Prepared::Ready(code) => return Ok((code, files.version, files.settings)),
                    Prepared::Wasm(source) => (turn, (files.version, files.settings), source, files.reading),
                }
            }
        };
        tracing::info!(file, bytes = size, "compiling");
        let loader = self.clone();
        let compiled = blocking(file, move || {
            let module = source.into_module();
            // From here on the turn bounds it.
            drop(reading);
            let compiled = module.and_then(|module| loader.compiler.compile_soon(module));
            drop(turn);
            compiled
        });
        let code = compiled.await?.map_err(|source| LoadError::Compile { file: file.to_owned(), source })?;
        let (version, settings) = files;
        Ok((code, version, settings))
    }

    /// The same function with optimised code, made when nobody waits for the compiler; `may_be_stopped`: if somebody does meanwhile.
    ///
    /// # Errors
    /// [`LoadError`].
    pub async fn optimise(self: &Arc<Self>, found: &FileVersion, may_be_stopped: bool) -> Result<Function, LoadError> {
        let (file, size) = (&found.file, found.module.size());
        let failed = |source| LoadError::Compile { file: file.clone(), source };
        let Files { prepared, version, settings, reading } =
            self.read(&self.directory, file, size, Settings::Read).await?;
        let source = match prepared {
            Prepared::Ready(code) => return self.link(code, version, settings),
            Prepared::Wasm(source) => source,
        };
        let loader = self.clone();
        let asked = blocking(file, move || {
            let source = source.into_module();
            // One at a time is optimised.
            drop(reading);
            source.and_then(|source| Ok((loader.compiler.compile_on_node(&source)?, source)))
        });
        let compiled = match asked.await?.map_err(failed)? {
            (Some(compiled), _) => compiled,
            (None, source) => {
                let stop = may_be_stopped.then(Stop::new).transpose();
                let turn = self.compiles.turn_later(stop.map_err(|error| failed(error.into()))?).await;
                tracing::info!(file, bytes = size, "optimising");
                let loader = self.clone();
                let compiled = blocking(file, move || {
                    loader.compiler.compile_here(&source, Wanted::OptimisedLater, turn.stop.as_ref())
                });
                compiled.await?.map_err(failed)?
            }
        };
        self.link(compiled, version, settings)
    }

    /// Whether nobody compiles.
    pub fn is_idle(&self) -> bool {
        self.compiles.is_idle()
    }

    /// See [`CompileQueue::load`].
    pub fn compiles(&self) -> (usize, usize, usize) {
        self.compiles.load()
    }

    fn link(&self, compiled: Compiled, version: FileVersion, settings: GrantedSettings) -> Result<Function, LoadError> {
        let tier = compiled.tier();
        let code = (compiled.code.size(), tier, self.metrics.tiers.invocations(tier));
        let program = self.program(&compiled, &version.file)?;
        settings.0.check_program(&settings_file(&version.file), program.kind())?;
        let name = stem(&version.file).into();
        let outbound = self.outbound.of(&name, self.metrics.function(&name));
        let mut function = Function::new(version, program, code, settings, &self.defaults, &self.functions, outbound);
        function.files = (!function.grants.preopens.is_empty()).then(|| self.files.of(&function.name));
        function.keyvalue = self.keyvalue.as_ref().map(|keyvalue| keyvalue.of(&function.name));
        Ok(function)
    }

    fn program(&self, compiled: &Compiled, file: &str) -> Result<Program, LoadError> {
        self.compiler.program(compiled).map_err(|source| LoadError::Program { file: file.to_owned(), source })
    }
}

/// Rounded up.
fn kibibytes(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(1 << 10)).unwrap_or(u32::MAX)
}

async fn blocking<T: Send + 'static>(file: &str, work: impl FnOnce() -> T + Send + 'static) -> Result<T, LoadError> {
    let (sender, done) = oneshot::channel();
    spawn(file, move || drop(sender.send(work())));
    // Who panicked has said why.
    done.await.map_err(|_| LoadError::Aborted { file: file.to_owned() })
}

/// Has a thread of its own do `work`. If none can be started, `work` is dropped, and with it what it holds. The pool of a runtime would keep it in
/// its queue then, until it finds a thread for somebody else.
pub(super) fn spawn(file: &str, work: impl FnOnce() + Send + 'static) {
    if let Err(error) = thread::Builder::new().name("load".into()).spawn(work) {
        tracing::error!(
            "no thread to load {file}: {error}; it is tried again. Raise the limit on processes (pids.max of the container's cgroup, \
             ulimit -u)"
        );
    }
}

#[cfg(test)]
mod tests;
