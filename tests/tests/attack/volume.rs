//! Writers of the functions directory: files that are no functions, that change, that are many.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::{FileExt, symlink},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use rustix::fs::{CWD, Mode, mknodat};
use wasmbox_tests::{
    Attack, Request, WasmBox,
    attack::{goes_on, together},
    binary, guest,
    guest::printing,
};

use crate::assert_coded;

/// What the callers of a function get while somebody plays with its file.
const CHANGING: &[&str] = &["module-not-found", "module-invalid", "compiling", "queue-timeout"];

/// How many descriptors a box that is started here may have.
fn descriptor_limit() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    limit.and_then(|limit| usize::try_from(limit).ok()).expect("there is a limit")
}

fn fifo(path: &Path) {
    mknodat(CWD, path, rustix::fs::FileType::Fifo, Mode::from_raw_mode(0o644), 0).expect("a file system with FIFOs");
}

fn called(server: &WasmBox, path: &str) -> Option<String> {
    let request = Request::get(path).header("Invocation-Timeout", "3000").header("Memory-Request", "4");
    let answer = server.call(request, "");
    if answer.status == 200 {
        return Some(answer.text().to_owned());
    }
    assert_coded(&answer, CHANGING);
    None
}

#[test]
fn files_that_are_none() {
    let attack = Attack::within(256).function("settings.wat", guest::hello()).function("dirs.wat", guest::hello());
    let functions = attack.launch().functions();
    fifo(&functions.join("fifo.wasm"));
    fifo(&functions.join("settings.toml"));
    fs::create_dir(functions.join("directory.wasm")).expect("a directory");
    fs::create_dir(functions.join("dirs.toml")).expect("a directory");
    for (name, target) in [
        ("passwd", "/etc/passwd"),
        ("zero", "/dev/zero"),
        ("random", "/dev/random"),
        ("memory", "/proc/self/mem"),
        ("tty", "/dev/stdin"),
        ("loop", "loop.wasm"),
        ("outside", "../cache"),
    ] {
        symlink(target, functions.join(format!("{name}.wasm"))).expect("a symlink");
    }
    let sparse = File::create(functions.join("sparse.wasm")).expect("a file");
    sparse.set_len(1 << 40).expect("a sparse file of a TiB");
    attack.run(|server| {
        let names = [
            "fifo",
            "settings",
            "directory",
            "dirs",
            "passwd",
            "zero",
            "random",
            "memory",
            "tty",
            "loop",
            "outside",
            "sparse",
        ];
        together(names.len(), |client| {
            assert_eq!(called(server, &format!("/{}", names[client])), None, "{}", names[client]);
        });
    });
}

/// A path that is now a function and now a symlink to a secret.
#[test]
fn symlinks_that_come_and_go() {
    let attack = Attack::within(256).function("swapped.wat", guest::hello());
    let directory = attack.launch().directory().to_owned();
    fs::write(directory.join("secret.wat"), printing("secret", "")).expect("a file");
    attack.run(|server| {
        let path = server.functions().join("swapped.wat");
        let (file, link) = (server.functions().join(".file"), server.functions().join(".link"));
        thread::scope(|scope| {
            scope.spawn(|| {
                let started = Instant::now();
                while goes_on(started) {
                    fs::write(&file, guest::hello()).expect("a file");
                    fs::rename(&file, &path).expect("a new name");
                    symlink("../secret.wat", &link).expect("a symlink");
                    fs::rename(&link, &path).expect("a new name");
                }
            });
            together(3, |_| {
                let text = called(server, "/swapped");
                assert!(text.as_deref().is_none_or(|text| text == "hello\n"), "{text:?}");
            });
        });
    });
}

/// A module that is replaced all the time, and one that is written in place: each answer is a whole version's.
#[test]
fn modules_that_change_all_the_time() {
    let attack = Attack::within(512).function("renamed.wat", guest::hello()).function("written.wat", guest::hello());
    attack.log_bytes(16 << 20).run(|server| {
        let path = server.functions().join("written.wat");
        thread::scope(|scope| {
            scope.spawn(|| {
                let started = Instant::now();
                let mut version = 0u64;
                while goes_on(started) {
                    version += 1;
                    server.put("renamed.wat", printing(format!("version {version}\n"), ""));
                    let mut file = File::create(&path).expect("a file");
                    for piece in printing(format!("version {version}\n"), "").as_bytes().chunks(500) {
                        file.write_all(piece).expect("a file takes what is written");
                    }
                    file.write_all(&[b' '; 100]).expect("a file takes what is written");
                    thread::sleep(Duration::from_millis(5));
                }
            });
            together(3, |client| {
                let path = ["/renamed", "/written", "/renamed"][client];
                let text = called(server, path).unwrap_or("hello\n".into());
                let whole = text.strip_prefix("version ").and_then(|text| text.strip_suffix('\n'));
                assert!(text == "hello\n" || whole.is_some_and(|version| version.parse::<u64>().is_ok()), "{text:?}");
            });
        });
    });
}

/// Writers that open a module while the box reads it: the kernel tells whoever holds a lease, by a signal.
#[test]
fn writers_that_come_while_the_box_reads() {
    let module = binary::large(200_000);
    let attack = Attack::within(512).function("contended.wasm", &module).log_bytes(16 << 20);
    attack.run(|server| {
        let path = server.functions().join("contended.wasm");
        thread::scope(|scope| {
            for index in 0..2u8 {
                let (path, module) = (&path, &module);
                scope.spawn(move || {
                    let started = Instant::now();
                    while goes_on(started) {
                        if let Ok(file) = OpenOptions::new().write(true).open(path) {
                            // Another time, so that it is read again; the last byte is what it was.
                            let last = module.len() as u64 - 1;
                            let _ = file.write_at(&module[module.len() - 1..], last);
                        }
                        thread::sleep(Duration::from_millis(u64::from(index)));
                    }
                });
            }
            together(4, |_| drop(called(server, "/contended")));
        });
    });
}

/// A file that grows for as long as it is read, and one that is cut off.
#[test]
fn files_that_grow_and_shrink() {
    let attack = Attack::within(256).function("growing.wasm", binary::large(10_000)).log_bytes(16 << 20);
    attack.run(|server| {
        let path = server.functions().join("growing.wasm");
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut file = OpenOptions::new().append(true).open(&path).expect("a file");
                let started = Instant::now();
                let piece = binary::custom_section("grown", &[0; 60_000]);
                while goes_on(started) {
                    file.write_all(&piece).expect("a file takes what is written");
                    if file.metadata().expect("a file").len() > 64 << 20 {
                        file.set_len(100).expect("a file of its length");
                    }
                }
            });
            together(3, |_| drop(called(server, "/growing")));
        });
    });
}

/// Settings that are long, deep, or wide.
#[test]
fn settings_of_all_sizes() {
    let env: String = (0..50_000).map(|index| format!("NAME{index} = \"value\"\n")).collect();
    let cases = [
        ("large", format!("# {}\n", "x".repeat(64 << 20))),
        ("deep", format!("args = {}{}", "[".repeat(100_000), "]".repeat(100_000))),
        ("tables", "[a.b]\na = 1\n".into()),
        ("dotted", format!("{}a = 1\n", "a.".repeat(100_000))),
        ("inline", format!("env = {}{}", "{ a = ".repeat(50_000), "}".repeat(50_000))),
        ("name", format!("[env]\n{} = \"x\"\n", "N".repeat(64 << 10))),
        ("key", format!("{} = 1\n", "k".repeat(64 << 10))),
        ("env", format!("[env]\n{env}")),
        ("value", format!("[env]\nA = \"{}\"\n", "v".repeat(4 << 20))),
        ("args", format!("args = [{}]", "\"x\",".repeat(200_000))),
        ("hosts", format!("allowed-outbound-hosts = [{}]", "\"a:1\",".repeat(100_000))),
        ("preopens", "[[preopens]]\nhost = \"/\"\nguest = \"/\"\n".repeat(20_000)),
        ("buffer", "output-buffer-bytes = 18446744073709551615\n".into()),
        ("negative", "output-buffer-bytes = -1\n".into()),
        ("nul", "args = [\"\\u0000\"]\n".into()),
        ("binary", "\u{0}\u{1}".into()),
    ];
    let attack = cases.iter().fold(Attack::within(256).log_bytes(16 << 20), |attack, (name, text)| {
        attack.function(&format!("{name}.wat"), guest::hello()).function(&format!("{name}.toml"), text)
    });
    attack.run(|server| {
        for (name, _) in &cases {
            let before = server.log().len();
            let request =
                Request::get(format!("/{name}")).header("Memory-Request", "1").header("Invocation-Timeout", "5000");
            let answer = server.call(request, "");
            if answer.status != 200 {
                assert_coded(&answer, &["module-invalid", "guest-trap", "guest-memory-limit", "compiling"]);
            }
            assert!(answer.body.len() < 8 << 10, "{name}: an answer of {} bytes", answer.body.len());
            let logged = server.log().len() - before;
            // The victim's lines are in it, too.
            assert!(logged < 32 << 10, "{name}: {logged} bytes of log");
        }
        together(cases.len(), |client| {
            let request = Request::get(format!("/{}", cases[client].0)).header("Memory-Request", "1");
            let answer = server.call(request.header("Invocation-Timeout", "3000"), "");
            if answer.status != 200 {
                assert_coded(
                    &answer,
                    &[
                        "module-invalid",
                        "guest-trap",
                        "guest-memory-limit",
                        "compiling",
                        "queue-timeout",
                        "queue-full",
                        "evicted",
                    ],
                );
            }
        });
    });
}

/// Names that come and go while they are asked for.
#[test]
fn storms_of_renames() {
    let attack = Attack::within(256).function("a.wat", guest::hello()).log_bytes(32 << 20);
    attack.run(|server| {
        let functions = server.functions();
        thread::scope(|scope| {
            scope.spawn(|| {
                let started = Instant::now();
                while goes_on(started) {
                    for (from, to) in [("a.wat", "b.wat"), ("b.wat", "b"), ("b", "a.wasm"), ("a.wasm", "a.wat")] {
                        fs::rename(functions.join(from), functions.join(to)).expect("a new name");
                    }
                }
            });
            together(4, |client| {
                let text = called(server, ["/a", "/b", "/a.wat", "/a.wasm"][client]);
                assert!(text.as_deref().is_none_or(|text| text == "hello\n"), "{text:?}");
            });
        });
    });
}

/// Ten thousand functions, each called once: what is kept of each is bounded in all.
#[test]
fn ten_thousand_functions() {
    const MANY: usize = 10_000;
    // Each that is loaded takes a descriptor, and an eighth of them all is for that.
    let attack = Attack::within(512).log_bytes(32 << 20).descriptors(512 + descriptor_limit() / 8);
    let functions = attack.launch().functions();
    let (good, bad) = (binary::encoded("(module (func (export \"_start\")))"), b"bad".as_slice());
    for index in 0..MANY {
        let content = if index % 2 == 0 { &good } else { bad };
        fs::write(functions.join(format!("f{index:0>100}.wasm")), content).expect("a file");
    }
    attack.run(|server| {
        let next = std::sync::atomic::AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let started = Instant::now();
                    loop {
                        let index = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        if index >= MANY || started.elapsed() > Duration::from_secs(8) {
                            return;
                        }
                        called(server, &format!("/f{index:0>100}"));
                    }
                });
            }
        });
        let metrics = server.metrics().text().len();
        assert!(metrics < 8 << 20, "{metrics} bytes of metrics");
    });
}
