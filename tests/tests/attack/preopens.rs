//! Authors, and other pods of a volume, with a directory that a function may see: it leads nowhere else, and holds nothing up.

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use rustix::fs::{CWD, Mode, mknodat};
use wasmbox_tests::{
    Attack, Request,
    attack::{goes_on, together},
    guest::{READDIR, command_importing, command_with},
};

use crate::{
    assert_coded,
    host_memory::{CROWDED, REFUSED, call_with},
};

/// What a guest gets whose directory is not, or no longer, one that it may have.
const NOT_GRANTED: &[&str] = &["module-invalid", "guest-exit", "preopen-unavailable"];

fn settings(host: &Path, writable: bool) -> String {
    format!("[[preopens]]\nhost = {host:?}\nguest = \"/data\"\nwritable = {writable}\n")
}

/// Opens `name` below its first directory (3), with errno as exit code, and does `body` with `(i32.load (i32.const 32))`.
fn opening(name: &str, body: &str) -> String {
    command_with(
        &format!("(data (i32.const 1024) \"{name}\")"),
        &format!(
            "(loop $again
               (call $check (call $path_open (i32.const 3) (i32.const 1) (i32.const 1024) (i32.const {})
                 (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 32)))
               {body})",
            name.len()
        ),
    )
}

/// An attack with a preopen root of its own, in which there is a directory `data`.
fn with_root(mebibytes: u64) -> (Attack, std::path::PathBuf) {
    let attack = Attack::within(mebibytes);
    let root = attack.launch().directory().join("root");
    fs::create_dir_all(root.join("data")).expect("a directory");
    (attack.flag("--preopen-root", root.display()), root)
}

/// Descriptors are the box's: each connection needs one.
#[test]
fn one_file_opened_without_end() {
    let (attack, root) = with_root(256);
    fs::write(root.join("data/file"), "x").expect("a file");
    let attack = attack.function("opening.wat", opening("file", "(br $again)"));
    let attack = attack.function("opening.toml", settings(&root.join("data"), false)).descriptors(4000);
    attack.run(|server| {
        let codes = [&["guest-exit"], REFUSED, CROWDED].concat();
        together(4, |_| assert_coded(&call_with(server, "/opening", "1Mi"), &codes));
    });
}

/// A directory with many names, which wasmtime reads whole before a guest gets the first of them.
#[test]
fn a_directory_with_many_names() {
    let (attack, root) = with_root(256);
    for number in 0..200_000 {
        fs::write(root.join(format!("data/{number:0>100}")), "").expect("a file");
    }
    let lists =
        "(call $check (call $fd_readdir (i32.const 3) (i32.const 1024) (i32.const 4096) (i64.const 0) (i32.const 32)))";
    let attack = attack.function("listing.wat", command_importing(READDIR, lists));
    let attack = attack.function("listing.toml", settings(&root.join("data"), false));
    attack.run(|server| {
        let codes = [&["guest-exit"], REFUSED, CROWDED].concat();
        together(8, |_| assert_coded(&call_with(server, "/listing", "1Mi"), &codes));
        // The thread goes on for those who have room, and leave: the next ones wait until it has ended.
        together(8, |_| {
            for _ in 0..4 {
                let request =
                    Request::get("/listing").header("Memory-Request", "120Mi").header("Invocation-Timeout", "60");
                assert_coded(&server.call(request, ""), &[&codes[..], &["deadline-exceeded"]].concat());
            }
        });
    });
}

/// A directory that another replaces by a symlink, between the check and the use: nothing behind the link is seen.
#[test]
fn directories_that_become_symlinks() {
    let (attack, root) = with_root(256);
    let secret = attack.launch().directory().join("secret");
    fs::create_dir(&secret).expect("a directory");
    fs::write(secret.join("key"), "secret").expect("a file");
    let sub = root.join("data/sub");
    fs::create_dir(&sub).expect("a directory");
    fs::write(sub.join("key"), "public").expect("a file");
    let printing = opening("key", "(call $copy (i32.load (i32.const 32)) (i32.const 1))");
    let attack = attack.function("reading.wat", printing).function("reading.toml", settings(&sub, true));
    attack.run(|server| {
        let read = || {
            let answer = call_with(server, "/reading", "1Mi");
            if answer.status == 200 {
                assert_eq!(answer.text(), "public", "what is outside the root");
            } else {
                assert_coded(&answer, &[NOT_GRANTED, CROWDED].concat());
            }
            answer.status
        };
        assert_eq!(read(), 200);
        let aside = root.join("data/aside");
        // At rest, and in a race.
        for target in ["../../secret", "..", "/"] {
            fs::rename(&sub, &aside).expect("a new name");
            symlink(target, &sub).expect("a symlink");
            assert_ne!(read(), 200, "{target}");
            fs::remove_file(&sub).expect("a symlink");
            fs::rename(&aside, &sub).expect("a new name");
        }
        thread::scope(|scope| {
            scope.spawn(|| {
                let started = Instant::now();
                while goes_on(started) {
                    fs::rename(&sub, &aside).expect("a new name");
                    symlink(&secret, &sub).expect("a symlink");
                    thread::sleep(Duration::from_micros(300));
                    fs::remove_file(&sub).expect("a symlink");
                    fs::rename(&aside, &sub).expect("a new name");
                    thread::sleep(Duration::from_micros(300));
                }
            });
            together(3, |_| {
                read();
            });
        });
    });
}

/// The same by guests alone: one replaces the directory that another is given.
#[test]
fn guests_that_make_symlinks() {
    let imports = r#"
        (import "wasi_snapshot_preview1" "path_symlink" (func $symlink (param i32 i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "path_rename" (func $rename (param i32 i32 i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "path_remove_directory" (func $rmdir (param i32 i32 i32) (result i32)))"#;
    // "sub" at 1024, "../cache" at 1040.
    let text =
        "(i64.store (i32.const 1024) (i64.const 0x627573)) (i64.store (i32.const 1040) (i64.const 0x65686361632f2e2e))";
    let body = format!(
        "{text}
         (drop (call $rmdir (i32.const 3) (i32.const 1024) (i32.const 3)))
         (call $check (call $symlink (i32.const 1040) (i32.const 8) (i32.const 3) (i32.const 1024) (i32.const 3)))"
    );
    let (attack, root) = with_root(256);
    fs::create_dir(root.join("data/sub")).expect("a directory");
    fs::create_dir_all(root.join("cache")).expect("a directory");
    fs::write(root.join("cache/key"), "secret").expect("a file");
    let attack = attack
        .function("making.wat", command_importing(imports, &body))
        .function("making.toml", settings(&root.join("data"), true))
        .function("reading.wat", opening("key", "(call $copy (i32.load (i32.const 32)) (i32.const 1))"))
        .function("reading.toml", settings(&root.join("data/sub"), true));
    attack.run(|server| {
        // It is loaded before the directory is replaced; it has no `key` yet.
        assert_coded(&call_with(server, "/reading", "1Mi"), &["guest-exit"]);
        server.call(Request::get("/making").header("Memory-Request", "1"), "").ok();
        for _ in 0..3 {
            assert_coded(&call_with(server, "/reading", "1Mi"), NOT_GRANTED);
        }
    });
}

/// Roots that hold what the box needs for itself are no roots.
#[test]
fn roots_that_hold_the_box_itself() {
    let launch = wasmbox_tests::WasmBox::launch();
    let (functions, cache, directory) = (launch.functions(), launch.cache(), launch.directory().to_owned());
    for root in [functions.as_path(), &cache, &directory, "/".as_ref(), "/proc".as_ref(), "/sys".as_ref()] {
        let launch = wasmbox_tests::WasmBox::launch();
        let root = match root {
            root if root == functions => launch.functions(),
            root if root == cache => launch.cache(),
            root if root == directory => launch.directory().to_owned(),
            root => root.to_owned(),
        };
        let refusal = launch.flag("--preopen-root", root.display()).refusal();
        assert!(refusal.contains("preopen-root"), "{}: {refusal}", root.display());
    }
}

/// Directories with many entries, files that are as long as a file may be.
#[test]
fn directories_and_files_without_end() {
    let (attack, root) = with_root(256);
    for index in 0..20_000 {
        fs::write(root.join(format!("data/{index:0>200}")), "").expect("a file");
    }
    let sparse = fs::File::create(root.join("data/sparse")).expect("a file");
    sparse.set_len(1 << 42).expect("a sparse file");
    let import =
        r#"(import "wasi_snapshot_preview1" "fd_readdir" (func $readdir (param i32 i32 i32 i64 i32) (result i32)))"#;
    let listing = command_importing(
        import,
        "(drop (memory.grow (i32.const 64)))
         (loop $a (drop (call $readdir (i32.const 3) (i32.const 65536) (i32.const 4000000) (i64.const 0) (i32.const 8))) (br $a))",
    );
    let copying = opening("sparse", "(call $copy (i32.load (i32.const 32)) (i32.const 2))");
    let attack = attack
        .function("listing.wat", listing)
        .function("listing.toml", settings(&root.join("data"), false))
        .function("copying.wat", copying)
        .function("copying.toml", settings(&root.join("data"), false))
        // A MiB of each invocation's standard error.
        .log_bytes(64 << 20);
    attack.run(|server| {
        together(6, |client| {
            let answer = call_with(server, ["/listing", "/copying"][client % 2], "8Mi");
            assert_coded(&answer, &[&["guest-exit"], REFUSED, CROWDED].concat());
        });
    });
}

/// Opening a FIFO waits for somebody at its other end, who never comes; no thread waits with it, and the box can end.
#[test]
fn pipes_that_nobody_writes() {
    let (attack, root) = with_root(256);
    let path = root.join("data/pipe");
    mknodat(CWD, &path, rustix::fs::FileType::Fifo, Mode::from_raw_mode(0o666), 0).expect("a file system with FIFOs");
    fs::write(root.join("data/file"), "x").expect("a file");
    let read = "(drop (call $read (i32.load (i32.const 32)) (i32.const 65536) (i32.const 100)))";
    let attack = attack
        .function("pipe.wat", opening("pipe", read))
        .function("pipe.toml", settings(&root.join("data"), true))
        .function("file.wat", opening("file", read))
        .function("file.toml", settings(&root.join("data"), true))
        .descriptors(4000);
    attack.run(|server| {
        together(60, |_| {
            let request = Request::get("/pipe").header("Memory-Request", "1").header("Invocation-Timeout", "500");
            let answer = server.call(request, "");
            if answer.status != 200 {
                let codes = [&["guest-exit", "guest-trap", "deadline-exceeded", "compiling"], CROWDED].concat();
                assert_coded(&answer, &codes);
            }
        });
        // Files are for others, still.
        wasmbox_tests::eventually("a file can be read", || {
            let request = Request::get("/file").header("Memory-Request", "1").header("Invocation-Timeout", "1000");
            (server.call(request, "").status == 200).then_some(())
        });
    });
}
