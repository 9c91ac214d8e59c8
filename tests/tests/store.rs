//! Which file a name means, and what may become of a file.

use std::{fs, os::unix::fs::symlink, thread};

use rustix::fs::{CWD, FileType, Mode, Timestamps, mknodat};
use wasmbox_tests::{Request, WasmBox, guest, server::half_written, temporary::TempDir};

#[test]
fn forms_of_a_name() {
    let server = WasmBox::launch()
        .function("text.wat", guest::printing("text.wat", ""))
        .function("both.wasm", guest::printing("both.wasm", ""))
        .function("both.wat", guest::printing("both.wat", ""))
        .function("bare", guest::printing("bare", ""))
        .function("all", guest::printing("all", ""))
        .function("all.wasm", guest::printing("all.wasm", ""))
        .function("A-b_c.9.wat", guest::printing("odd", ""))
        .function("other.txt", guest::printing("other.txt", ""))
        .function("settings.toml", "")
        .function(".hidden.wat", guest::hello())
        .start();
    for (path, output) in [
        ("/text", "text.wat"),
        ("/text.wat", "text.wat"),
        ("/both", "both.wasm"),
        ("/both.wasm", "both.wasm"),
        ("/both.wat", "both.wat"),
        ("/bare", "bare"),
        ("/all", "all"),
        ("/all.wasm", "all.wasm"),
        ("/A-b_c.9", "odd"),
        ("/other.txt", "other.txt"),
    ] {
        assert_eq!(server.get(path).ok().text(), output, "{path}");
    }
    for path in ["/text.wasm", "/tex", "/TEXT", "/bare.wasm", "/settings.toml", "/settings", "/both.wasm.wasm"] {
        server.get(path).problem(404, "module-not-found");
    }
    server.get("/.hidden").problem(400, "bad-module-name");
}

#[test]
fn no_path_leads_out() {
    let launch = WasmBox::launch().function("inside.wat", guest::hello());
    fs::write(launch.directory().join("outside.wat"), guest::hello()).expect("a file beside the functions");
    let server = launch.start();
    for path in [
        "/../outside.wat",
        "/..%2foutside.wat",
        "/%2e%2e/outside.wat",
        "/.%2e%5coutside.wat",
        "//outside.wat",
        "/./inside.wat",
        "/..",
        "/%00",
    ] {
        let answer = server.wire(format!("GET {path} HTTP/1.1\r\nHost: box\r\n\r\n")).answer();
        answer.problem(400, "bad-module-name");
    }
    server.get("/inside/../../outside.wat").problem(404, "module-not-found");
}

#[test]
fn symlinks_stay_inside() {
    let outside = TempDir::new();
    fs::write(outside.path().join("secret.wat"), guest::hello()).expect("a file");
    let launch = WasmBox::launch().function("target.wat", guest::printing("target", ""));
    let functions = launch.functions();
    let link = |to: &str, name: &str| symlink(to, functions.join(name)).expect("a new symlink");
    let secret = outside.path().join("secret.wat").display().to_string();
    fs::create_dir(functions.join("below")).expect("a new directory");
    fs::write(functions.join("below/deep.wat"), guest::printing("deep", "")).expect("a file");
    link("target.wat", "inside.wat");
    link("below/deep.wat", "deeper.wat");
    link("inside.wat", "chain.wat");
    link(&secret, "absolute.wat");
    link("../log", "up.wat");
    link("absolute.wat", "indirect.wat");
    link("loop.wat", "loop.wat");
    link("gone.wat", "dangling.wat");
    link("/proc/self/exe", "magic.wat");
    let server = launch.start();
    for (name, output) in [("inside", "target"), ("deeper", "deep"), ("chain", "target")] {
        assert_eq!(server.get(&format!("/{name}")).ok().text(), output);
    }
    for name in ["absolute", "up", "indirect", "loop", "dangling", "magic"] {
        let answer = server.get(&format!("/{name}"));
        answer.problem(404, "module-not-found");
        assert!(!answer.text().contains("secret"), "{}", answer.text());
    }
}

#[test]
fn what_is_no_regular_file_is_no_module() {
    let launch = WasmBox::launch().function("hello.wat", guest::hello());
    fs::create_dir(launch.functions().join("directory.wasm")).expect("a new directory");
    let special = |name: &str, kind: FileType| {
        mknodat(CWD, launch.functions().join(name), kind, Mode::RUSR | Mode::WUSR, 0).expect("a special file");
    };
    special("fifo.wasm", FileType::Fifo);
    special("socket.wasm", FileType::Socket);
    symlink("fifo.wasm", launch.functions().join("link.wasm")).expect("a new symlink");
    let server = launch.start();
    for name in ["directory", "directory.wasm", "fifo", "fifo.wasm", "socket", "link"] {
        server.get(&format!("/{name}")).problem(404, "module-not-found");
    }
    server.get("/hello").ok();
}

#[test]
fn a_changed_file_is_seen_by_the_next_request() {
    let server = WasmBox::with("module.wat", guest::printing("version 0", ""));
    assert_eq!(server.get("/module").ok().text(), "version 0");
    for version in 1..4 {
        server.put("module.wat", guest::printing(format!("version {version}"), ""));
        assert_eq!(server.get("/module").ok().text(), format!("version {version}"));
    }
    // Written in place.
    fs::write(server.functions().join("module.wat"), guest::printing("in place", "")).expect("a file");
    assert_eq!(server.get("/module").ok().text(), "in place");
    // Broken, then repaired.
    server.put("module.wat", "broken");
    server.get("/module").problem(422, "module-invalid");
    server.put("module.wat", guest::printing("repaired", ""));
    assert_eq!(server.get("/module").ok().text(), "repaired");
}

/// Same name, same length, same time of modification: a copy that keeps times.
#[test]
fn a_change_that_keeps_size_and_time_is_seen() {
    let server = WasmBox::with("module.wat", guest::printing("old", ""));
    assert_eq!(server.get("/module").ok().text(), "old");
    let path = server.functions().join("module.wat");
    let before = rustix::fs::stat(&path).expect("the file is there");
    fs::write(&path, guest::printing("new", "")).expect("a file");
    let time = |seconds: i64, nanoseconds: u64| rustix::fs::Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanoseconds).expect("less than a second"),
    };
    let times = Timestamps {
        last_access: time(before.st_atime, before.st_atime_nsec),
        last_modification: time(before.st_mtime, before.st_mtime_nsec),
    };
    rustix::fs::utimensat(CWD, &path, &times, rustix::fs::AtFlags::empty()).expect("the file is ours");
    assert_eq!(rustix::fs::stat(&path).expect("the file is there").st_size, before.st_size);
    assert_eq!(server.get("/module").ok().text(), "new");
}

#[test]
fn running_invocations_keep_the_old_file() {
    let old = guest::printing("old ", "(call $copy (i32.const 0) (i32.const 1))");
    let server = WasmBox::with("module.wat", old);
    let mut running = server.wire("POST /module HTTP/1.1\r\nHost: box\r\nTransfer-Encoding: chunked\r\n\r\n");
    running.send_chunk(b"input");
    server.wait_until_running("module", 1);
    server.put("module.wat", guest::printing("new", ""));
    assert_eq!(server.get("/module").ok().text(), "new");
    fs::remove_file(server.functions().join("module.wat")).expect("the file is there");
    server.get("/module").problem(404, "module-not-found");
    running.send_chunk(b"");
    assert_eq!(running.answer().ok().text(), "old input");
}

#[test]
fn removed_and_added_files() {
    let server = WasmBox::with("first.wat", guest::hello());
    server.get("/first").ok();
    fs::remove_file(server.functions().join("first.wat")).expect("the file is there");
    server.get("/first").problem(404, "module-not-found");
    server.get("/second").problem(404, "module-not-found");
    server.put("second.wat", guest::hello());
    server.get("/second").ok();
    // One that is nearer to the name takes over.
    server.put("second.wasm", guest::printing("nearer", ""));
    assert_eq!(server.get("/second").ok().text(), "nearer");
    fs::remove_file(server.functions().join("second.wasm")).expect("the file is there");
    assert_eq!(server.get("/second").ok().text(), "hello\n");
}

#[test]
fn a_file_that_is_open_for_writing_is_not_run() {
    // Half of it is a module too.
    let (half, whole) = ("(module (func (export \"_start\")))", guest::printing("whole", ""));
    let server = WasmBox::launch().function("other.wat", guest::hello()).start();
    let path = server.functions().join("module.wat");
    let mut file = half_written(&path, half.as_bytes());
    let request = || Request::get("/module").header("Invocation-Timeout", "700");
    server.call(request(), "").problem(503, "compiling");
    // Nobody else is held up meanwhile.
    server.get("/other").ok();
    server.call(request(), "").problem(503, "compiling");
    std::io::Write::write_all(&mut file, format!("\n;; {}\n", "x".repeat(100)).as_bytes()).expect("more of it");
    server.call(request(), "").problem(503, "compiling");
    drop(file);
    fs::write(&path, whole).expect("a file");
    assert_eq!(server.get("/module").ok().text(), "whole");
}

/// Each part is written by itself, as `rsync --append` and network filesystems do: between them nobody has the file open.
#[test]
fn a_file_that_grows_slowly_is_not_run_before_it_is_whole() {
    let whole = wasmbox_tests::binary::encoded(&guest::printing("whole", ""));
    // Without the data section behind it, the code is a module that prints zeros.
    let data = whole.windows(5).rposition(|window| window == b"whole").expect("the text");
    let parts = [&whole[..data - 12], &whole[data - 12..data - 3], &whole[data - 3..]];
    let server = WasmBox::launch().start();
    let path = server.functions().join("module.wasm");
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for end in 1..=parts.len() {
                fs::write(&path, parts[..end].concat()).expect("a file");
                for _ in 0..4 {
                    thread::sleep(std::time::Duration::from_millis(15));
                    // The time of writing goes on.
                    fs::write(&path, parts[..end].concat()).expect("a file");
                }
            }
        });
        while !writer.is_finished() {
            let answer = server.call(Request::get("/module").header("Invocation-Timeout", "50"), "");
            assert!(answer.status != 200 || answer.body == "whole", "a part of the module ran: {answer:?}");
            assert!(answer.status != 422, "a part of the module was compiled: {answer:?}");
        }
    });
    assert_eq!(server.get("/module").ok().text(), "whole");
}

/// As Kubernetes mounts a ConfigMap: files are symlinks into a directory that a symlink names, and that is exchanged as a whole.
#[test]
fn a_volume_that_is_exchanged_as_a_whole() {
    let launch = WasmBox::launch();
    let functions = launch.functions();
    for version in ["1", "2"] {
        let directory = functions.join(format!("..{version}"));
        fs::create_dir(&directory).expect("a new directory");
        fs::write(directory.join("module.wat"), guest::printing(format!("version {version}"), "")).expect("a file");
    }
    symlink("..1", functions.join("..data")).expect("a new symlink");
    symlink("..data/module.wat", functions.join("module.wat")).expect("a new symlink");
    // The functions directory itself may be behind a symlink, too.
    let link = launch.directory().join("link");
    symlink(&functions, &link).expect("a new symlink");
    let server = launch.flag("--functions-dir", link.display()).start();
    assert_eq!(server.get("/module").ok().text(), "version 1");
    symlink("..2", functions.join("..new")).expect("a new symlink");
    fs::rename(functions.join("..new"), functions.join("..data")).expect("a new name");
    assert_eq!(server.get("/module").ok().text(), "version 2");
}

#[test]
fn text_and_binary_are_told_apart_by_content() {
    let component = "(component (core module $m (func (export \"run\") (result i32) (i32.const 0)))
        (core instance $i (instantiate $m))
        (func $run (result (result)) (canon lift (core func $i \"run\")))
        (instance $exports (export \"run\" (func $run)))
        (export \"wasi:cli/run@0.2.0\" (instance $exports)))";
    let server = WasmBox::launch()
        .function("text.wasm", guest::hello())
        .function("binary.wat", wasmbox_tests::binary::encoded(&guest::hello()))
        .function("commented.wat", format!(";; a comment\n(; another ;)\n{}", guest::hello()))
        .function("component-text.wat", component)
        .function("component.wasm", wasmbox_tests::binary::encoded(component))
        .start();
    for name in ["text", "binary", "commented"] {
        assert_eq!(server.get(&format!("/{name}")).ok().text(), "hello\n", "{name}");
    }
    for name in ["component-text", "component"] {
        assert_eq!(server.get(&format!("/{name}")).ok().text(), "", "{name}");
    }
}

/// `wasmedge compile` in its universal format adds machine code in a section of its own to a valid module.
#[test]
fn a_module_with_a_section_of_another_runtime_runs() {
    let mut module = wasmbox_tests::binary::encoded(&guest::hello());
    module.extend(wasmbox_tests::binary::custom_section("wasmedge", &[0xcc; 100_000]));
    let server = WasmBox::launch().function("module.wasm", module).env("WASM_RUNTIME", "wasmedge").start();
    assert_eq!(server.get("/module").ok().text(), "hello\n");
    assert_eq!(server.log().matches("WASM_RUNTIME=wasmedge").count(), 1);
}
