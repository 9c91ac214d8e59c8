//! `wasmbox compile`: a cache for `wasmbox serve`.

use std::{fs, path::Path};

use wasmbox_tests::{WasmBox, component::http_guest, guest};

use super::{output, text, wasmbox};

#[test]
fn compile_fills_the_cache_that_serve_uses() {
    let launch = WasmBox::launch()
        .function("first.wat", guest::hello())
        .function("second.wat", guest::echo())
        .function("http.wasm", http_guest())
        .function("bad.wat", "bad")
        .function("ignored.txt", "bad");
    let compile = |functions: &Path, cache: &Path| {
        let arguments =
            [format!("--functions-dir={}", functions.display()), format!("--cache-dir={}", cache.display())];
        output(wasmbox(&["compile", &arguments[0], &arguments[1]]), b"")
    };
    let ran = compile(&launch.functions(), &launch.cache());
    assert_eq!(ran.status.code(), Some(1), "one cannot be compiled: {ran:?}");
    for part in ["bad.wat: not compiled", "first.wat: compiled", "http.wasm: compiled", "second.wat", "3 of 4"] {
        assert!(text(&ran.stderr).contains(part), "{part} is not in {}", text(&ran.stderr));
    }
    fs::remove_file(launch.functions().join("bad.wat")).expect("the file is there");
    let ran = compile(&launch.functions(), &launch.cache());
    assert_eq!(ran.status.code(), Some(0), "{ran:?}");
    assert_eq!(text(&ran.stderr).matches("was compiled already").count(), 3, "{ran:?}");
    let server = launch.start();
    for path in ["/first", "/second", "/http/request"] {
        server.get(path).ok();
    }
    assert_eq!(server.metrics().sum("wasmbox_compilations_total", &[]), 0.0);
    let ran = output(wasmbox(&["compile", "--functions-dir=.", "--cache-dir=none"]), b"");
    assert_eq!(ran.status.code(), Some(1));
    assert!(text(&ran.stderr).contains("--cache-dir"), "{ran:?}");
}
