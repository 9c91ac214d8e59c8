//! Authors of modules that are not run: what is parsed, validated and compiled for them costs others nothing.

use std::fmt::Write;

use wasmbox_tests::{Attack, Request, WasmBox, attack::together, binary, binary::encoded};

use crate::assert_coded;

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
