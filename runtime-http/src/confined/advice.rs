//! What an author can do about a module that cannot be run: for the usual ways to build one for another host.

use wasmparser::{Validator, WasmFeatures};

use crate::engine::features::{self, Enabled, FEATURES, Feature};

/// What offers the import, and how to build without it.
pub fn of_import(module: &str, name: &str) -> Option<&'static str> {
    Some(match module {
        "gojs" | "go" => "Go for browsers: build it with GOOS=wasip1 GOARCH=wasm",
        "wbg" | "__wbindgen_placeholder__" | "__wbindgen_externref_xform__" => {
            "wasm-bindgen's, for JavaScript: build a program for the target wasm32-wasip1 or wasm32-wasip2, without wasm-pack"
        }
        _ if module.ends_with("_bg.js") => {
            "wasm-bindgen's, for JavaScript: build a program for the target wasm32-wasip1 or wasm32-wasip2, without wasm-pack"
        }
        "wasi" if name == "thread-spawn" => {
            "for starting threads, which functions cannot: build it for wasm32-wasip1, not wasm32-wasip1-threads"
        }
        "env" if name == "memory" => {
            "a memory that the host makes, mostly to share it between threads: build it for wasm32-wasip1, without --import-memory"
        }
        "env" if ["abort", "seed", "trace", "console.log"].contains(&name) => {
            "AssemblyScript's for browsers: compile it with @assemblyscript/wasi-shim (asc --config node_modules/@assemblyscript/wasi-shim/asconfig.json)"
        }
        "env" if name.starts_with("emscripten_") || name.starts_with("invoke_") || name.starts_with("__syscall_") => {
            "Emscripten's, for JavaScript: build it with wasi-sdk, or with emcc -sSTANDALONE_WASM"
        }
        "env" => {
            "a symbol that the linker did not find, or one of JavaScript: link the library that has it, without --allow-undefined"
        }
        "a" | "asmLibraryArg" => "Emscripten's, for JavaScript: build it with wasi-sdk, or with emcc -sSTANDALONE_WASM",
        "wasi_unstable" => "a WASI from before preview 1: build it with a toolchain of after 2020",
        "wasix_32v1" | "wasix_64v1" => "WASIX, which only Wasmer has: build it for wasm32-wasip1",
        _ if module.starts_with("wasi_ephemeral_") || module.starts_with("wasi_experimental_") => {
            "a proposal to WASI that the box does not offer"
        }
        _ if module.starts_with("extism:") => "Extism's, for its plug-ins: build it as a WASI program",
        _ => return None,
    })
}

/// The feature for want of which `binary` is not valid; `None` if it would not be with all of them.
pub fn missing_feature(binary: &[u8]) -> Option<&'static Feature> {
    let is_valid = |features| Validator::new_with_features(features).validate_all(binary).is_ok();
    if !is_valid(WasmFeatures::all()) {
        return None;
    }
    let missing = FEATURES.iter().filter(|feature| feature.enabled != Enabled::Always);
    // Without it, and with all others.
    missing.into_iter().find(|feature| !is_valid(WasmFeatures::all() - features::named(feature.name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_named() {
        for (text, name) in [
            ("(module (tag $t) (func try catch $t end))", Some("legacy_exceptions")),
            ("(module (memory i64 1))", Some("memory64")),
            ("(component (type (future u32)))", Some("cm_async")),
            ("(module (func (drop)))", None),
        ] {
            let feature = missing_feature(&wat::parse_str(text).unwrap());
            assert_eq!(feature.map(|feature| feature.name), name, "{text}");
        }
    }
}
