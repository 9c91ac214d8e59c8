//! Functions that nobody wrote.

use std::fs;

use arbitrary::{Arbitrary, Unstructured};
use wasm_smith::{Component, Config, Module};
use wasmbox_tests::{WasmBox, binary::encoded};

use crate::{call, wrapper};

/// WASI's functions, which a guest calls with whatever it has.
const IMPORTS: &str = r#"(module
    (import "wasi_snapshot_preview1" "args_get" (func (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "environ_get" (func (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "clock_time_get" (func (param i32 i64 i32) (result i32)))
    (import "wasi_snapshot_preview1" "random_get" (func (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_read" (func (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_close" (func (param i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_renumber" (func (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_fdstat_get" (func (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_filestat_get" (func (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_seek" (func (param i32 i64 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "poll_oneoff" (func (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "path_open" (func (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "sock_accept" (func (param i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "sched_yield" (func (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func (param i32))))"#;

/// Any features that there are, in any mixture; those that the box does not have are refused.
pub fn config(bytes: &mut Unstructured, imports: Option<&str>, exports: Option<&str>) -> arbitrary::Result<Config> {
    let mut config = Config::arbitrary(bytes)?;
    config.available_imports = imports.map(encoded);
    config.exports = exports.map(encoded);
    config.max_funcs = config.max_funcs.max(1);
    config.min_funcs = 1;
    Ok(config)
}

fn serve(server: &WasmBox, name: &str, module: &[u8], bytes: &mut Unstructured) -> arbitrary::Result<()> {
    let file = format!("{name}.wasm");
    server.put(&file, module);
    let body = bytes.bytes(bytes.len().min(200))?;
    call(server, &format!("/{name}?arg=a"), body);
    // Again, from the cache.
    call(server, &format!("/{name}"), b"");
    fs::remove_file(server.functions().join(file)).expect("the file is there");
    Ok(())
}

pub fn core(server: &WasmBox, name: &str, bytes: &mut Unstructured) -> arbitrary::Result<()> {
    let exports = r#"(module (memory (export "memory") 1) (func (export "_start")))"#;
    let wasi = bytes.ratio(3, 4)?;
    let config = config(bytes, wasi.then_some(IMPORTS), wasi.then_some(exports))?;
    let mut module = Module::new(config, bytes)?.to_bytes();
    // Some are broken.
    if bytes.ratio(1, 8)? {
        let at = bytes.choose_index(module.len())?;
        module[at] ^= bytes.arbitrary::<u8>()?;
    }
    serve(server, name, &module, bytes)
}

pub fn component(server: &WasmBox, name: &str, bytes: &mut Unstructured) -> arbitrary::Result<()> {
    let component = Component::new(config(bytes, None, None)?, bytes)?.to_bytes();
    serve(server, name, &component, bytes)
}

/// A component that runs what was generated: by `wasi:cli/run`, with what cleans up after it.
pub fn command_component(server: &WasmBox, name: &str, bytes: &mut Unstructured) -> arbitrary::Result<()> {
    let exports = r#"(module (memory (export "memory") 1) (func (export "run") (result i32) unreachable)
        (func (export "post") (param i32)))"#;
    let module = Module::new(config(bytes, Some("(module)"), Some(exports))?, bytes)?.to_bytes();
    serve(server, name, &wrapper::around(&encoded(wrapper::COMMAND), &module), bytes)
}

/// A component that runs what was generated when a request comes, and answers it then, unless that was done: with an imperfect knowledge of handles.
pub fn http_component(server: &WasmBox, name: &str, bytes: &mut Unstructured) -> arbitrary::Result<()> {
    let imports = r#"(module
        (import "http" "fields" (func (result i32)))
        (import "http" "drop-fields" (func (param i32)))
        (import "http" "drop-request" (func (param i32)))
        (import "http" "response" (func (param i32) (result i32)))
        (import "http" "drop-response" (func (param i32)))
        (import "http" "status" (func (param i32 i32) (result i32)))
        (import "http" "set" (func (param i32 i32 i32 i32 i64 i32 i32 i32 i32))))"#;
    let exports = r#"(module (memory (export "memory") 1) (func (export "handle") (param i32 i32)))"#;
    let module = Module::new(config(bytes, Some(imports), Some(exports))?, bytes)?.to_bytes();
    serve(server, name, &wrapper::answering(&module), bytes)
}

/// What is around generated code is good: with code that does nothing the request is answered.
pub fn assert_handler_answers(server: &WasmBox) {
    let nothing = encoded(r#"(module (func (export "handle") (param i32 i32)))"#);
    server.put("handler.wasm", wrapper::answering(&nothing));
    server.get("/handler").ok();
}
