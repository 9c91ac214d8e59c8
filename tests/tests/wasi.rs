//! WASI preview 1 as commands see it: the answers must be right, not just there.

use std::{
    collections::HashSet,
    fs,
    os::unix::fs::symlink,
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use wasmbox_tests::{
    WasmBox, binary,
    guest::{self, command, command_with},
    server::Launch,
};

#[test]
fn exit_codes() {
    // The code is the number of bytes of input.
    let server = WasmBox::launch()
        .function("exit.wat", command("(call $exit (call $read (i32.const 0) (i32.const 65536) (i32.const 256)))"))
        .function("falls-off.wat", guest::printing("done", ""))
        .start();
    assert_eq!(server.get("/falls-off").ok().text(), "done");
    server.post("/exit", "").ok();
    for code in 1..=125 {
        let problem = server.post("/exit", vec![b'x'; code]).problem(500, "guest-exit");
        assert_eq!(problem.member("exit_code"), code);
        problem.names(&[&code.to_string()]);
    }
    // WASI allows no others: what they become is an error of the guest all the same.
    for code in [126, 127, 255] {
        let answer = server.post("/exit", vec![b'x'; code]);
        assert_eq!(answer.status, 500, "{code}: {answer:?}");
        assert!(["guest-exit", "guest-trap"].contains(&answer.header("wasmbox-error")), "{answer:?}");
    }
}

#[test]
fn exit_in_nested_calls() {
    let nested = |code: u32| {
        command_with(
            "(table funcref (elem $leave))
             (func $leave (param $code i32) (call $exit (local.get $code)) unreachable)
             (func $deeper (param $levels i32) (param $code i32)
               (if (local.get $levels)
                 (then (call $deeper (i32.sub (local.get $levels) (i32.const 1)) (local.get $code)))
                 (else (call_indirect (param i32) (local.get $code) (i32.const 0))))
               ;; Nothing behind the exit may run.
               (call $print (i32.const 8192) (i32.const 3)))
             (data (i32.const 8192) \"no!\")
             (data (i32.const 9000) \"output\")",
            &format!("(call $print (i32.const 9000) (i32.const 6)) (call $deeper (i32.const 1000) (i32.const {code}))"),
        )
    };
    let server = WasmBox::launch().function("zero.wat", nested(0)).function("seven.wat", nested(7)).start();
    assert_eq!(server.get("/zero").ok().text(), "output");
    assert_eq!(server.get("/seven").problem(500, "guest-exit").member("exit_code"), 7);
}

/// The number in eight bytes of output.
fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().expect("eight bytes"))
}

#[test]
fn clocks() {
    let server = WasmBox::launch()
        .function(
            "realtime.wat",
            command(
                "(call $check (call $clock_time_get (i32.const 0) (i64.const 1) (i32.const 64)))
                 (call $print (i32.const 64) (i32.const 8))",
            ),
        )
        // Twice, with a pause of 50 ms.
        .function(
            "monotonic.wat",
            command(
                "(call $check (call $clock_time_get (i32.const 1) (i64.const 1) (i32.const 256)))
                 (call $sleep (i64.const 50))
                 (call $check (call $clock_time_get (i32.const 1) (i64.const 1) (i32.const 264)))
                 (call $print (i32.const 256) (i32.const 16))",
            ),
        )
        .start();
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos();
    let before = now();
    let told = u128::from(number(&server.get("/realtime").ok().body));
    assert!((before..=now()).contains(&told), "{told} is not between {before} and {}", now());
    let times = server.get("/monotonic").ok().body;
    let passed = number(&times[8..]) - number(&times[..8]);
    assert!((50_000_000..30_000_000_000).contains(&passed), "{passed} ns for 50 ms");
}

#[test]
fn random_bytes() {
    let server = WasmBox::with(
        "random.wat",
        command(
            "(call $check (call $random_get (i32.const 65536) (i32.const 4096)))
             (call $print (i32.const 65536) (i32.const 4096))",
        ),
    );
    let mut seen = HashSet::new();
    for _ in 0..10 {
        let bytes = server.get("/random").ok().body;
        assert_eq!(bytes.len(), 4096);
        assert_eq!(bytes.iter().collect::<HashSet<_>>().len(), 256, "some byte never comes");
        for word in bytes.chunks(16) {
            assert!(seen.insert(word.to_vec()), "{word:?} twice");
        }
    }
}

/// Opens the path in the input below descriptor 3, with flags: 1 creates, 8 truncates. Reads all of it, or writes `written` to it.
fn opener(flags: u32, writes: bool) -> String {
    // path_open's rights: fd_read is bit 1, fd_write bit 6.
    let rights = if writes { 64 } else { 2 };
    let then = if writes {
        "(call $write (i32.load (i32.const 32)) (i32.const 8192) (i32.const 7))"
    } else {
        "(call $copy (i32.load (i32.const 32)) (i32.const 1))"
    };
    command_with(
        "(data (i32.const 8192) \"written\")",
        &format!(
            "(local $length i32)
             (local.set $length (call $read (i32.const 0) (i32.const 1024) (i32.const 1024)))
             (call $check (call $path_open (i32.const 3) (i32.const 1) (i32.const 1024) (local.get $length)
               (i32.const {flags}) (i64.const {rights}) (i64.const 0) (i32.const 0) (i32.const 32)))
             {then}"
        ),
    )
}

/// A directory to grant, with `file`, `below/deep` and symlinks out of it; functions that read, make and write in it.
fn granting(settings: impl Fn(&str) -> String) -> (Launch, PathBuf) {
    let mut launch = WasmBox::launch();
    let granted = launch.directory().join("granted/data");
    fs::create_dir_all(granted.join("below")).expect("a new directory");
    fs::write(granted.join("file"), "content").expect("a file");
    fs::write(granted.join("below/deep"), "deep content").expect("a file");
    fs::write(launch.directory().join("granted/secret"), "secret").expect("a file");
    symlink("../secret", granted.join("up")).expect("a symlink");
    symlink("/etc/hostname", granted.join("absolute")).expect("a symlink");
    symlink("below/deep", granted.join("inside")).expect("a symlink");
    let root = launch.directory().join("granted").display().to_string();
    for (name, module) in
        [("read", opener(0, false)), ("make", opener(1, true)), ("write", opener(0, true)), ("empty", opener(8, true))]
    {
        launch = launch
            .function(&format!("{name}.wat"), module)
            .function(&format!("{name}.toml"), settings(&granted.display().to_string()));
    }
    (launch.flag("--preopen-root", root), granted)
}

#[test]
fn a_granted_directory_is_read_only() {
    let (launch, granted) = granting(|host| format!("preopens = [{{ host = '{host}', guest = '/data' }}]"));
    let server = launch.start();
    assert_eq!(server.post("/read", "file").ok().text(), "content");
    assert_eq!(server.post("/read", "below/deep").ok().text(), "deep content");
    assert_eq!(server.post("/read", "inside").ok().text(), "deep content");
    for (name, path) in [("make", "new"), ("write", "file"), ("empty", "file"), ("make", "below/new")] {
        server.post(&format!("/{name}"), path).problem(500, "guest-exit");
    }
    assert_eq!(fs::read_to_string(granted.join("file")).expect("the file is there"), "content");
    assert!(!granted.join("new").exists() && !granted.join("below/new").exists());
    // What is not below it is not there.
    for path in ["../secret", "up", "absolute", "/etc/hostname", "below/../../secret", "../data/file", "nothing", ".."]
    {
        let answer = server.post("/read", path);
        assert_eq!(answer.status, 500, "{path}: {answer:?}");
        answer.problem(500, "guest-exit");
    }
}

#[test]
fn a_writable_directory() {
    let (launch, granted) =
        granting(|host| format!("preopens = [{{ host = '{host}', guest = '/', writable = true }}]"));
    let server = launch.start();
    let content = |name: &str| fs::read_to_string(granted.join(name)).expect("the file is there");
    server.post("/make", "new").ok();
    assert_eq!(content("new"), "written");
    server.post("/empty", "file").ok();
    assert_eq!(content("file"), "written");
    for path in ["../new", "up", "absolute", "../secret"] {
        server.post("/make", path).problem(500, "guest-exit");
        server.post("/empty", path).problem(500, "guest-exit");
    }
    let secret = granted.parent().expect("it lies in a directory").join("secret");
    assert_eq!(fs::read_to_string(secret).expect("the file is there"), "secret");
}

#[test]
fn without_a_grant_there_is_no_directory() {
    let (launch, _) = granting(|_| String::new());
    let asks = command("(call $check (call $fd_prestat_get (i32.const 3) (i32.const 64)))");
    let server = launch.function("asks.wat", asks).start();
    // badf: descriptor 3 does not exist.
    assert_eq!(server.get("/asks").problem(500, "guest-exit").member("exit_code"), 8);
    for name in ["read", "make", "write"] {
        let problem = server.post(&format!("/{name}"), "file").problem(500, "guest-exit");
        assert_eq!(problem.member("exit_code"), 8);
    }
}

/// Calls that make no sense get an error of WASI's, or a trap: they reach nothing.
#[test]
fn hostile_calls() {
    let calls = [
        "(call $check (call $fd_write (i32.const 1) (i32.const -8) (i32.const 1) (i32.const 8)))",
        "(call $check (call $fd_write (i32.const 1) (i32.const 0) (i32.const 0x7fffffff) (i32.const 8)))",
        "(call $check (call $fd_write (i32.const 99) (i32.const 0) (i32.const 1) (i32.const 8)))",
        "(call $check (call $fd_write (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))",
        "(call $check (call $fd_read (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))",
        "(i32.store (i32.const 0) (i32.const 196600)) (i32.store (i32.const 4) (i32.const 64))
         (call $check (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))",
        "(call $check (call $random_get (i32.const 0) (i32.const -1)))",
        "(call $check (call $args_get (i32.const 196604) (i32.const 196607)))",
        "(call $check (call $clock_time_get (i32.const 42) (i64.const 0) (i32.const 64)))",
        "(call $check (call $poll_oneoff (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)))",
        "(call $check (call $poll_oneoff (i32.const 64) (i32.const 64) (i32.const -1) (i32.const 0)))",
    ];
    let mut launch = WasmBox::launch().function("hello.wat", guest::hello());
    for (index, call) in calls.iter().enumerate() {
        launch = launch.function(&format!("f{index}.wat"), command(call));
    }
    let server = launch.start();
    for (index, call) in calls.iter().enumerate() {
        let answer = server.get(&format!("/f{index}"));
        let error = answer.headers.get("wasmbox-error").map(|error| error.as_bytes().to_vec());
        let expected = [&b"guest-exit"[..], b"guest-trap"];
        assert!(error.as_deref().is_some_and(|error| expected.contains(&error)), "{call}: {answer:?}");
    }
    server.get("/hello").ok();
}

/// `wasi:cli/run` says success or failure, no code.
#[test]
fn components_that_are_commands() {
    let component = |result: &str| {
        binary::encoded(&format!(
            "(component (core module $m (func (export \"run\") (result i32) {result}))
               (core instance $i (instantiate $m))
               (func $run (result (result)) (canon lift (core func $i \"run\")))
               (instance $exports (export \"run\" (func $run)))
               (export \"wasi:cli/run@0.2.0\" (instance $exports)))"
        ))
    };
    let server = WasmBox::launch()
        .function("succeeds.wasm", component("(i32.const 0)"))
        .function("fails.wasm", component("(i32.const 1)"))
        .function("traps.wasm", component("unreachable"))
        .start();
    assert_eq!(server.get("/succeeds").ok().body, "");
    assert_eq!(server.get("/fails").problem(500, "guest-exit").member("exit_code"), 1);
    server.get("/traps").problem(500, "guest-trap");
    server.get("/succeeds/below").problem(404, "module-not-found");
}

/// Programs that compilers make.
#[test]
fn built_examples() {
    let server = WasmBox::launch().example("rust-hello.wasm").example("hello.wat").example("echo.wat").start();
    assert_eq!(server.get("/hello").ok().text(), "hello\n");
    assert_eq!(server.post("/echo", "some text").ok().text(), "some text");
    let answer = server.post("/rust-hello?arg=Ada", "some text").ok();
    assert_eq!(answer.text(), "Hello, Ada!\nYou sent 9 bytes: some text\n");
}
