//! The engines of a box, whose epochs advance together.
//!
//! Nearly all modules run in the plain one. Components of WASI 0.3, which have several calls at once in one instance, run in the concurrent one:
//! what wasmtime keeps for that would cost each other component a sixth of its time. Code of Winch's has one of its own: see
//! [`super::tier`].

use std::{
    hash::{Hash, Hasher},
    sync::{Arc, OnceLock},
};

use wasmtime::Engine;

use super::{
    Concurrency, EngineError, EngineSize, check_mappings, max_map_count,
    tier::{CodeMaker, HAS_WINCH},
};

#[derive(Clone)]
pub struct Engines {
    plain: Engine,
    winch: Option<Engine>,
    size: EngineSize,
    /// Made on first use.
    concurrent: Arc<OnceLock<Result<Engine, Arc<EngineError>>>>,
}

impl Engines {
    /// `with_winch`: baseline code of Winch's is run, too, where there is such.
    ///
    /// # Errors
    /// [`EngineError::TooManyMappings`] if the kernel's limit on mappings (`vm.max_map_count`) would be exceeded in full use.
    pub fn new(size: EngineSize, with_winch: bool) -> Result<Engines, EngineError> {
        if let Some(available) = max_map_count() {
            check_mappings(size.invocations, available)?;
        }
        let engine = |maker| size.engine(maker, Concurrency::None);
        let winch = (with_winch && HAS_WINCH).then(|| engine(CodeMaker::Winch)).transpose()?;
        Ok(Engines { plain: engine(CodeMaker::Optimiser)?, winch, size, concurrent: Arc::default() })
    }

    /// For core modules and components of WASI 0.2.
    pub fn plain(&self) -> &Engine {
        &self.plain
    }

    /// For the same, in code of Winch's.
    pub fn winch(&self) -> Option<&Engine> {
        self.winch.as_ref()
    }

    /// For components of WASI 0.3. The first call makes it, which takes some milliseconds.
    ///
    /// # Errors
    /// If there are not enough addresses for its pools.
    pub fn concurrent(&self) -> Result<&Engine, Arc<EngineError>> {
        let made = self.concurrent.get_or_init(|| {
            let size = self.size.concurrent();
            size.engine(CodeMaker::Optimiser, Concurrency::Tasks).map_err(Arc::new)
        });
        made.as_ref().map_err(Arc::clone)
    }

    /// Lets all guests that run yield.
    pub fn increment_epoch(&self) {
        let concurrent = self.concurrent.get().and_then(|made| made.as_ref().ok());
        for engine in [Some(&self.plain), self.winch(), concurrent].into_iter().flatten() {
            engine.increment_epoch();
        }
    }

    /// Identifies what compiled code they can load, of what is kept: wasmtime's version, settings and the CPU's features. The concurrent engine
    /// differs from the plain one by constants of this program alone.
    pub fn compatibility_key(&self) -> u64 {
        // The hasher's keys are fixed, so the value is the same in each process of one build.
        let mut hasher = std::hash::DefaultHasher::new();
        self.plain.precompile_compatibility_hash().hash(&mut hasher);
        hasher.finish()
    }
}
