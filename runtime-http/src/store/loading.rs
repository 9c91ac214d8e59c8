//! A loading that goes on, whether or not anybody still waits for it.

use std::{sync::Arc, time::Instant};

use futures_util::FutureExt;
use tokio::sync::watch;

use super::{
    LoadError, LoadResult, ModuleStore,
    cache::{Loaded, Ticket},
    file::FileVersion,
    function::Function,
    loader::{Remembered, Room, spawn},
};
use crate::engine::tier::Tier;

/// Dropped without an end, because it panicked for instance, it has failed, and is tried again later.
pub(super) struct Loading {
    store: Arc<ModuleStore>,
    /// `None` once it is finished.
    ticket: Option<Ticket>,
    sender: watch::Sender<Option<LoadResult>>,
}

impl Loading {
    pub(super) fn new(store: &Arc<ModuleStore>, ticket: Ticket, sender: watch::Sender<Option<LoadResult>>) -> Loading {
        Loading { store: store.clone(), ticket: Some(ticket), sender }
    }

    /// Loads it. One thread does all that needs no compiler, for each change of threads may have to wake a core. It is not started by the thread of a
    /// connection: clone(2) may wait while other threads join cgroups.
    pub(super) fn start(self, version: FileVersion) {
        let (runtime, loader) = (self.store.runtime.clone(), self.store.loader.clone());
        let size = version.module.size();
        runtime.spawn(async move { self.spawn(version, loader.room(size).await) });
    }

    fn spawn(self, version: FileVersion, room: Room) {
        let file = version.file.clone();
        spawn(&file, move || self.load(version, room));
    }

    /// Blocks.
    fn load(self, version: FileVersion, room: Room) {
        let (store, loader) = (self.store.clone(), self.store.loader.clone());
        let Room { thread, bytes } = room;
        let files = loader.files(&version, bytes);
        let mut rest = Box::pin(async move {
            let loaded = match files {
                Ok(files) => loader.load(&version, files).await,
                Err(error) => Err(error),
            };
            self.finish(&version, loaded);
        });
        // What is compiled already is ready at once.
        if (&mut rest).now_or_never().is_none() {
            store.runtime.spawn(rest);
        }
        drop(thread);
    }

    fn finish(mut self, version: &FileVersion, loaded: Result<Function, LoadError>) {
        match &loaded {
            Ok(function) => tracing::info!(
                file = version.file,
                kind = function.program.kind().as_str(),
                tier = function.tier.as_str(),
                code_bytes = function.code_bytes,
                "function loaded"
            ),
            Err(error) => tracing::warn!(file = version.file, "function not loaded: {error}"),
        }
        self.end(loaded.map(Arc::new).map_err(Arc::new));
    }

    fn end(&mut self, result: LoadResult) {
        let Some(ticket) = self.ticket.take() else { return };
        let loaded = match &result {
            Ok(function) => Loaded::Ready {
                version: function.version.clone(),
                function: function.clone(),
                bytes: function.code_bytes,
            },
            Err(error) => match error.remembered() {
                Remembered::UntilItChanges => Loaded::Invalid(error.clone()),
                Remembered::ForAWhile => Loaded::Failed(error.clone()),
                Remembered::NotAtAll => Loaded::Changing,
            },
        };
        let mut cache = self.store.cache();
        cache.finish(&ticket, loaded, Instant::now());
        cache.make_room(self.store.bounds.memory, self.store.bounds.entries, ticket.file());
        self.store.show(&cache);
        drop(cache);
        if let Ok(function) = result.as_ref()
            && function.tier == Tier::Baseline
        {
            self.store.promote(function, None);
        }
        // No receiver: everybody left.
        let _ = self.sender.send(Some(result));
    }
}

impl Drop for Loading {
    fn drop(&mut self) {
        if let Some(ticket) = &self.ticket {
            let error = LoadError::Aborted { file: ticket.file().to_owned() };
            self.end(Err(Arc::new(error)));
        }
    }
}
