//! Uploads that do not come to their end: half sent, too large, without space, without time.

use std::{fs, path::PathBuf};

use http::Method;
use rustix::process::Signal;
use wasmbox_tests::{WasmBox, Wire, binary, eventually, guest, server::Launch};

use super::{TOKEN, ask, assert_nothing_left, delete, get, json, launch, put, request, unfinished};

/// The head of an upload of so many bytes.
fn head(name: &str, length: &str) -> String {
    format!("PUT /functions/{name} HTTP/1.1\r\nHost: box\r\nAuthorization: Bearer {TOKEN}\r\n{length}\r\n\r\n")
}

/// An upload of which a part has come.
fn begin(server: &WasmBox, length: usize, sent: &[u8]) -> Wire {
    let before = unfinished(&server.functions()).len();
    let mut wire = Wire::send_to(server.admin_address(), head("f", &format!("Content-Length: {length}")));
    wire.send(sent);
    eventually("the upload has begun", || (unfinished(&server.functions()).len() > before).then_some(()));
    wire
}

#[test]
fn half_an_upload_leaves_nothing() {
    let server = launch().function("f.wat", guest::printing("before", "")).start();
    let half = vec![0; 2_000_000];
    // The client is gone, or says that this was all.
    drop(begin(&server, 4_000_000, &half));
    assert_nothing_left(&server.functions(), &["f.wat"]);
    let mut wire = begin(&server, 4_000_000, &half);
    wire.finish();
    wire.answer().problem(400, "body-unreadable");
    assert_nothing_left(&server.functions(), &["f.wat"]);
    assert_eq!(server.get("/f").ok().text(), "before");
}

/// What arrives is on disk, and not in memory.
#[test]
fn a_large_upload_takes_no_memory() {
    const LENGTH: usize = 120 << 20;
    let server = launch().flag("--max-module-size", "128Mi").start();
    put(&server, "g", guest::hello());
    let before = server.process().peak_resident_bytes();
    let piece = vec![0; 1 << 20];
    let mut upload = begin(&server, LENGTH, &piece);
    for _ in 1..LENGTH / piece.len() - 1 {
        upload.send(&piece);
    }
    eventually("all of it is on disk", || {
        let file = unfinished(&server.functions()).first()?.join("version/f.wasm");
        (fs::metadata(file).ok()?.len() as usize > LENGTH - (3 << 20)).then_some(())
    });
    let taken = server.process().peak_resident_bytes() - before;
    assert!(taken < 16 << 20, "{taken} bytes more");
    drop(upload);
    assert_nothing_left(&server.functions(), &["g.wasm"]);
}

#[test]
fn who_sends_nothing_more_is_not_waited_for() {
    let server = launch().flag("--body-timeout", "3s").start();
    begin(&server, 4_000_000, b"\0asm").answer().problem(400, "body-unreadable");
    assert_nothing_left(&server.functions(), &[]);
}

#[test]
fn what_is_too_large_is_refused_before_and_while_it_comes() {
    let server = launch().flag("--max-module-size", "1Mi").start();
    let mut wire = Wire::send_to(server.admin_address(), head("f", "Content-Length: 1048577"));
    wire.answer().problem(413, "body-too-large").names(&["1048576"]);
    let mut wire = Wire::send_to(server.admin_address(), head("f", "Transfer-Encoding: chunked"));
    for _ in 0..17 {
        let mut chunk = b"10000\r\n".to_vec();
        chunk.extend([b'x'; 0x10000]);
        chunk.extend(b"\r\n");
        let _ = wire.try_send(chunk);
    }
    wire.answer().problem(413, "body-too-large").names(&["1048576"]);
    assert_nothing_left(&server.functions(), &[]);
}

/// The box reads no more of it than it may be long.
#[test]
fn a_gibibyte_is_not_received() {
    let server = launch().flag("--max-module-size", "8Mi").start();
    let mut wire = Wire::send_to(server.admin_address(), head("f", "Content-Length: 1073741824"));
    wire.answer().problem(413, "body-too-large").names(&["8388608"]);
    let before = server.process().peak_resident_bytes();
    let mut wire = Wire::send_to(server.admin_address(), head("f", "Transfer-Encoding: chunked"));
    let piece = [b"100000\r\n".as_slice(), &vec![b'x'; 1 << 20], b"\r\n"].concat();
    let sent = (0..1024).take_while(|_| wire.try_send(&piece).is_ok()).count();
    assert!(sent < 1024, "all of it was received");
    let taken = server.process().peak_resident_bytes() - before;
    assert!(taken < 16 << 20, "{taken} bytes more");
    assert_nothing_left(&server.functions(), &[]);
    put(&server, "f", guest::hello());
}

/// As one that the kernel kills for want of memory.
#[test]
fn what_a_killed_box_leaves_is_removed_by_the_next() {
    let mut server = launch().flag("--enable-cgroups", false).start();
    put(&server, "f", guest::printing("before", ""));
    let upload = begin(&server, 4_000_000, &[0; 2_000_000]);
    server.signal(Signal::KILL);
    server.wait();
    drop(upload);
    assert_eq!(unfinished(&server.functions()).len(), 1, "it had no time to remove it");
    let server = server.stop().start();
    assert!(unfinished(&server.functions()).is_empty());
    assert_nothing_left(&server.functions(), &["f.wasm"]);
    assert_eq!(server.get("/f").ok().text(), "before");
    server.logged(&["removed 1 unfinished"]);
}

/// What another box that runs is doing with the same directory is none of its business.
#[test]
fn a_second_box_leaves_the_uploads_of_the_first_alone() {
    let first = launch().start();
    let filling = binary::custom_section("filling", &vec![7; 2_000_000]);
    let module = [binary::encoded(&guest::printing("first", "")), filling].concat();
    let mut upload = begin(&first, module.len(), &module[..1_000_000]);
    let second = launch().flag("--functions-dir", first.functions().display()).start();
    assert_eq!(unfinished(&first.functions()).len(), 1);
    upload.send(&module[1_000_000..]);
    assert_eq!(upload.answer().status, 201);
    assert_eq!(second.get("/f").ok().text(), "first");
    assert_eq!(put(&second, "g", guest::printing("second", "")).status, 201);
    assert_eq!(first.get("/g").ok().text(), "second");
    eventually("nothing is left", || unfinished(&first.functions()).is_empty().then_some(()));
}

#[test]
fn a_module_that_takes_too_long_to_compile_is_refused() {
    let server = launch()
        .function("f.wat", guest::printing("before", ""))
        .flag("--compile-time", "3s")
        .flag("--tiers", "off")
        .start();
    put(&server, "f", binary::large(24 << 20)).problem(422, "module-invalid").names(&["3000 ms", "--compile-time"]);
    assert_eq!(server.get("/f").ok().text(), "before");
    assert_nothing_left(&server.functions(), &["f.wat"]);
}

#[test]
fn a_module_that_exhausts_the_compiler_is_refused() {
    let server = launch().flag("--compile-memory", "96Mi").start();
    put(&server, "f", binary::exhausting(&[])).problem(422, "module-invalid").names(&["--compile-memory"]);
    server.admin("/live").ok();
    assert_nothing_left(&server.functions(), &[]);
}

/// A box whose functions are on a file system of one MiB; and where that is seen from here.
fn with_little_space(launch: Launch) -> (WasmBox, PathBuf) {
    let script = format!("mount -t tmpfs -o size=1m,mode=700 none {} && exec \"$@\"", launch.functions().display());
    let server = launch.through(["unshare", "--mount", "sh", "-c", &script, "sh"]).start();
    let root = PathBuf::from(format!("/proc/{}/root", server.process().0));
    let functions = root.join(server.functions().strip_prefix("/").expect("an absolute path"));
    (server, functions)
}

#[test]
fn a_full_disk_changes_nothing() {
    let (server, functions) = with_little_space(launch());
    assert_eq!(put(&server, "f", guest::printing("before", "")).status, 201);
    let large = || {
        let module = binary::encoded(&guest::printing("large", ""));
        [module, binary::custom_section("filling", &vec![7; 2 << 20])].concat()
    };
    for name in ["f", "new"] {
        put(&server, name, large()).problem(507, "disk-full").names(&["no space left"]);
    }
    assert_eq!(server.get("/f").ok().text(), "before");
    server.get("/new").problem(404, "module-not-found");
    assert_nothing_left(&functions, &["f.wasm"]);
    // Filled by somebody else: not even a small one, nor settings.
    let mut filled = 0;
    while fs::write(functions.join(format!("zz{filled}")), [7; 64 << 10]).is_ok() {
        filled += 1;
    }
    put(&server, "f", guest::printing("after", "")).problem(507, "disk-full");
    let settings = ask(&server, request(Method::PUT, "/functions/f/settings"), "args = ['x']");
    settings.problem(507, "disk-full");
    assert_eq!(server.get("/f").ok().text(), "before");
    for number in 0..=filled {
        fs::remove_file(functions.join(format!("zz{number}"))).expect("a file");
    }
    assert_nothing_left(&functions, &["f.wasm"]);
    put(&server, "f", guest::printing("after", "")).ok();
    assert_eq!(server.get("/f").ok().text(), "after");
}

#[test]
fn there_is_place_for_so_many_functions_and_bytes() {
    let server = launch().flag("--upload-max-functions", 2).flag("--upload-total-size", "1Mi").start();
    let filling = |bytes| {
        let module = binary::encoded(&guest::printing("large", ""));
        [module, binary::custom_section("filling", &vec![7; bytes])].concat()
    };
    assert_eq!(put(&server, "a", filling(700_000)).status, 201);
    put(&server, "a", filling(600_000)).problem(507, "functions-full").names(&["1048576", "--upload-total-size"]);
    assert_eq!(put(&server, "b", guest::hello()).status, 201);
    put(&server, "c", guest::hello()).problem(507, "functions-full").names(&["2", "--upload-max-functions"]);
    let settings = ask(&server, request(Method::PUT, "/functions/c/settings"), "args = ['x']");
    settings.problem(507, "functions-full");
    // What there is can be replaced, and what was removed takes space until it is forgotten.
    put(&server, "b", guest::printing("other", "")).ok();
    assert_eq!(delete(&server, "/functions/a").status, 204);
    put(&server, "c", filling(600_000)).problem(507, "functions-full");
    assert_eq!(delete(&server, "/functions/a/versions").status, 204);
    assert_eq!(put(&server, "c", filling(600_000)).status, 201);
    assert_eq!(json(&get(&server, "/functions?stored").ok()).as_array().map(Vec::len), Some(2));
    assert_nothing_left(&server.functions(), &["b.wasm", "c.wasm"]);
}
