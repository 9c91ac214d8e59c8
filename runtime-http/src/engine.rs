//! The wasmtime engines of a box, sized by configuration and checked against the kernel before they are made.
//!
//! - [`engines`]: all of them; [`tier`]: baseline and optimised code; [`features`]: what modules may be made of

pub mod engines;
pub mod features;
pub mod tier;

use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

pub use self::engines::Engines;
use self::tier::CodeMaker;

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
    /// Whether it runs nothing.
    pub compiles_only: bool,
}

/// What runs in an engine, which decides how it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Concurrency {
    /// One call at a time: all but components of WASI 0.3.
    None,
    /// Several at once in one instance: components of WASI 0.3.
    Tasks,
}

#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error(
        "{invocations} invocations at once need about {needed} memory mappings, but vm.max_map_count is {available}; \
         lower --max-invocations to {fits} or raise the sysctl: sysctl -w vm.max_map_count={needed}"
    )]
    TooManyMappings { invocations: u32, needed: u64, available: u64, fits: u32 },
    #[error(
        "the Wasm engine cannot start with {invocations} invocations at once: {source:#}; lower --max-invocations, or set no limit on \
         addresses (ulimit -v)"
    )]
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
pub const MOST_CONCURRENT: u32 = 1000;
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
pub const MOST_TABLES_OF_MODULE: u32 = 16;
/// What a table may have at its start, and grow to.
pub const MOST_TABLE_ELEMENTS: usize = 100_000;
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
        EngineSize {
            invocations: 1,
            keep_resident: 0,
            max_memory: LARGEST_MEMORY,
            max_wasm_stack: 1 << 20,
            compiles_only: true,
        }
    }

    /// Of the concurrent engine beside one of this size.
    fn concurrent(self) -> EngineSize {
        EngineSize { invocations: self.invocations.min(MOST_CONCURRENT), keep_resident: 0, ..self }
    }

    /// Makes an engine that compiles in that way, and runs what was so compiled.
    ///
    /// # Errors
    /// If there are not enough addresses for its pools.
    pub fn engine(&self, maker: CodeMaker, concurrency: Concurrency) -> Result<Engine, EngineError> {
        let mut config = Config::new();
        features::pin(&mut config, concurrency);
        config
            .concurrency_support(concurrency == Concurrency::Tasks)
            .epoch_interruption(true)
            .memory_init_cow(true)
            // For native debuggers only: traps find their way by frame pointers. Without it images are a fifth smaller, and load sooner.
            .native_unwind_info(false);
        // Frames of Winch's are larger.
        let stack = if maker == CodeMaker::Winch { 2 * self.max_wasm_stack } else { self.max_wasm_stack };
        // Host calls run on the guest's fiber too: they get a megabyte beyond the guest's own limit.
        config.max_wasm_stack(stack).async_stack_size(stack + (1 << 20));
        // Winch's code is not used for long, and what the single pass makes runs in an engine of optimised code.
        if maker == CodeMaker::Optimiser {
            config.allocation_strategy(InstanceAllocationStrategy::Pooling(self.pools(concurrency)));
        }
        maker.configure(&mut config);
        Engine::new(&config).map_err(|source| EngineError::Engine { invocations: self.invocations, source })
    }

    fn pools(&self, concurrency: Concurrency) -> PoolingAllocationConfig {
        let stacks = if concurrency == Concurrency::Tasks { CONCURRENT_STACKS } else { 1 };
        // They take addresses that count as memory, as many as there are.
        let tables =
            if self.compiles_only { MOST_TABLES_OF_MODULE } else { self.invocations.saturating_mul(MOST_TABLES) };
        let mut pool = PoolingAllocationConfig::default();
        pool.total_stacks(self.invocations.saturating_mul(stacks))
            .total_memories(memory_slots(self.invocations))
            .total_core_instances(self.invocations.saturating_mul(MOST_CORE_INSTANCES))
            .total_component_instances(self.invocations)
            .total_tables(tables)
            .total_gc_heaps(self.invocations)
            .max_core_instances_per_component(MOST_CORE_INSTANCES)
            .max_memories_per_component(MOST_MEMORIES)
            .max_tables_per_component(MOST_TABLES)
            .max_memories_per_module(MOST_MEMORIES)
            .max_tables_per_module(MOST_TABLES_OF_MODULE)
            .table_elements(MOST_TABLE_ELEMENTS)
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
        pool
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
        let keys = [small, large].map(|size| Engines::new(size, false).unwrap().compatibility_key());
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
