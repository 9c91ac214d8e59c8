//! The wasmtime engines of a box, sized by configuration and checked against the kernel before they are made.
//!
//! Nearly all modules run in the plain one. Components of WASI 0.3, which have several calls at once in one instance, run in the concurrent one:
//! what wasmtime keeps for that would cost each other component a sixth of its time. It is made when the first of them is loaded.
//!
//! - [`features`]: what modules may be made of

pub mod features;

use std::{
    hash::{Hash, Hasher},
    sync::{Arc, OnceLock},
};

use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

/// How large the pools are. Everything follows from how many invocations may run at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineSize {
    /// Invocations at once, 1 to 10,000: one fiber stack, and at least one linear memory, each.
    pub invocations: u32,
    /// Bytes of one linear memory that stay resident between invocations, then reset with `memset` instead of `madvise`. Once many
    /// invocations have run at once, that many slots keep so much, so all of them together are an eighth of the box's memory at most.
    pub keep_resident: usize,
    /// The largest linear memory, bytes.
    pub max_memory: usize,
    /// The deepest Wasm stack, bytes.
    pub max_wasm_stack: usize,
}

#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error(
        "{invocations} invocations at once need about {needed} memory mappings, but vm.max_map_count is {available}; \
         lower --max-invocations to {fits} or raise the sysctl: sysctl -w vm.max_map_count={needed}"
    )]
    TooManyMappings { invocations: u32, needed: u64, available: u64, fits: u32 },
    #[error("the Wasm engine cannot start with {invocations} invocations at once: {source}; lower --max-invocations")]
    Engine {
        invocations: u32,
        #[source]
        source: wasmtime::Error,
    },
}

/// Memory mappings per invocation at worst: the accessible part of its linear memory and of its fiber stack, each with a guard
/// on both sides, and a table.
const MAPPINGS_PER_INVOCATION: u64 = 5;
/// The most components that one of WASI 0.3 consists of: each may have a call that waits, on a stack of its own.
pub const MOST_CONCURRENT_COMPONENTS: u32 = 4;
/// With the one that runs what does not wait.
const CONCURRENT_STACKS: u32 = MOST_CONCURRENT_COMPONENTS + 1;
/// Invocations of WASI 0.3 at once: further ones have no slot.
const MOST_CONCURRENT: u32 = 1000;
/// And memory mappings of each, at worst.
const MAPPINGS_PER_CONCURRENT: u64 = MAPPINGS_PER_INVOCATION + 2 * (CONCURRENT_STACKS as u64 - 1);
/// What the process itself maps: libraries, heaps, thread stacks, compiled images.
const MAPPINGS_RESERVE: u64 = 4096;
/// The address space reserved for a linear memory.
pub const LARGEST_MEMORY: usize = 4 << 30;
/// What one invocation may take of the pools. A component consists of several core instances (a Python or JavaScript one of about twenty),
/// each with tables. The pools have as much for each invocation, so that none takes the slots of another.
pub const MOST_CORE_INSTANCES: u32 = 40;
pub const MOST_MEMORIES: u32 = 4;
pub const MOST_TABLES: u32 = 40;
/// A linear memory's slot takes four gigabytes of address space, of which there are 128 terabytes: above 4,000 invocations there are
/// fewer for each.
const MOST_MEMORY_SLOTS: u32 = 16_000;

/// The linear memories of all invocations.
pub fn memory_slots(invocations: u32) -> u32 {
    invocations.saturating_mul(MOST_MEMORIES).min(MOST_MEMORY_SLOTS).max(invocations)
}

impl EngineSize {
    /// For an engine that compiles what others run.
    pub fn for_compiling() -> EngineSize {
        EngineSize { invocations: 1, keep_resident: 0, max_memory: LARGEST_MEMORY, max_wasm_stack: 1 << 20 }
    }

    /// Of the concurrent engine beside one of this size.
    fn concurrent(self) -> EngineSize {
        EngineSize { invocations: self.invocations.min(MOST_CONCURRENT), keep_resident: 0, ..self }
    }

    fn engine(&self, concurrent: bool) -> Result<Engine, EngineError> {
        Engine::new(&self.config(concurrent))
            .map_err(|source| EngineError::Engine { invocations: self.invocations, source })
    }

    fn config(&self, concurrent: bool) -> Config {
        let stacks = if concurrent { CONCURRENT_STACKS } else { 1 };
        let mut pool = PoolingAllocationConfig::default();
        pool.total_stacks(self.invocations.saturating_mul(stacks))
            .total_memories(memory_slots(self.invocations))
            .total_core_instances(self.invocations.saturating_mul(MOST_CORE_INSTANCES))
            .total_component_instances(self.invocations)
            .total_tables(self.invocations.saturating_mul(MOST_TABLES))
            .total_gc_heaps(self.invocations)
            .max_core_instances_per_component(MOST_CORE_INSTANCES)
            .max_memories_per_component(MOST_MEMORIES)
            .max_tables_per_component(MOST_TABLES)
            .max_memories_per_module(4)
            .max_tables_per_module(16)
            .table_elements(100_000)
            .max_core_instance_size(4 << 20)
            .max_component_instance_size(1 << 20)
            .max_memory_size(self.max_memory)
            .max_unused_warm_slots(self.invocations.min(256))
            .linear_memory_keep_resident(self.keep_resident)
            .table_keep_resident(64 << 10)
            .pagemap_scan(if PoolingAllocationConfig::is_pagemap_scan_available() {
                Enabled::Yes
            } else {
                Enabled::No
            });
        let mut config = Config::new();
        features::pin(&mut config, concurrent);
        config
            .concurrency_support(concurrent)
            .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
            .epoch_interruption(true)
            .max_wasm_stack(self.max_wasm_stack)
            // Host calls run on the guest's fiber too: they get a megabyte beyond the guest's own limit.
            .async_stack_size(self.max_wasm_stack + (1 << 20))
            .memory_init_cow(true)
            // For native debuggers only: traps find their way by frame pointers. Without it images are a fifth smaller, and load sooner.
            .native_unwind_info(false);
        config
    }
}

/// The engines of a box.
#[derive(Clone)]
pub struct Engines {
    plain: Engine,
    size: EngineSize,
    /// Made on first use.
    concurrent: Arc<OnceLock<Result<Engine, Arc<EngineError>>>>,
}

impl Engines {
    /// # Errors
    /// [`EngineError::TooManyMappings`] if the kernel's limit on mappings (`vm.max_map_count`) would be exceeded in full use.
    pub fn new(size: EngineSize) -> Result<Engines, EngineError> {
        if let Some(available) = max_map_count() {
            check_mappings(size.invocations, available)?;
        }
        Ok(Engines { plain: size.engine(false)?, size, concurrent: Arc::default() })
    }

    /// For core modules and components of WASI 0.2.
    pub fn plain(&self) -> &Engine {
        &self.plain
    }

    /// For components of WASI 0.3. The first call makes it, which takes some milliseconds.
    ///
    /// # Errors
    /// If there are not enough addresses for its pools.
    pub fn concurrent(&self) -> Result<&Engine, Arc<EngineError>> {
        let made = self.concurrent.get_or_init(|| self.size.concurrent().engine(true).map_err(Arc::new));
        made.as_ref().map_err(Arc::clone)
    }

    /// Lets all guests that run yield.
    pub fn increment_epoch(&self) {
        self.plain.increment_epoch();
        if let Some(Ok(concurrent)) = self.concurrent.get() {
            concurrent.increment_epoch();
        }
    }

    /// Identifies what compiled code they can load: wasmtime's version, settings and the CPU's features. The concurrent engine differs from the
    /// plain one by constants of this program alone.
    pub fn compatibility_key(&self) -> u64 {
        // The hasher's keys are fixed, so the value is the same in each process of one build.
        let mut hasher = std::hash::DefaultHasher::new();
        self.plain.precompile_compatibility_hash().hash(&mut hasher);
        hasher.finish()
    }
}

/// Memory mappings of so many invocations, all of them of WASI 0.3 as far as that may be.
fn mappings(invocations: u32) -> u64 {
    let concurrent = u64::from(invocations.min(MOST_CONCURRENT)) * (MAPPINGS_PER_CONCURRENT - MAPPINGS_PER_INVOCATION);
    u64::from(invocations) * MAPPINGS_PER_INVOCATION + concurrent + MAPPINGS_RESERVE
}

/// How many invocations have so many mappings.
fn fitting(available: u64) -> u32 {
    let left = available.saturating_sub(MAPPINGS_RESERVE);
    let all_concurrent = left / MAPPINGS_PER_CONCURRENT;
    let fits = if all_concurrent <= u64::from(MOST_CONCURRENT) {
        all_concurrent
    } else {
        (available - mappings(MOST_CONCURRENT)) / MAPPINGS_PER_INVOCATION + u64::from(MOST_CONCURRENT)
    };
    u32::try_from(fits).unwrap_or(u32::MAX)
}

fn check_mappings(invocations: u32, available: u64) -> Result<(), EngineError> {
    let needed = mappings(invocations);
    if needed <= available {
        return Ok(());
    }
    Err(EngineError::TooManyMappings { invocations, needed, available, fits: fitting(available) })
}

/// The most invocations the kernel's mapping limit allows; the default where it is less than ours.
pub fn invocations_that_fit() -> u32 {
    max_map_count().map_or(u32::MAX, fitting).max(1)
}

fn max_map_count() -> Option<u64> {
    std::fs::read_to_string("/proc/sys/vm/max_map_count").ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The node's compile service makes code for boxes of all sizes.
    #[test]
    fn code_does_not_depend_on_sizes() {
        let small = EngineSize::for_compiling();
        let large = EngineSize { invocations: 500, keep_resident: 2 << 20, max_wasm_stack: 8 << 20, ..small };
        let keys = [small, large].map(|size| Engines::new(size).unwrap().compatibility_key());
        assert_eq!(keys[0], keys[1]);
    }

    #[test]
    fn the_mapping_limit_is_checked_and_the_message_helps() {
        assert!(check_mappings(10_000, 65_530).is_ok());
        let message = check_mappings(20_000, 65_530).unwrap_err().to_string();
        for part in ["20000", "112096", "65530", "--max-invocations to 10686", "sysctl -w vm.max_map_count=112096"] {
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn as_many_fit_as_are_taken() {
        for available in [5_000, 4_096 + 13 * 1000, 20_000, 65_530] {
            let fits = fitting(available);
            assert!(mappings(fits) <= available && mappings(fits + 1) > available, "{available}: {fits}");
        }
    }
}
