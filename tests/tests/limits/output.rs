//! How long an answer may be.

use wasmbox_tests::{Request, WasmBox, guest};

#[test]
fn output() {
    let server = WasmBox::launch()
        .function("flood.wat", guest::flood(0))
        .function("exact.wat", guest::flood(16))
        .function("one-more.wat", guest::flood(17))
        .flag("--max-output", "1Mi")
        .start();
    assert_eq!(server.get("/exact").ok().body.len(), 1 << 20);
    for path in ["/flood", "/one-more"] {
        // More than the first buffer went out before, so the answer can only be broken off.
        let broken = server.try_call(Request::get(path), "").expect_err("more than the limit");
        assert!(broken.body.len() <= 1 << 20, "{path}: {broken:?}");
        server.logged(&[&format!("function={}", &path[1..]), "failure=", "1048576 bytes of output"]);
    }
}
