//! Functions that are put here through the admin port: who may, how many, and how a file becomes a function.
//!
//! What arrives goes to disk piece by piece, into a directory that is never served. It is parsed by the confined compiler alone, as what a request
//! asks for is ([`ModuleStore::check`]); only then it takes the place of what served before, by renaming. Nothing else of the box knows of this:
//! the store sees that a file has changed.
//!
//! - [`token`]: who may; [`routes`]: from requests to answers; [`etag`]: names of contents, and conditions
//! - [`volume`]: the directories, and the lock on them; [`beneath`]: files there; [`directory_quota`]: bytes in all
//! - [`door`]: how many at once; [`receive`]: a body on its way to disk; [`change`]: what becomes of a function; [`serving`], [`history`]: what it is and was; [`list`]: lists
//! - [`error`]: what can be wrong

pub mod beneath;
pub mod change;
pub mod directory_quota;
pub mod door;
pub mod error;
pub mod etag;
pub mod history;
pub mod list;
mod problem;
pub mod receive;
pub mod routes;
pub mod serving;
mod settings;
pub mod token;
pub mod volume;

use std::{io, sync::Arc};

use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
};

pub use self::error::UploadError;
use self::{
    change::{Bounds, Change, Done},
    directory_quota::DirectoryQuota,
    door::Door,
    etag::Conditions,
    list::Described,
    receive::Received,
    token::Tokens,
    volume::{Staging, Volume},
};
use crate::{
    config::Config,
    exchange::request_body::{BodyBounds, RequestBody},
    function_log::FunctionLogs,
    metrics::Metrics,
    module_format::{Format, ProgramKind},
    store::{LARGEST_SETTINGS, LoadError, ModuleStore, compiler::CompileError, name::ModuleName},
};

/// Bodies that arrive, or are looked at, at once: each has three descriptors, a thread now and then, and a piece of memory.
const UPLOADS: usize = 8;
/// Other requests at once.
const OTHERS: usize = 4;

/// The functions that are put here.
pub struct Uploads {
    /// `None`: nobody puts any here.
    tokens: Option<Tokens>,
    /// There, if there are tokens.
    logs: Option<Arc<FunctionLogs>>,
    volume: Volume,
    bounds: Bounds,
    body: BodyBounds,
    quota: Arc<DirectoryQuota>,
    store: Arc<ModuleStore>,
    /// Whose threads read and write files.
    runtime: Handle,
    doors: [Door; 2],
    metrics: Arc<Metrics>,
    /// Modules that are compiled for uploads; where several are at once, one place is for those that requests want.
    checks: Arc<Semaphore>,
}

impl Uploads {
    pub fn new(
        config: &Config,
        tokens: Option<Tokens>,
        logs: Option<Arc<FunctionLogs>>,
        store: Arc<ModuleStore>,
        runtime: Handle,
        metrics: Arc<Metrics>,
    ) -> Arc<Uploads> {
        let module = config.max_module_size.bytes();
        let uploads = Arc::new(Uploads {
            tokens,
            logs,
            volume: Volume::new(config.functions_dir.clone()),
            bounds: Bounds { module, functions: config.uploads.functions, versions: config.uploads.versions },
            body: BodyBounds { length: module, pause: config.body_timeout },
            quota: DirectoryQuota::new(config.uploads.bytes),
            store,
            runtime,
            metrics,
            doors: [UPLOADS, OTHERS].map(Door::new),
            checks: Arc::new(Semaphore::new(config.compile_jobs.saturating_sub(1).max(1))),
        });
        if uploads.tokens.is_some() {
            uploads.sweep();
        }
        uploads
    }

    /// Whether anybody may put functions here.
    pub fn are_on(&self) -> bool {
        self.tokens.is_some()
    }

    /// What ended with an earlier box is removed before this one serves.
    fn sweep(&self) {
        match self.volume.sweep() {
            Ok(0) => {}
            Ok(removed) => tracing::info!("removed {removed} unfinished uploads"),
            Err(error) => tracing::error!("functions cannot be put here: {error}"),
        }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, UploadError> + Send + 'static,
    ) -> Result<T, UploadError> {
        let failed = |error| UploadError::Io { step: "the work on files", source: io::Error::other(error) };
        self.runtime.spawn_blocking(work).await.map_err(failed)?
    }

    /// Something short with one function, while nobody else changes any.
    async fn change<T: Send + 'static>(
        &self,
        name: &ModuleName,
        conditions: Conditions,
        work: impl FnOnce(Change<'_>) -> Result<T, UploadError> + Send + 'static,
    ) -> Result<T, UploadError> {
        let place = self.doors[1].enter().await?;
        let (volume, name, bounds) = (self.volume.clone(), name.clone(), self.bounds);
        self.blocking(move || {
            // It goes on when its client leaves, and so does what bounds it.
            let _place = place;
            work(Change::begin(volume.lock()?, &name, bounds, &conditions)?)
        })
        .await
    }

    async fn put_module(
        &self,
        name: &ModuleName,
        conditions: Conditions,
        body: RequestBody,
    ) -> Result<(Done, Described), UploadError> {
        let place = Arc::new(self.doors[0].enter().await?);
        let (volume, bounds) = (self.volume.clone(), self.bounds);
        let (named, expected) = (name.clone(), conditions.clone());
        let held = place.clone();
        let file = format!("{name}.wasm");
        let (staging, used) = self
            .blocking(move || {
                let _held = held;
                // Who will be refused need not send it first.
                if !expected.is_empty() {
                    Change::begin(volume.lock()?, &named, bounds, &expected)?;
                }
                let opened = volume.open()?;
                Ok((opened.stage()?, opened.used()?))
            })
            .await?;
        // Its files are removed on a thread for files, whoever lets go of it.
        let staging = Staged { files: Some(staging), runtime: self.runtime.clone(), place };
        let claim = self.quota.claim(used);
        let received = tokio::time::timeout(receive::LONGEST, self.receive(staging, claim, &file, body));
        let Received { staging, claim, digest, bytes } = received.await.map_err(|_| UploadError::TooSlow)??;
        // At most as many wait here as the door lets in.
        let check = door::place(&self.checks).await?;
        let store = self.store.clone();
        let checked = self.runtime.spawn(async move {
            // What compiles goes on when its client leaves, and so does what bounds it.
            let held = (staging, claim, check);
            let result = held.0.check(&store, &file, bytes).await;
            result.map(|kind| (held.0, held.1, kind))
        });
        let failed = |error| UploadError::Io { step: "checking the module", source: io::Error::other(error) };
        let (mut staging, claim, kind) = checked.await.map_err(failed)??;
        let (volume, name) = (self.volume.clone(), name.clone());
        self.blocking(move || {
            let Some(files) = staging.files.take() else { return Err(UploadError::Busy) };
            let change = Change::begin(volume.lock()?, &name, bounds, &conditions)?;
            settings::check_present(&change, kind)?;
            let (done, described) = change.put_module(&files, digest, bytes)?;
            claim.keep();
            tracing::debug!(function = %name, kind = kind.as_str(), "checked");
            Ok((done, described))
        })
        .await
    }
}

/// Where an upload arrives, given back on a thread that may wait for a file system.
pub struct Staged {
    files: Option<Staging>,
    runtime: Handle,
    /// Also of the work on files that goes on when its client has left.
    place: Arc<OwnedSemaphorePermit>,
}

impl Staged {
    /// Whether what has arrived is a function; its kind.
    async fn check(&self, store: &ModuleStore, file: &str, bytes: u64) -> Result<ProgramKind, UploadError> {
        let Some(files) = &self.files else { return Err(UploadError::Busy) };
        Ok(store.check(&files.functions(), file, bytes).await?)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Some(files) = self.files.take() {
            let place = self.place.clone();
            self.runtime.spawn_blocking(move || drop((files, place)));
        }
    }
}

/// Machine code is not checked by anybody: it comes from whoever has the directory, if at all.
fn refuse_native(file: &str, head: &[u8]) -> Result<(), UploadError> {
    if Format::of(head) == Some(Format::Native) {
        return Err(LoadError::Compile { file: file.to_owned(), source: CompileError::PrecompiledUntrusted }.into());
    }
    Ok(())
}

/// The most bytes of settings.
const SETTINGS: u64 = LARGEST_SETTINGS;
