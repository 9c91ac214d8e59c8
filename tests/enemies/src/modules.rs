//! Functions that nobody wrote.

use std::fs;

use arbitrary::{Arbitrary, Unstructured};
use wasm_smith::{Component, Config, Module};
use wasmbox_tests::{WasmBox, binary::encoded};

use crate::call;

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
fn config(bytes: &mut Unstructured, imports: Option<&str>, exports: Option<&str>) -> arbitrary::Result<Config> {
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
    serve(server, name, &around(COMMAND, &module), bytes)
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
    serve(server, name, &around(HANDLER, &module), bytes)
}

/// Its first module is another one's place.
const COMMAND: &str = r#"(component
    (core module $m (func (export "run") (result i32) unreachable) (func (export "post") (param i32)))
    (core instance $i (instantiate $m))
    (func $run (result (result)) (canon lift (core func $i "run") (post-return (core func $i "post"))))
    (instance $out (export "run" (func $run)))
    (export "wasi:cli/run@0.2.0" (instance $out)))"#;

/// The same.
const HANDLER: &str = r#"(component
    (core module $m (func (export "handle") (param i32 i32)))
    (import "wasi:http/types@0.2.0" (instance $types
      (export "fields" (type $fields (sub resource)))
      (export "incoming-request" (type $request (sub resource)))
      (export "outgoing-response" (type $response (sub resource)))
      (export "response-outparam" (type $outparam (sub resource)))
      (type $dns-fields (record (field "rcode" (option string)) (field "info-code" (option u16))))
      (export "DNS-error-payload" (type $dns (eq $dns-fields)))
      (type $tls-fields (record (field "alert-id" (option u8)) (field "alert-message" (option string))))
      (export "TLS-alert-received-payload" (type $tls (eq $tls-fields)))
      (type $size-fields (record (field "field-name" (option string)) (field "field-size" (option u32))))
      (export "field-size-payload" (type $size (eq $size-fields)))
      (type $errors (variant
        (case "DNS-timeout") (case "DNS-error" $dns) (case "destination-not-found") (case "destination-unavailable")
        (case "destination-IP-prohibited") (case "destination-IP-unroutable") (case "connection-refused")
        (case "connection-terminated") (case "connection-timeout") (case "connection-read-timeout")
        (case "connection-write-timeout") (case "connection-limit-reached") (case "TLS-protocol-error")
        (case "TLS-certificate-error") (case "TLS-alert-received" $tls) (case "HTTP-request-denied")
        (case "HTTP-request-length-required") (case "HTTP-request-body-size" (option u64))
        (case "HTTP-request-method-invalid") (case "HTTP-request-URI-invalid") (case "HTTP-request-URI-too-long")
        (case "HTTP-request-header-section-size" (option u32)) (case "HTTP-request-header-size" (option $size))
        (case "HTTP-request-trailer-section-size" (option u32)) (case "HTTP-request-trailer-size" $size)
        (case "HTTP-response-incomplete") (case "HTTP-response-header-section-size" (option u32))
        (case "HTTP-response-header-size" $size) (case "HTTP-response-body-size" (option u64))
        (case "HTTP-response-trailer-section-size" (option u32)) (case "HTTP-response-trailer-size" $size)
        (case "HTTP-response-transfer-coding" (option string)) (case "HTTP-response-content-coding" (option string))
        (case "HTTP-response-timeout") (case "HTTP-upgrade-failed") (case "HTTP-protocol-error")
        (case "loop-detected") (case "configuration-error") (case "internal-error" (option string))))
      (export "error-code" (type $error (eq $errors)))
      (export "[constructor]fields" (func (result (own $fields))))
      (export "[constructor]outgoing-response" (func (param "headers" (own $fields)) (result (own $response))))
      (export "[method]outgoing-response.set-status-code"
        (func (param "self" (borrow $response)) (param "status-code" u16) (result (result))))
      (export "[static]response-outparam.set"
        (func (param "param" (own $outparam)) (param "response" (result (own $response) (error $error)))))))
    (alias export $types "fields" (type $fields))
    (alias export $types "incoming-request" (type $request))
    (alias export $types "outgoing-response" (type $response))
    (alias export $types "response-outparam" (type $outparam))
    (core module $libc (memory (export "memory") 1))
    (core instance $libc (instantiate $libc))
    (core func $fields (canon lower (func $types "[constructor]fields")))
    (core func $drop-fields (canon resource.drop $fields))
    (core func $drop-request (canon resource.drop $request))
    (core func $response (canon lower (func $types "[constructor]outgoing-response")))
    (core func $drop-response (canon resource.drop $response))
    (core func $status (canon lower (func $types "[method]outgoing-response.set-status-code")))
    (core func $set
      (canon lower (func $types "[static]response-outparam.set") (memory (core memory $libc "memory"))))
    (core instance $http
      (export "fields" (func $fields)) (export "drop-fields" (func $drop-fields))
      (export "drop-request" (func $drop-request))
      (export "response" (func $response)) (export "drop-response" (func $drop-response))
      (export "status" (func $status)) (export "set" (func $set)))
    (core instance $i (instantiate $m (with "http" (instance $http))))
    (core module $answering
      (import "http" "fields" (func $fields (result i32)))
      (import "http" "response" (func $response (param i32) (result i32)))
      (import "http" "set" (func $set (param i32 i32 i32 i32 i64 i32 i32 i32 i32)))
      (import "generated" "handle" (func $handle (param i32 i32)))
      (func (export "handle") (param $request i32) (param $outparam i32)
        (call $handle (local.get $request) (local.get $outparam))
        (call $set (local.get $outparam) (i32.const 0) (call $response (call $fields))
          (i32.const 0) (i64.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))))
    (core instance $answering
      (instantiate $answering (with "http" (instance $http)) (with "generated" (instance $i))))
    (func $handle (param "request" (own $request)) (param "response-out" (own $outparam))
      (canon lift (core func $answering "handle")))
    (instance $out (export "handle" (func $handle)))
    (export "wasi:http/incoming-handler@0.2.0" (instance $out)))"#;

/// The component around `module`: `component` has another one in the place, which is its first section.
fn around(component: &str, module: &[u8]) -> Vec<u8> {
    const HEADER: usize = 8;
    let component = encoded(component);
    // Id and size: the module is shorter than 128 bytes.
    let (id, size) = (component[HEADER], component[HEADER + 1]);
    assert!(id == 1 && size < 128, "the first section is a short module");
    let mut around = component[..=HEADER].to_vec();
    let mut length = module.len();
    while length >= 128 {
        around.push((length % 128) as u8 | 128);
        length /= 128;
    }
    around.push(length as u8);
    around.extend_from_slice(module);
    around.extend_from_slice(&component[HEADER + 2 + usize::from(size)..]);
    around
}

/// What is around generated code is good: with code that does nothing the request is answered.
pub fn assert_handler_answers(server: &WasmBox) {
    let nothing = encoded(r#"(module (func (export "handle") (param i32 i32)))"#);
    server.put("handler.wasm", around(HANDLER, &nothing));
    server.get("/handler").ok();
}
