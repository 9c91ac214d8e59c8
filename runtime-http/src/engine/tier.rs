//! The two tiers of code: baseline code is made soon, optimised code runs fast. Which compiler makes it, and which engine runs it.
//!
//! Winch makes baseline code in a sixth to a tenth of the CPU time that Cranelift takes for optimised code. Its functions are called in another way, so
//! wasmtime keeps its code out of engines of Cranelift's: a box has another engine for it. That one has no pools: it makes memories and stacks
//! for each invocation, as it needs them, and only until there is optimised code. What Winch does not know, such as gc, exceptions and WASI 0.3,
//! Cranelift compiles without optimising, in half of the time, for the engine that runs the optimised code, too.

use wasmtime::{Config, OptLevel, RegallocAlgorithm, Strategy, WasmFeatures};

/// How good code is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    Baseline,
    Optimised,
}

impl Tier {
    pub const ALL: [Tier; 2] = [Tier::Baseline, Tier::Optimised];

    /// The word for it in headers, metrics, logs and listings.
    pub fn as_str(self) -> &'static str {
        match self {
            Tier::Baseline => "baseline",
            Tier::Optimised => "optimised",
        }
    }
}

/// In how many steps new modules are compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Tiers {
    /// Large ones in two: baseline code answers soon, optimised code takes its place.
    Auto,
    /// In one: optimised code answers.
    Off,
}

/// What makes code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodeMaker {
    Optimiser,
    /// The same without optimising.
    SinglePass,
    Winch,
}

/// Where Winch is finished: its code for other processors is not of wasmtime's first tier of support.
pub const HAS_WINCH: bool = cfg!(target_arch = "x86_64");

/// What Winch does not compile.
const NOT_OF_WINCH: WasmFeatures = WasmFeatures::GC
    .union(WasmFeatures::GC_TYPES)
    .union(WasmFeatures::FUNCTION_REFERENCES)
    .union(WasmFeatures::RELAXED_SIMD)
    .union(WasmFeatures::TAIL_CALL)
    .union(WasmFeatures::EXCEPTIONS);

impl CodeMaker {
    pub fn tier(self) -> Tier {
        match self {
            CodeMaker::Optimiser => Tier::Optimised,
            CodeMaker::SinglePass | CodeMaker::Winch => Tier::Baseline,
        }
    }

    /// Sets what an engine needs to compile this way.
    pub(super) fn configure(self, config: &mut Config) {
        if self == CodeMaker::Optimiser {
            return;
        }
        // Winch has Cranelift make the ways into and out of its functions.
        config.cranelift_opt_level(OptLevel::None).cranelift_regalloc_algorithm(RegallocAlgorithm::SinglePass);
        if self == CodeMaker::Winch {
            // Without the map from code to the module's bytes, which only stack traces use, it is a tenth smaller, and made sooner.
            config.strategy(Strategy::Winch).wasm_features(NOT_OF_WINCH, false).generate_address_map(false);
        }
    }
}
