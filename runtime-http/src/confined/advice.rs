//! What an author can do about a module that cannot be run: for the usual ways to build one for another host.

use wasmparser::{Validator, WasmFeatures};

use crate::engine::{
    Concurrency,
    features::{self, FEATURES, Feature},
};

/// How to build a module whose table is too large.
pub const LARGE_TABLE: &str = "a table has an element for each function that is called by its address: link only what is used \
    (C and C++: -flto -Wl,--gc-sections; Rust: lto = \"fat\"; Go: fewer packages; any: wasm-opt -Oz), leave out --table-base and \
    other flags that set its size, or make several functions of it";
/// And one that has too many of something.
pub const MERGED: &str = "link its parts by one linker (wasm-ld) instead of merging modules (wasm-merge)";
/// And a component that has.
pub const COMPOSED: &str = "compose it of fewer components (wac), or make several functions of it";

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

/// Who offers the interface of that name, and what to do instead. `name` is whole: `package:name/interface@version`.
pub fn of_interface(name: &str) -> Option<&'static str> {
    let package = name.split(['/', '@']).next().unwrap_or_default();
    Some(match package {
        "wasi:keyvalue" => {
            "of another version: build it with the WIT of wasi:keyvalue@0.2.0-draft, without its watcher"
        }
        "wasi:config" => {
            "of another version: build it with the WIT of wasi:config@0.2.0-rc.1, whose interface is store"
        }
        "wasi:logging" => "of another version: build it with the WIT of wasi:logging@0.1.0-draft",
        "wasi:blobstore" | "wasi:messaging" => {
            "a proposal to WASI that wasmCloud has: keep values by wasi:keyvalue, and send messages by wasi:http"
        }
        "wasi:nn" => {
            "a proposal to WASI for machine learning, which `wasmtime -S nn` has: call a server of models by wasi:http"
        }
        "wasi:tls" => {
            "a proposal to WASI, which `wasmtime -S tls` has: send https requests by wasi:http, or link TLS into the component"
        }
        "wasi:threads" => "for starting threads, which functions cannot: build it without them",
        "wasi:sql" => "a proposal to WASI: speak the database's protocol over wasi:sockets",
        _ if package.starts_with("fermyon:") || package.starts_with("spin:") => {
            "Spin's: use wasi:http, wasi:keyvalue and wasi:config instead of its SDK"
        }
        _ if package.starts_with("wasmcloud:") => "wasmCloud's: use the interfaces of WASI alone",
        _ if package.starts_with("fastly:") => "Fastly's: use wasi:http instead of its SDK",
        _ if package.starts_with("golem:") => "Golem's: use the interfaces of WASI alone",
        _ if package.starts_with("wasi:") && (name.contains("-rc-") || name.contains("-snapshot-")) => {
            "of a candidate for a release of WASI: build it with newer tools"
        }
        _ if package.contains(':') => "no interface of WASI: compose the component with one that exports it (wac plug)",
        _ => return None,
    })
}

/// The feature for want of which `binary` is not valid in such an engine; `None` if it would not be with all of them, or is.
pub fn missing_feature(binary: &[u8], concurrency: Concurrency) -> Option<&'static Feature> {
    let is_valid = |features| Validator::new_with_features(features).validate_all(binary).is_ok();
    if !is_valid(WasmFeatures::all()) {
        return None;
    }
    let missing = FEATURES.iter().filter(|feature| !feature.is_on(concurrency));
    // Without it, and with all others.
    missing.into_iter().find(|feature| !is_valid(WasmFeatures::all() - features::named(feature.name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_known_by_their_package() {
        for (name, part) in [
            ("wasi:keyvalue/store@0.2.0-draft2", "0.2.0-draft"),
            ("wasi:config/runtime@0.2.0-draft", "0.2.0-rc.1"),
            ("wasi:http/types@0.3.0-rc-2025-09-16", "newer tools"),
            ("wasmcloud:bus/lattice@1.0.0", "wasmCloud"),
            ("own:package/interface", "wac plug"),
        ] {
            assert!(of_interface(name).is_some_and(|advice| advice.contains(part)), "{name}");
        }
        assert_eq!(of_interface("plain"), None);
    }

    #[test]
    fn features_are_named() {
        for (text, name) in [
            ("(module (tag $t) (func try catch $t end))", Some("legacy_exceptions")),
            ("(module (memory i64 1))", Some("memory64")),
            ("(component (type (future u32)))", Some("cm_async")),
            ("(module (func (drop)))", None),
        ] {
            let binary = wat::parse_str(text).unwrap();
            let feature = missing_feature(&binary, Concurrency::None);
            assert_eq!(feature.map(|feature| feature.name), name, "{text}");
            let for_p3 = missing_feature(&binary, Concurrency::Tasks);
            assert_eq!(for_p3.map(|feature| feature.name), name.filter(|name| *name != "cm_async"), "{text}");
        }
    }
}
