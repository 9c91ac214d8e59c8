//! Authors of modules that are not run: what is parsed, validated and compiled for them costs others nothing.

use std::fmt::Write;

use wasmbox_tests::{Attack, Request, WasmBox, attack::together, binary, binary::encoded};

use crate::assert_coded;

/// What a module gets that is not accepted, and what its callers get meanwhile.
const INVALID: &[&str] = &["module-invalid", "compiling", "guest-trap"];

/// Calls a function for as long as it is being compiled; gives the last answer's code, or nothing for 200.
fn settled(server: &WasmBox, path: &str) -> Option<String> {
    wasmbox_tests::eventually(&format!("{path} is compiled, or refused"), || {
        let answer =
            server.call(Request::get(path).header("Invocation-Timeout", "8000").header("Memory-Request", "4"), "");
        let code = answer.headers.get("wasmbox-error").map(|code| code.to_str().expect("a code").to_owned());
        if code.as_deref() == Some("compiling") { None } else { Some(code) }
    })
}

/// 190 KB that take gigabytes and half a minute to compile.
fn expensive(seed: usize) -> Vec<u8> {
    let mut text = format!("(module (global (mut i32) (i32.const {seed})) (func (export \"_start\")");
    text.push_str(&"(local i32)".repeat(20_000));
    text.push_str(&"(loop ".repeat(300));
    for local in 0..20_000 {
        let _ = write!(text, "(local.set {local} (i32.add (local.get {}) (i32.const 1)))", (local * 7 + 1) % 20_000);
    }
    text.push_str(&"(br_if 0 (local.get 0)))".repeat(300));
    text.push_str("))");
    encoded(&text)
}

/// Limits of the compiler's are for its own process; the box and its other customers do not notice, and it is not tried again.
#[test]
fn a_module_that_is_expensive_to_compile() {
    Attack::within(512).function("expensive.wasm", expensive(0)).run(|server| {
        let called = || {
            let request = Request::get("/expensive").header("Invocation-Timeout", "4000").header("Memory-Request", "1");
            let answer = server.call(request, "");
            assert_coded(&answer, &["module-invalid", "compiling", "deadline-exceeded"]);
            answer.header("wasmbox-error").to_owned()
        };
        let begun = std::time::Instant::now();
        while called() == "compiling" && begun.elapsed() < std::time::Duration::from_secs(25) {}
        together(4, |_| {
            called();
        });
    });
}

#[test]
fn many_modules_that_are_expensive_to_compile() {
    let attack = (0..8)
        .fold(Attack::within(512), |attack, seed| attack.function(&format!("expensive{seed}.wasm"), expensive(seed)));
    attack.run(|server| {
        together(16, |client| {
            let path = format!("/expensive{}", client % 8);
            let request = Request::get(&path).header("Invocation-Timeout", "2000").header("Memory-Request", "1");
            let answer = server.call(request, "");
            if answer.status != 200 {
                assert_coded(&answer, &["module-invalid", "compiling", "deadline-exceeded", "queue-timeout"]);
            }
        });
    });
}

/// Text needs a hundred times its size to be parsed.
#[test]
fn long_texts() {
    let text = format!("(module (func (export \"_start\")) {})", "(func)".repeat(2_000_000));
    let attack = (0..16).fold(Attack::within(512), |attack, index| attack.function(&format!("text{index}.wat"), &text));
    attack.run(|server| {
        together(16, |client| {
            let request = Request::get(format!("/text{client}")).header("Invocation-Timeout", "3000");
            assert_coded(&server.call(request, ""), &["module-invalid", "compiling"]);
        });
    });
}

/// They are read before they are compiled, and wait there.
#[test]
fn forty_large_modules_at_once() {
    let start = "(module (func (export \"_start\") (unreachable)))";
    let attack = (0..40u8).fold(Attack::within(512), |attack, index| {
        let mut module = encoded(start);
        module.extend(binary::custom_section("large", &vec![index; 30 << 20]));
        attack.function(&format!("large{index}.wasm"), module)
    });
    attack.run(|server| {
        std::thread::scope(|scope| {
            for index in 0..40 {
                scope.spawn(move || {
                    let request = Request::get(format!("/large{index}")).header("Invocation-Timeout", "5000");
                    let answer = server.call(request.header("Memory-Request", "1"), "");
                    assert_coded(
                        &answer,
                        &["guest-trap", "module-invalid", "compiling", "queue-timeout", "queue-full"],
                    );
                });
            }
        });
    });
}

/// Names of 100 KB in what is missing: they are in the reason, which is in the answer and the log of each request.
#[test]
fn long_names_of_imports() {
    let name = "n".repeat(100_000);
    let text = format!("(module (import \"{name}\" \"{name}\" (func)) (func (export \"_start\")))");
    let line = format!("(module (func (export \"_start\") {name}");
    let attack = Attack::within(256).function("names.wasm", encoded(&text)).function("line.wat", line);
    attack.log_bytes(8 << 20).run(|server| {
        for path in ["/names", "/line"] {
            assert_eq!(settled(server, path).as_deref(), Some("module-invalid"));
            let before = server.log().len();
            let answer = server.get(path);
            assert_coded(&answer, &["module-invalid"]);
            assert!(answer.body.len() < 8 << 10, "{} bytes", answer.body.len());
            assert!(server.log().len() - before < 8 << 10, "{} bytes", server.log().len() - before);
        }
        let listed = server.admin("/functions").ok();
        assert!(listed.body.len() < 32 << 10, "{} bytes", listed.body.len());
    });
}

/// Modules of extremes, each of which is valid as far as it goes.
#[test]
fn modules_of_extremes() {
    let many = |what: &str, number: usize| what.repeat(number);
    let run = "(func (export \"_start\") unreachable)";
    let exports: String = (0..100_000).map(|index| format!("(export \"e{index}\" (func 0))")).collect();
    let data: String = (0..50_000).map(|index| format!("(data (i32.const {index}) \"x\")")).collect();
    let switch = format!("{} unreachable", many("(br_table 0 0 0 0 0 0 0 0 (i32.const 1))", 100_000));
    let modules = [
        ("types", format!("(module {} {run})", many("(type (func (param i32)))", 999_000))),
        ("functions", format!("(module {run} {})", many("(func)", 900_000))),
        ("exports", format!("(module {run} {exports})")),
        ("data", format!("(module (memory 2) {run} {data})")),
        (
            "image",
            format!("(module (memory 65536) (data (i32.const 4294967000) \"x\") (data (i32.const 0) \"x\") {run})"),
        ),
        ("nested", format!("(module (func (export \"_start\") {} {}))", many("(block ", 30_000), many(")", 30_000))),
        ("wide", format!("(module (func (export \"_start\") {switch}))")),
        ("params", format!("(module (func (param {})) {run})", many("i64 ", 1000))),
        ("elements", format!("(module (table 1 funcref) (elem func {}) {run})", many("0 ", 1_000_000))),
        ("components", format!("{}{}", many("(component ", 5000), many(")", 5000))),
    ];
    let attack = modules.iter().fold(Attack::within(512), |attack, (name, text)| {
        let binary = wat_or_text(text);
        attack.function(&format!("{name}.wasm"), binary)
    });
    attack.run(|server| {
        together(modules.len(), |client| {
            let request = Request::get(format!("/{}", modules[client].0)).header("Invocation-Timeout", "3000");
            let answer = server.call(request.header("Memory-Request", "8"), "");
            // Some of them do nothing.
            if answer.status != 200 {
                assert_coded(
                    &answer,
                    &[INVALID, &["guest-memory-limit", "deadline-exceeded", "queue-timeout"]].concat(),
                );
            }
        });
    });
}

/// The binary, where the text's parser takes it.
fn wat_or_text(text: &str) -> Vec<u8> {
    if text.starts_with("(component (component") { text.as_bytes().to_vec() } else { encoded(text) }
}

/// Bytes that are nearly modules: cut off, with lengths that lie, with a count of four thousand millions.
#[test]
fn modules_that_are_broken() {
    let whole = binary::large(100_000);
    let mut broken: Vec<Vec<u8>> = (1..12).map(|part| whole[..whole.len() * part / 12].to_vec()).collect();
    for section in 0..14u8 {
        broken.push([b"\0asm\x01\0\0\0", &[section][..], b"\xff\xff\xff\xff\x0f"].concat());
        broken.push([b"\0asm\x01\0\0\0", &[section][..], b"\x05\xff\xff\xff\xff\x0f"].concat());
        broken.push([b"\0asm\x0d\0\x01\0", &[section][..], b"\x05\xff\xff\xff\xff\x0f"].concat());
    }
    let number = broken.len();
    let attack = broken
        .into_iter()
        .enumerate()
        .fold(Attack::within(256), |attack, (index, bytes)| attack.function(&format!("broken{index}.wasm"), bytes));
    attack.run(|server| {
        for index in 0..number {
            assert_eq!(settled(server, &format!("/broken{index}")).as_deref(), Some("module-invalid"), "{index}");
        }
    });
}
