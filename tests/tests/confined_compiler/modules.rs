//! Modules that are refused without being compiled, and files that change while they are loaded.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use wasmbox_tests::{Request, WasmBox, binary, guest, patience::SetOnDrop};

use super::{compilations, compilers, patient};

/// 12 MB of functions take a gigabyte to read as text.
#[test]
fn a_text_is_small() {
    let server = WasmBox::launch()
        .function("large.wat", format!("(module {})", "(func)".repeat(2 << 20)))
        .function("broken.wat", "(module (func (export \"_start\")")
        .start();
    let before = server.process().peak_resident_bytes();
    server.get("/large").problem(422, "module-invalid").names(&["2097152", "binary"]);
    assert!(compilers(&server).is_empty());
    let gained = server.process().peak_resident_bytes() - before;
    assert!(gained < 128 << 20, "{} MiB for a file of 12 MiB", gained >> 20);
    // What the parser says, and where.
    server.get("/broken").problem(422, "module-invalid").names(&["expected", "1:"]);
}

/// What a module's author wrote is quoted, but not all of it, and not as control characters.
#[test]
fn long_names_are_shortened_in_answers_and_in_the_log() {
    let long = "x".repeat(100_000);
    let server = WasmBox::launch()
        .function("long.wasm", binary::command_importing(&[(&long, &long)]))
        .function("escape.wasm", binary::command_importing(&[("env", "a\u{1b}[2J\u{202e}b")]))
        .function("settings.wat", guest::hello())
        .function("settings.toml", format!("args = [\"{}\\u0000\"]", "y".repeat(60_000)))
        .function("syntax.wat", guest::hello())
        .function("syntax.toml", format!("# {}\nz{} = 1", "c".repeat(100), "z".repeat(60_000)))
        .start();
    let logged = server.log().len();
    for name in ["long", "settings", "syntax"] {
        let answer = server.get(&format!("/{name}"));
        answer.problem(422, "module-invalid");
        assert!(answer.body.len() < 4096, "{name}: {} bytes", answer.body.len());
    }
    let answer = server.get("/escape");
    let detail = answer.problem(422, "module-invalid").detail().to_owned();
    assert!(detail.contains("\\u{1b}") && detail.contains("\\u{202e}"), "{detail}");
    assert!(!detail.contains(['\u{1b}', '\u{202e}']), "{detail}");
    let log = server.log();
    assert!(log.len() - logged < 32 << 10, "{} bytes of log", log.len() - logged);
}

/// What could not be linked is not compiled: this one would take minutes, and fail for another reason.
#[test]
fn a_missing_import_is_found_before_compiling() {
    let server = WasmBox::launch()
        .function("missing.wasm", binary::exhausting(&[("env", "emscripten_notify")]))
        .function("store.wat", "(component (import \"wasi:keyvalue/store@0.2.0\" (instance (export \"f\" (func)))))")
        .start();
    patient(&server, "/missing").problem(422, "module-invalid").names(&["env::emscripten_notify"]);
    patient(&server, "/store").problem(422, "module-invalid").names(&["wasi:keyvalue/store@0.2.0", "wasi:http"]);
    assert_eq!(compilations(&server, "invalid"), 2.0);
}

/// A writer that opens a module breaks the lease by which the box sees writers. Here it is no container's first process, which the kernel
/// would spare.
#[test]
fn writers_that_race_with_loading_do_not_end_the_box() {
    let server = WasmBox::with("module.wat", guest::hello());
    let path = server.functions().join("module.wat");
    server.get("/module").ok();
    thread::sleep(Duration::from_millis(100));
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let _end = SetOnDrop(&ended);
        for _ in 0..2 {
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    drop(fs::OpenOptions::new().write(true).open(&path).expect("the file is there"));
                }
            });
        }
        for round in 0..300 {
            // Another version, of the same content: it is read again.
            let mode = if round % 2 == 0 { 0o644 } else { 0o640 };
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("the file is ours");
            let answer = server.call(Request::get("/module").header("Invocation-Timeout", "100"), "");
            assert!([200, 503, 504].contains(&answer.status), "{answer:?}");
        }
    });
    server.get("/module").ok();
}
