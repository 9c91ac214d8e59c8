//! The command line: `wasmbox run`, `compile`, `explain`, `completions`, `--help`. `status` and `doctor` have files of their own.

use std::{
    fs,
    io::{Read, Write},
    path::Path,
    process::{Command, Output, Stdio},
};

use wasmbox_tests::{WasmBox, component::http_guest, eventually, guest, temporary::TempDir, workspace};

/// `wasmbox` with an empty environment.
fn wasmbox(arguments: &[&str]) -> Command {
    let mut command = Command::new(workspace::wasmbox());
    command.args(arguments).env_clear().stdin(Stdio::null());
    command
}

/// Runs it to its end, with `input`.
fn output(mut command: Command, input: &[u8]) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    // One that does not read its input is no error.
    let _ = child.stdin.take().expect("a pipe").write_all(input);
    child.wait_with_output().expect("it ends")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("the output is text")
}

/// A directory with one module, and `wasmbox run` of it.
struct Module(TempDir);

impl Module {
    fn new(content: impl AsRef<[u8]>) -> Module {
        let directory = TempDir::new();
        fs::write(directory.path().join("module.wat"), content).expect("a file");
        Module(directory)
    }

    fn path(&self) -> String {
        self.0.path().join("module.wat").display().to_string()
    }

    fn run(&self, flags: &[&str], arguments: &[&str]) -> Command {
        let mut command = wasmbox(&["run", "--cache-dir=none"]);
        command.args(flags).arg(self.path()).args(arguments);
        command
    }
}

#[test]
fn run_has_the_callers_streams_and_arguments() {
    let module = Module::new(guest::arguments());
    let every_byte: Vec<u8> = (0..=255).collect();
    let ran = output(module.run(&[], &["a", "--help", "-x", "", "é b"]), &every_byte);
    assert_eq!(ran.status.code(), Some(0), "{ran:?}");
    let expected = ["module.wat\0a\0--help\0-x\0\0é b\0\n\n".as_bytes(), &every_byte].concat();
    assert_eq!(ran.stdout, expected);
    assert_eq!(text(&ran.stderr), "");
    // Large, both ways.
    let module = Module::new(guest::echo());
    let large = vec![b'x'; 50_000];
    assert_eq!(output(module.run(&[], &[]), &large).stdout, large);
    assert_eq!(output(module.run(&[], &[]), b"").stdout, b"");
    let errors = guest::command("(call $copy (i32.const 0) (i32.const 2)) (call $exit (i32.const 4))");
    let ran = output(Module::new(errors).run(&[], &[]), b"to stderr\n");
    assert_eq!((ran.status.code(), text(&ran.stdout), text(&ran.stderr)), (Some(4), "", "to stderr\n"));
}

#[test]
fn run_ends_with_the_code_that_says_how() {
    let codes =
        Module::new(guest::command("(call $exit (call $read (i32.const 0) (i32.const 65536) (i32.const 256)))"));
    for code in [0, 1, 3, 42, 125] {
        let ran = output(codes.run(&[], &[]), &vec![b'x'; code]);
        assert_eq!(ran.status.code(), i32::try_from(code).ok(), "{ran:?}");
    }
    for (module, flags, code, message) in [
        (guest::command("unreachable"), &[][..], 134, "unreachable"),
        (guest::recursion(), &[], 134, "call stack exhausted"),
        (guest::busy(), &["--invocation-timeout", "300ms"], 124, "300 ms"),
        (guest::sleeping(), &["--invocation-timeout", "300"], 124, "300 ms"),
        (guest::hungry(), &["--memory-request", "3Mi"], 137, "3145728"),
        ("not a module".into(), &[], 1, "signatures"),
        ("(module)".into(), &[], 1, "_start"),
    ] {
        let ran = output(Module::new(module).run(flags, &[]), b"");
        assert_eq!(ran.status.code(), Some(code), "{message}: {ran:?}");
        assert!(text(&ran.stderr).starts_with("wasmbox: ") && text(&ran.stderr).contains(message), "{ran:?}");
    }
    let ran = output(wasmbox(&["run", "--cache-dir=none", "/nowhere/module.wasm"]), b"");
    assert_eq!(ran.status.code(), Some(1));
    assert!(text(&ran.stderr).contains("/nowhere/module.wasm"), "{ran:?}");
    let ran = output(Module::new(http_guest()).run(&[], &[]), b"");
    assert_eq!(ran.status.code(), Some(1));
    assert!(text(&ran.stderr).contains("wasmbox serve --functions-dir"), "{ran:?}");
}

/// Input that does not end must not keep a guest from being ended; and a reader that leaves ends the writer.
#[test]
fn run_with_streams_that_do_not_end() {
    let module = Module::new(guest::echo());
    let mut command = module.run(&["--invocation-timeout", "300ms"], &[]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it runs");
    let status = eventually("the end", || child.try_wait().expect("the child is ours"));
    assert_eq!(status.code(), Some(124));
    let module = Module::new(guest::flood(0));
    let mut child = module.run(&[], &[]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it runs");
    let mut first = [0; 1000];
    child.stdout.take().expect("a pipe").read_exact(&mut first).expect("some output");
    let status = eventually("the end", || child.try_wait().expect("the child is ours"));
    assert!(!status.success(), "{status}");
}

#[test]
fn run_grants_what_flags_say_and_nothing_else() {
    let module = Module::new(guest::command("(call $print_environment)"));
    let mut command = module.run(&["--env", "A=1", "--env", "B=x=y", "--env", "C=", "--env", "GIVEN"], &[]);
    command.env("SECRET", "of the caller").env("GIVEN", "by name");
    let ran = output(command, b"");
    assert_eq!(text(&ran.stdout), "A=1\0B=x=y\0C=\0GIVEN=by name\0", "{ran:?}");
    for bad in ["no-value", "=x"] {
        let ran = output(module.run(&["--env", bad], &[]), b"");
        assert_eq!(ran.status.code(), Some(2), "{ran:?}");
        assert!(text(&ran.stderr).contains("NAME=VALUE"), "{ran:?}");
    }
    // Makes `new` below descriptor 3.
    let makes = guest::command_with(
        "(data (i32.const 8192) \"new\")",
        "(call $check (call $path_open (i32.const 3) (i32.const 0) (i32.const 8192) (i32.const 3) (i32.const 1)
           (i64.const 64) (i64.const 0) (i32.const 0) (i32.const 32)))",
    );
    let module = Module::new(makes);
    let data = TempDir::new();
    let host = data.path().display();
    for (flags, allowed) in [
        (vec![], false),
        (vec!["--dir".to_owned(), format!("{host}:/data")], false),
        (vec!["--dir".to_owned(), format!("{host}:/data:rw")], true),
    ] {
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let ran = output(module.run(&flags, &[]), b"");
        assert_eq!(ran.status.success(), allowed, "{flags:?}: {ran:?}");
        assert_eq!(data.path().join("new").exists(), allowed);
    }
    assert_eq!(output(module.run(&["--dir", "/tmp"], &[]), b"").status.code(), Some(2));
}

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

/// By its code, and by the type of an answer.
#[test]
fn explain_has_a_section_for_each_code() {
    let explain = |arguments: &[&str]| output(wasmbox(&[&["explain"], arguments].concat()), b"");
    let listed = explain(&[]);
    assert_eq!(listed.status.code(), Some(0), "{listed:?}");
    let mut codes: Vec<&str> = text(&listed.stdout).lines().filter_map(|line| line.split(' ').nth(1)).collect();
    let document = fs::read_to_string(workspace::root().join("docs/errors.md")).expect("the document");
    let sections: Vec<(&str, &str)> =
        document.split("\n## ").skip(1).map(|section| section.split_once('\n').expect("a heading")).collect();
    let mut headings: Vec<&str> = sections.iter().map(|(heading, _)| *heading).collect();
    codes.sort_unstable();
    headings.sort_unstable();
    assert_eq!(codes, headings);
    for (code, section) in sections {
        for name in [code.to_owned(), format!("urn:wasmbox:problem:{code}")] {
            let ran = output(wasmbox(&["explain", &name]), b"");
            assert_eq!(ran.status.code(), Some(0), "{ran:?}");
            assert_eq!(text(&ran.stdout), format!("{code}\n\n{}\n", section.trim().replace("**", "")));
        }
    }
    for (wrong, nearest) in [("guest-trapp", "guest-trap"), ("queue-ful", "queue-full"), ("bad_limit", "bad-limit")] {
        let ran = explain(&[wrong]);
        assert_eq!(ran.status.code(), Some(2), "{ran:?}");
        assert!(text(&ran.stderr).contains(&format!("'{nearest}'")), "{ran:?}");
    }
}

#[test]
fn unknown_flags_name_the_nearest() {
    for (wrong, nearest) in [
        (["serve", "--functions"], "--functions-dir"),
        (["serve", "--admin-prt"], "--admin-port"),
        (["doctor", "--cache"], "--cache-dir"),
        (["run", "--memory"], "--memory-request"),
        (["status", "--admin"], "--admin-port"),
    ] {
        let ran = output(wasmbox(&wrong), b"");
        assert_eq!(ran.status.code(), Some(2), "{ran:?}");
        assert!(text(&ran.stderr).contains(&format!("'{nearest}'")), "{ran:?}");
    }
}

#[test]
fn completions() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ran = output(wasmbox(&["completions", shell]), b"");
        assert_eq!(ran.status.code(), Some(0), "{ran:?}");
        assert!(text(&ran.stdout).contains("functions-dir"), "{shell}");
        // The scripts of the other shells know no values of arguments without a flag.
        if ["bash", "zsh"].contains(&shell) {
            assert!(text(&ran.stdout).contains("guest-no-response"), "{shell}");
            assert!(text(&ran.stdout).contains("assemblyscript"), "{shell}");
        }
    }
    let script = output(wasmbox(&["completions", "bash"]), b"").stdout;
    let mut bash = Command::new("bash");
    bash.arg("-n");
    let checked = output(bash, &script);
    assert!(checked.status.success() && checked.stderr.is_empty(), "{checked:?}");
    assert_eq!(output(wasmbox(&["completions", "tcsh"]), b"").status.code(), Some(2));
}

/// A page for each command that is not hidden.
#[test]
fn man_pages() {
    let directory = TempDir::new();
    let pages = directory.path().join("new/man1");
    let ran = output(wasmbox(&["man", &pages.display().to_string()]), b"");
    assert_eq!(ran.status.code(), Some(0), "{ran:?}");
    let mut names: Vec<String> = fs::read_dir(&pages)
        .expect("the directory was made")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
        .collect();
    names.sort();
    let commands = [
        "build",
        "compile",
        "completions",
        "dev",
        "doctor",
        "explain",
        "invoke",
        "list",
        "logs",
        "new",
        "pull",
        "push",
        "rm",
        "rollback",
        "run",
        "serve",
        "status",
        "top",
    ];
    let mut expected: Vec<String> = commands.iter().map(|command| format!("wasmbox-{command}.1")).collect();
    expected.push("wasmbox.1".into());
    assert_eq!(names, expected);
    let page = fs::read_to_string(pages.join("wasmbox-serve.1")).expect("the page");
    for part in [".TH wasmbox-serve 1", "functions\\-dir", "WEBSERVER_PORT", "SIGTERM"] {
        assert!(page.contains(part), "{part} is not in {page}");
    }
    let ran = output(wasmbox(&["man", "/dev/null"]), b"");
    assert_eq!(ran.status.code(), Some(1));
    assert!(text(&ran.stderr).contains("/dev/null: "), "{ran:?}");
}

#[test]
fn help_teaches() {
    let help = |arguments: &[&str]| {
        let ran = output(wasmbox(arguments), b"");
        assert_eq!(ran.status.code(), Some(0), "{ran:?}");
        text(&ran.stdout).to_owned()
    };
    let overview = help(&["--help"]);
    for part in [
        "new",
        "dev",
        "build",
        "invoke",
        "serve",
        "run",
        "compile",
        "status",
        "doctor",
        "explain",
        "completions",
        "curl ",
        "wasmbox run functions/hello.wasm",
        "environment",
    ] {
        assert!(overview.contains(part), "{part} is not in {overview}");
    }
    let serve = help(&["serve", "--help"]);
    for part in [
        "Cpu-Quota",
        "Memory-Request",
        "Invocation-Timeout",
        "NAME.toml",
        "SIGTERM",
        "8095",
        "8086",
        "WEBSERVER_PORT",
        "HEALTHCHECK_PORT",
        "MEMORY_LIMIT",
        "TRUST_PRECOMPILED",
        "WASM_RUNTIME",
        "LOG_LEVEL",
        "READINESS_UTILIZATION_TRESHOLD",
        "QP_HOST",
        "--config",
    ] {
        assert!(serve.contains(part), "{part} is not in {serve}");
    }
    let run = help(&["run", "--help"]);
    for part in ["134", "124", "137", "--env", "--dir", "--memory-request"] {
        assert!(run.contains(part), "{part} is not in {run}");
    }
    for (command, parts) in [
        (
            "status",
            &[
                "--address",
                "--admin-host",
                "--admin-port",
                "--json",
                "--watch",
                "HEALTHCHECK_PORT",
                "8086",
                "kubectl exec",
                "Exit code 1",
            ][..],
        ),
        ("doctor", &["ok", "warn", "FAIL", "Exit code 1", "--functions-dir", "CACHE_DIR"]),
    ] {
        let text = help(&[command, "--help"]);
        for part in parts {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }
    assert!(help(&["--version"]).starts_with("wasmbox "));
    // Without a command, or with a wrong one, it says which there are.
    for wrong in [&[][..], &["sevre"]] {
        let ran = output(wasmbox(wrong), b"");
        assert_eq!(ran.status.code(), Some(2), "{ran:?}");
        assert!(text(&ran.stderr).contains("serve"), "{ran:?}");
    }
}

/// With no configuration at all it serves ./functions on ports 8095 and 8086, and says what is missing if it cannot.
#[test]
fn serve_says_what_prevents_its_start() {
    let directory = TempDir::new();
    let serve = |arguments: &[&str]| {
        let mut command = wasmbox(&["serve"]);
        command.args(arguments).current_dir(directory.path());
        let mut child = command.stderr(Stdio::piped()).spawn().expect("it runs");
        let status = eventually("a refusal", || child.try_wait().expect("the child is ours"));
        let mut said = String::new();
        child.stderr.take().expect("a pipe").read_to_string(&mut said).expect("text");
        assert_eq!(status.code(), Some(1), "{said}");
        said
    };
    let said = serve(&[]);
    assert!(said.contains("functions") && said.contains("--functions-dir"), "{said}");
    fs::write(directory.path().join("functions"), "").expect("a file");
    let said = serve(&[]);
    assert!(said.contains("is not a directory") && said.contains("--functions-dir"), "{said}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("a bound socket").port();
    for (flag, other, variable) in
        [("--port", "--admin-port", "WEBSERVER_PORT"), ("--admin-port", "--port", "HEALTHCHECK_PORT")]
    {
        let said = serve(&[
            "--functions-dir=.",
            "--cache-dir=none",
            "--host=127.0.0.1",
            "--admin-host=127.0.0.1",
            &format!("{flag}={port}"),
            &format!("{other}=0"),
        ]);
        let line = said.lines().find(|line| line.starts_with("wasmbox: ")).expect("the reason");
        for part in [&port.to_string(), flag, variable, "in use", "choose another with"] {
            assert!(line.contains(part), "{part} is not in {line}");
        }
        assert_eq!(line.matches("in use").count(), 1, "said twice: {line}");
    }
    // An address that this machine does not have (RFC 5737).
    for (flag, other, variable) in
        [("--host", "--admin-host", "WEBSERVER_HOST"), ("--admin-host", "--host", "HEALTHCHECK_HOST")]
    {
        let said = serve(&[
            "--functions-dir=.",
            "--cache-dir=none",
            "--port=0",
            "--admin-port=0",
            &format!("{flag}=192.0.2.1"),
            &format!("{other}=127.0.0.1"),
        ]);
        let line = said.lines().find(|line| line.starts_with("wasmbox: ")).expect("the reason");
        for part in ["192.0.2.1", flag, variable, "choose another with"] {
            assert!(line.contains(part), "{part} is not in {line}");
        }
    }
}
