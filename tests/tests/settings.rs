//! Per-function settings: the file beside the module.

use std::{fs, os::unix::fs::symlink};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use wasmbox_tests::{Request, WasmBox, guest, server::half_written, temporary::TempDir};

/// Settings decide what a guest may touch: they come from inside too.
#[test]
fn a_symlink_to_settings_outside_is_refused() {
    let outside = TempDir::new();
    fs::write(outside.path().join("settings.toml"), "args = ['from outside']").expect("a file");
    let launch = WasmBox::launch().function("arguments.wat", guest::arguments());
    symlink(outside.path().join("settings.toml"), launch.functions().join("arguments.toml")).expect("a new symlink");
    let server = launch.start();
    assert!(server.get("/arguments").status >= 400);
}

#[test]
fn bad_settings_harm_their_function_alone() {
    let launch = WasmBox::launch().function("good.wat", guest::hello());
    let granted = launch.directory().join("granted");
    fs::create_dir(&granted).expect("a new directory");
    symlink("/etc", granted.join("way-out")).expect("a new symlink");
    let granted = granted.display();
    let bad = [
        ("syntax", "limits = [".into(), "syntax.toml"),
        ("unknown", "memory-requst = 3".into(), "`memory-requst`: did you mean `memory-request` of [limits]?"),
        ("table", "[limit]\ncpu-quota = 3".into(), "`limit`: did you mean `limits`?"),
        ("limits", "[limits]\ncpu = 3".into(), "`cpu`: did you mean `cpu-quota`?"),
        ("caps", "[caps]\ntimeout = 3".into(), "`timeout`: did you mean `invocation-timeout`?"),
        ("preopens", "[[preopens]]\npath = '/x'\nguests = '/x'".into(), "`guests`: did you mean `guest`?"),
        ("above", "[env]\nA = 'b'\n[caps]\nargs = []".into(), "`args`: did you mean `args`, above all tables?"),
        ("type", "args = 'one'".into(), "args"),
        ("limit", "[limits]\nmemory-request = '1 potato'".into(), "suffix"),
        ("cap", "[caps]\ninvocation-timeout = '16m'".into(), "300000ms"),
        ("default", "[limits]\nmemory-request = '5Gi'".into(), "4096Mi"),
        ("output", "output = 'fax'".into(), "fax"),
        ("variable", "env = { 'A=B' = 'c' }".into(), "A=B"),
        ("nul", "args = [\"a\\u0000b\"]".into(), "NUL"),
        ("root", "preopens = [{ host = '/etc', guest = '/etc' }]".into(), "/etc"),
        ("relative", "preopens = [{ host = 'granted', guest = '/data' }]".into(), "granted"),
        ("dots", format!("preopens = [{{ host = '{granted}/..', guest = '/data' }}]"), "preopen"),
        ("link", format!("preopens = [{{ host = '{granted}/way-out', guest = '/data' }}]"), "preopen"),
        ("host", "allowed-outbound-hosts = ['example.com']".into(), "example.com:80"),
        ("large", format!("# {}", "x".repeat(70_000)), "large.toml"),
    ];
    let mut launch = launch.flag("--preopen-root", granted);
    for (name, settings, _) in &bad {
        launch = launch.function(&format!("{name}.wat"), guest::hello()).function(&format!("{name}.toml"), settings);
    }
    let server = launch.start();
    for (name, _, part) in &bad {
        server.get(&format!("/{name}")).problem(422, "module-invalid").names(&[&format!("{name}.toml"), part]);
        server.get("/good").ok();
    }
    // Repaired without touching the module; removed likewise.
    server.put("syntax.toml", "");
    server.get("/syntax").ok();
    fs::remove_file(server.functions().join("unknown.toml")).expect("the file is there");
    server.get("/unknown").ok();
}

#[test]
fn settings_that_are_no_regular_file() {
    let launch = WasmBox::launch()
        .function("directory.wat", guest::hello())
        .function("fifo.wat", guest::hello())
        .function("dangling.wat", guest::hello())
        .function("good.wat", guest::hello());
    fs::create_dir(launch.functions().join("directory.toml")).expect("a new directory");
    mknodat(CWD, launch.functions().join("fifo.toml"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a FIFO");
    symlink("nothing.toml", launch.functions().join("dangling.toml")).expect("a new symlink");
    let server = launch.start();
    for name in ["directory", "fifo"] {
        assert!(server.get(&format!("/{name}")).status >= 400, "{name}");
    }
    // There is no such file, so there are no settings.
    server.get("/dangling").ok();
    server.get("/good").ok();
}

/// A function does not run without the limits that are about to be written.
#[test]
fn settings_that_are_being_written_are_waited_for() {
    let server = WasmBox::launch().function("hungry.wat", guest::hungry()).start();
    let request = || Request::get("/hungry").header("Invocation-Timeout", "300");
    let file = half_written(&server.functions().join("hungry.toml"), b"[limits]\nmemory-request = '1");
    server.call(request(), "").problem(503, "compiling");
    drop(file);
    fs::write(server.functions().join("hungry.toml"), "[limits]\nmemory-request = '1Mi'\n").expect("a file");
    let problem = server.get("/hungry").problem(500, "guest-memory-limit");
    assert_eq!(problem.member("limit_bytes"), 1 << 20);
}

#[test]
fn changed_settings_are_seen_by_the_next_request() {
    let server = WasmBox::with("arguments.wat", guest::arguments());
    assert_eq!(server.get("/arguments").ok().text(), "arguments\0\n\n");
    for number in 1..4 {
        server.put("arguments.toml", format!("args = ['{number}']"));
        assert_eq!(server.get("/arguments").ok().text(), format!("arguments\0{number}\0\n\n"));
    }
    // The module's code is still the same: it is not compiled again.
    assert_eq!(server.metrics().sum("wasmbox_compilations_total", &[]), 1.0);
}

/// Whoever writes the functions directory runs nothing on the box.
#[test]
fn no_box_runs_a_build() {
    let launch = WasmBox::launch().function("hello.wat", guest::hello());
    let build = "[build]\ncommand = 'touch built'\noutput = 'built'\nwatch = ['functions']\n";
    let server = launch.function("hello.toml", build).start();
    assert_eq!(server.get("/hello").ok().text(), "hello\n");
    server.put("hello.toml", build.replace("built", "again"));
    assert_eq!(server.get("/hello").ok().text(), "hello\n");
    for directory in [server.functions(), server.launched().directory().to_owned()] {
        assert!(!directory.join("built").exists() && !directory.join("again").exists());
    }
}

/// One file for all forms of a name.
#[test]
fn settings_belong_to_the_file_without_its_ending() {
    let server = WasmBox::launch()
        .function("both.wasm", guest::arguments())
        .function("both.wat", guest::arguments())
        .function("both", guest::arguments())
        .function("both.toml", "args = ['set']")
        .start();
    for name in ["both", "both.wat", "both.wasm"] {
        assert_eq!(server.get(&format!("/{name}")).ok().text(), format!("{name}\0set\0\n\n"));
    }
}
