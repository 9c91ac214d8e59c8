//! Puts optimised code in the place of baseline code, one function at a time. What runs keeps what it has.

use std::{
    sync::{Arc, MutexGuard, PoisonError},
    time::Instant,
};

use super::{
    ModuleStore,
    compiler::CompileError,
    function::Function,
    loader::{LoadError, Remembered},
    promotion::{Next, Promotions},
};
use crate::confined::CompilerError;

/// A box that uses fewer cores has nothing else to do.
const IDLE_CORES: f64 = 0.25;

impl ModuleStore {
    fn promotions(&self) -> MutexGuard<'_, Promotions<Function>> {
        self.promotions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Functions that wait for optimised code.
    pub(super) fn promotions_waiting(&self) -> usize {
        self.promotions().waiting()
    }

    /// A function that was loaded before is called.
    pub(super) fn called(self: &Arc<Self>, function: &Arc<Function>) {
        if function.baseline.as_ref().is_some_and(|baseline| baseline.called()) {
            self.promote(function, Some(Instant::now()));
        }
    }

    /// Has it optimised then, if it is not before.
    pub(super) fn promote(self: &Arc<Self>, function: &Arc<Function>, due: Option<Instant>) {
        let nobody_asks = self.promotions().add(function, due, Instant::now());
        if nobody_asks {
            let store = self.clone();
            self.runtime.spawn(async move { store.promote_all().await });
        } else {
            self.promotions_changed.notify_one();
        }
    }

    async fn promote_all(self: Arc<Self>) {
        loop {
            let next = self.promotions().next(Instant::now(), || self.is_idle());
            match next {
                Next::Promote(function) => self.promote_one(function).await,
                Next::Look(at) => {
                    // Either way is looked again.
                    let _ = tokio::time::timeout_at(at.into(), self.promotions_changed.notified()).await;
                }
                Next::Nothing => return,
            }
        }
    }

    fn is_idle(&self) -> bool {
        let runs_nothing = self.loader.is_idle() && self.metrics.in_flight_units.get() == 0;
        runs_nothing && self.metrics.cpu_cores_in_use.get() < IDLE_CORES
    }

    async fn promote_one(self: &Arc<Self>, function: Arc<Function>) {
        let (Some(baseline), version) = (&function.baseline, &function.version) else { return };
        let file = &version.file;
        let again = match self.loader.optimise(version, baseline.may_be_stopped()).await {
            // What has changed meanwhile is loaded by whoever calls it.
            Ok(optimised) => {
                self.swap(optimised);
                return;
            }
            Err(LoadError::Compile { source: CompileError::Compiler(CompilerError::Stopped), .. }) => {
                tracing::debug!(file, "optimising stopped, for others to be compiled");
                Some(baseline.stopped(Instant::now()))
            }
            Err(error) => {
                tracing::warn!(file, "not optimised, its baseline code stays: {error}");
                match error.remembered() {
                    Remembered::UntilItChanges => {
                        baseline.give_up();
                        None
                    }
                    Remembered::ForAWhile | Remembered::NotAtAll => baseline.failed(Instant::now()),
                }
            }
        };
        if let Some(due) = again {
            self.promote(&function, Some(due));
        }
    }

    fn swap(&self, optimised: Function) {
        let (version, bytes) = (optimised.version.clone(), optimised.code_bytes);
        let mut cache = self.cache();
        if cache.swap(&version, Arc::new(optimised), bytes) {
            cache.make_room(self.bounds.memory, self.bounds.entries, &version.file);
            self.show(&cache);
            tracing::info!(file = version.file, code_bytes = bytes, "function optimised");
        }
    }
}
