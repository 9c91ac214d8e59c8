//! `wasmbox run`: one module, with the caller's streams.

use std::{
    fs,
    io::Read,
    process::{Command, Stdio},
};

use wasmbox_tests::{component::http_guest, eventually, guest, temporary::TempDir};

use super::{output, text, wasmbox};

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
