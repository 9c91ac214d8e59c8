//! Errors of a module: 422.

use std::fs;

use wasmbox_tests::{WasmBox, binary, guest};

#[test]
fn module_invalid() {
    let mut truncated = binary::encoded(&guest::hello());
    truncated.truncate(truncated.len() / 2);
    let server = WasmBox::launch()
        .function("garbage.wasm", "not a module")
        .function("empty.wasm", "")
        .function("truncated.wasm", truncated)
        .function("text.wat", "(module (func (export \"_start\") (i32.cons 1)))")
        .function("type.wat", "(module (func (export \"_start\") (result i32) (i64.const 1)))")
        .function("import.wat", "(module (import \"env\" \"unheard_of\" (func)) (func (export \"_start\")))")
        .function("library.wat", "(module (func (export \"add\")))")
        .function("parameter.wat", "(module (func (export \"_start\") (param i32)))")
        .function("component.wat", "(component)")
        .function("large.wasm", vec![0; 70_000])
        .function("settings.wat", guest::hello())
        .function("settings.toml", "memory = 3")
        .flag("--max-module-size", "64Ki")
        .start();
    for (name, parts) in [
        ("garbage", &["garbage.wasm", "signatures"][..]),
        ("empty", &["empty.wasm"]),
        ("truncated", &["truncated.wasm", "offset"]),
        ("text", &["text.wat", "i32.cons"]),
        ("type", &["type.wat", "type mismatch"]),
        ("import", &["import.wat", "unheard_of"]),
        ("library", &["library.wat", "_start"]),
        ("parameter", &["parameter.wat", "_start"]),
        ("component", &["component.wat", "wasi:http/incoming-handler"]),
        ("large", &["large.wasm", "70000", "65536", "--max-module-size"]),
        ("settings", &["settings.toml", "memory"]),
    ] {
        server.get(&format!("/{name}")).problem(422, "module-invalid").names(parts);
    }
}

/// What cannot run says what to build instead.
#[test]
fn unusable_modules_are_recognised() {
    let import = |module: &str, name: &str| {
        guest::command_importing(&format!(r#"(import "{module}" "{name}" (func (param i32)))"#), "")
    };
    let server = WasmBox::launch()
        .function("go.wat", import("gojs", "runtime.wasmExit"))
        .function("bindgen.wat", import("wbg", "__wbg_log"))
        .function("emscripten.wat", import("env", "emscripten_resize_heap"))
        .function("assemblyscript.wat", import("env", "abort"))
        .function("undefined.wat", import("env", "my_function"))
        .function("threads.wat", import("wasi", "thread-spawn"))
        .function("legacy.wat", "(module (tag $t) (func (export \"_start\") try catch $t end))")
        .function("wide.wat", "(module (memory i64 1) (func (export \"_start\")))")
        .function("library.wat", "(module (func (export \"add\")))")
        .function("future.wat", "(component (type (future u32)))")
        .start();
    for (name, words) in [
        ("go", &["GOOS=wasip1"][..]),
        ("bindgen", &["wasm-bindgen", "wasm32-wasip1"]),
        ("emscripten", &["Emscripten", "wasi-sdk"]),
        ("assemblyscript", &["AssemblyScript", "wasi-shim"]),
        ("undefined", &["env::my_function", "linker"]),
        ("threads", &["threads", "wasm32-wasip1"]),
        ("legacy", &["legacy_exceptions", "recompile"]),
        ("wide", &["memory64", "32 bits"]),
        ("library", &["_start", "command"]),
        ("future", &["cm_async", "WASI 0.3"]),
    ] {
        server.get(&format!("/{name}")).problem(422, "module-invalid").names(words);
    }
}

#[test]
fn module_precompiled_untrusted() {
    let server = WasmBox::launch().function("native.wasm", native_image(&guest::hello())).start();
    server.get("/native").problem(422, "module-precompiled-untrusted").names(&["native.wasm", "TRUST_PRECOMPILED"]);
}

/// The native image of a module: what a server puts into its cache, without the 32 bytes that authenticate it there.
fn native_image(text: &str) -> Vec<u8> {
    let server = WasmBox::with("module.wat", text);
    server.get("/module");
    let entries = fs::read_dir(server.launched().cache()).expect("the cache is a directory");
    let images: Vec<_> = entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "cwasm"))
        .collect();
    assert_eq!(images.len(), 1, "{images:?}");
    let mut image = fs::read(&images[0]).expect("the image can be read");
    image.truncate(image.len() - 32);
    image
}
