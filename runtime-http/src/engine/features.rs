//! The WebAssembly features that modules may use: each is decided here, none is left to what wasmtime turns on by itself.
//!
//! A feature is on if a toolchain emits it for WASI, and wasmtime has finished and fuzzes it (all of its tier 1, some of its tier 2). What
//! nothing emits is only more compiler for a hostile module to try.

use wasmtime::{Config, WasmFeatures};

use super::Concurrency;

/// A proposal, or a part of one that wasmtime tells apart.
#[derive(Debug, Clone, Copy)]
pub struct Feature {
    /// As in wasmparser, and in docs/api.md.
    pub name: &'static str,
    pub enabled: Enabled,
    pub reason: &'static str,
}

/// For which modules a feature is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enabled {
    Always,
    /// For components of WASI 0.3.
    Concurrent,
    Never,
}

impl Feature {
    /// Whether modules of such an engine may have it.
    pub fn is_on(&self, concurrency: Concurrency) -> bool {
        match self.enabled {
            Enabled::Always => true,
            Enabled::Concurrent => concurrency == Concurrency::Tasks,
            Enabled::Never => false,
        }
    }
}

const fn on(name: &'static str, reason: &'static str) -> Feature {
    Feature { name, enabled: Enabled::Always, reason }
}

const fn concurrent(name: &'static str, reason: &'static str) -> Feature {
    Feature { name, enabled: Enabled::Concurrent, reason }
}

const fn off(name: &'static str, reason: &'static str) -> Feature {
    Feature { name, enabled: Enabled::Never, reason }
}

const EVERYWHERE: &str = "part of Wasm 2.0: all toolchains emit it";
const NOT_FINISHED: &str = "not finished in wasmtime";
const NO_WORLD: &str = "in neither WASI 0.2 nor 0.3, which are what components are given";

/// Each feature that wasmtime knows.
pub const FEATURES: &[Feature] = &[
    on("mutable_global", EVERYWHERE),
    on("saturating_float_to_int", EVERYWHERE),
    on("sign_extension", EVERYWHERE),
    on("reference_types", EVERYWHERE),
    on("multi_value", EVERYWHERE),
    on("bulk_memory", EVERYWHERE),
    on("simd", EVERYWHERE),
    on("relaxed_simd", "image and inference libraries (C, Rust); what it computes may differ between CPUs"),
    on(
        "threads",
        "atomic instructions in code that is built for threads; a shared memory is refused: nothing starts a thread",
    ),
    off("shared_everything_threads", NOT_FINISHED),
    on("tail_call", "functional languages, C and Rust with explicit tail calls"),
    on("floats", "all toolchains"),
    on("multi_memory", "programs that were linked from several modules (wasm-merge)"),
    on("exceptions", "C++, Kotlin, Dart, OCaml"),
    off("memory64", "pointers of WASI have 32 bits, so no program that needs it could call anything"),
    on("extended_const", "position-independent code of LLVM"),
    on("component_model", "components"),
    on("function_references", "what gc is built upon"),
    off("memory_control", NOT_FINISHED),
    on("gc", "Kotlin, Dart, OCaml, Java; its heap counts as the invocation's memory"),
    off("custom_page_sizes", NOT_FINISHED),
    off("legacy_exceptions", "wasmtime has no code for it; recompile with the exceptions of Wasm 3.0"),
    on("gc_types", "what values of gc are made of"),
    off("stack_switching", NOT_FINISHED),
    on("wide_arithmetic", "cryptography and large numbers (C and Rust, with -mwide-arithmetic)"),
    off("cm_values", NOT_FINISHED),
    off("cm_nested_names", NOT_FINISHED),
    concurrent(
        "cm_async",
        "WASI 0.3 is made of it; a component that imports or exports nothing of that has no use for it",
    ),
    off("cm_async_stackful", "no toolchain emits it, and each call of it takes a stack"),
    off("cm_more_async_builtins", "no toolchain emits it for WASI 0.3"),
    off("cm_threading", NO_WORLD),
    off("cm_error_context", NO_WORLD),
    off("cm_fixed_length_lists", NO_WORLD),
    off("cm_gc", NO_WORLD),
    off("custom_descriptors", NOT_FINISHED),
    off("compact_imports", NOT_FINISHED),
    off("cm_map", NO_WORLD),
    off("cm64", NO_WORLD),
    off("cm_implements", NO_WORLD),
    off("cm_canon_names", NO_WORLD),
];

/// What wasmtime calls a feature; none, if it does not know it.
pub fn named(name: &str) -> WasmFeatures {
    WasmFeatures::from_name(&name.to_uppercase()).unwrap_or(WasmFeatures::empty())
}

/// Sets each feature as [`FEATURES`] says, and those that it does not know off.
pub fn pin(config: &mut Config, concurrency: Concurrency) {
    let enabled = FEATURES.iter().filter(|feature| feature.is_on(concurrency));
    let enabled = enabled.fold(WasmFeatures::empty(), |all, feature| all | named(feature.name));
    config.wasm_features(enabled, true).wasm_features(WasmFeatures::all() - enabled, false);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use wasmtime::component::Component;

    use super::*;
    use crate::engine::{EngineSize, Engines};

    /// A version of wasmtime that has more features, or other ones, asks for a decision.
    #[test]
    fn each_feature_of_wasmtime_is_decided() {
        let known: BTreeSet<String> = WasmFeatures::all().iter_names().map(|(name, _)| name.to_lowercase()).collect();
        let decided: BTreeSet<String> = FEATURES.iter().map(|feature| feature.name.to_owned()).collect();
        assert_eq!(decided, known);
        assert_eq!(decided.len(), FEATURES.len(), "each once");
    }

    /// What the engine takes, by a module for each proposal that a module can show.
    #[test]
    fn the_engine_takes_what_is_on_and_nothing_else() {
        let engines = Engines::new(EngineSize::for_compiling(), false).unwrap();
        for (name, module) in [
            ("mutable_global", "(module (global (export \"g\") (mut i32) (i32.const 0)))"),
            ("saturating_float_to_int", "(module (func (drop (i32.trunc_sat_f32_s (f32.const 1)))))"),
            ("sign_extension", "(module (func (drop (i32.extend8_s (i32.const 1)))))"),
            ("reference_types", "(module (table 1 externref) (func (drop (table.get 0 (i32.const 0)))))"),
            ("multi_value", "(module (func (result i32 i32) (i32.const 1) (i32.const 2)))"),
            ("bulk_memory", "(module (memory 1) (func (memory.fill (i32.const 0) (i32.const 0) (i32.const 0))))"),
            ("simd", "(module (func (drop (v128.const i32x4 0 0 0 0))))"),
            ("relaxed_simd", "(module (func (param v128) (drop (i8x16.relaxed_swizzle (local.get 0) (local.get 0)))))"),
            ("threads", "(module (memory 1) (func (drop (i32.atomic.load (i32.const 0)))))"),
            ("shared_everything_threads", "(module (global (shared i32) (i32.const 0)))"),
            ("tail_call", "(module (func $f (return_call $f)))"),
            ("floats", "(module (func (drop (f64.const 1))))"),
            ("multi_memory", "(module (memory 1) (memory 1))"),
            ("exceptions", "(module (tag $t) (func (throw $t)))"),
            ("memory64", "(module (memory i64 1))"),
            ("extended_const", "(module (global i32 (i32.add (i32.const 1) (i32.const 2))))"),
            ("function_references", "(module (type $f (func)) (func (param (ref $f)) (call_ref $f (local.get 0))))"),
            ("gc", "(module (type $s (struct (field i32))) (func (drop (struct.new_default $s))))"),
            ("custom_page_sizes", "(module (memory 1 (pagesize 1)))"),
            ("legacy_exceptions", "(module (tag $t) (func try catch $t end))"),
            (
                "stack_switching",
                "(module (type $f (func)) (type $c (cont $f)) (func (param (ref $f)) \
                 (drop (cont.new $c (local.get 0)))))",
            ),
            ("wide_arithmetic", "(module (func (result i64 i64) (i64.mul_wide_s (i64.const 1) (i64.const 2))))"),
        ] {
            check(&engines, name, module);
        }
        for (name, component) in [
            ("component_model", "(component)"),
            ("cm_async", "(component (type (future u32)))"),
            ("cm_error_context", "(component (type error-context))"),
            ("cm_fixed_length_lists", "(component (type (list u32 4)))"),
            ("cm_map", "(component (type (map string u32)))"),
        ] {
            check(&engines, name, component);
        }
    }

    #[allow(clippy::disallowed_methods, reason = "no connection waits for this test")]
    fn check(engines: &Engines, name: &str, text: &str) {
        let binary = wat::parse_str(text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let feature = FEATURES.iter().find(|feature| feature.name == name).unwrap();
        let both = [(engines.plain(), Concurrency::None), (engines.concurrent().unwrap(), Concurrency::Tasks)];
        for (engine, concurrency) in both {
            let taken = match text.starts_with("(component") {
                true => Component::new(engine, &binary).map(drop),
                false => wasmtime::Module::validate(engine, &binary),
            };
            assert_eq!(taken.is_ok(), feature.is_on(concurrency), "{name}: {taken:?}");
        }
    }
}
