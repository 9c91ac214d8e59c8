//! Authors who write into the log: it is others', too.

use wasmbox_tests::{
    Attack, Request,
    attack::together,
    component::http_guest,
    guest::{command, command_importing},
};

use crate::{
    assert_coded,
    host_memory::{CROWDED, REFUSED, call},
};

/// What one invocation may write to standard error, and what is around its lines. Invocations end after their deadline.
const BOUND: u64 = 64 << 20;

/// A call that the host's library warns of, each time.
#[test]
fn accepting_on_no_socket() {
    let import = r#"(import "wasi_snapshot_preview1" "sock_accept" (func $accept (param i32 i32 i32) (result i32)))"#;
    let guest =
        command_importing(import, "(loop $a (drop (call $accept (i32.const 3) (i32.const 0) (i32.const 0))) (br $a))");
    Attack::within(256).function("accept.wat", guest).run(|server| {
        together(4, |_| assert_coded(&call(server, "/accept"), &[REFUSED, CROWDED].concat()));
    });
}

#[test]
fn outbound_requests_that_are_denied() {
    Attack::within(1024).function("http.wasm", http_guest()).run(|server| {
        together(4, |_| assert_coded(&call(server, "/http/hostile?denied"), &[REFUSED, CROWDED].concat()));
    });
}

/// Each invocation may write a MiB; lines that do not end and control characters are no way around, and all of them are named.
#[test]
fn standard_error_without_end() {
    let line = command(
        "(memory.fill (i32.const 65536) (i32.const 120) (i32.const 65536))
        (loop $a (call $write (i32.const 2) (i32.const 65536) (i32.const 65536)) (br $a))",
    );
    let empty = command(
        "(i32.store8 (i32.const 1024) (i32.const 10))
        (loop $a (call $write (i32.const 2) (i32.const 1024) (i32.const 1)) (br $a))",
    );
    let attack = Attack::within(1024)
        .function("http.wasm", http_guest())
        .function("line.wat", line)
        .function("empty.wat", empty)
        .log_bytes(BOUND);
    attack.run(|server| {
        together(4, |client| {
            let path = ["/line", "/empty", "/http/hostile?stderr", "/http/hostile?stderr-line"][client];
            let request = Request::get(path).header("Memory-Request", "4Mi").header("Invocation-Timeout", "1000");
            assert_coded(&server.call(request, ""), &[REFUSED, CROWDED].concat());
        });
        let log = server.log();
        let unnamed = log.lines().find(|line| line.contains("xxxx") && !line.contains("id="));
        assert_eq!(unnamed, None, "a line of a guest's without its name");
        assert!(!log.contains(['\u{9b}', '\u{202e}', '\r']), "control characters of a guest's");
    });
}

/// A request that is refused costs a line, which is short whatever the request says.
#[test]
fn refusals_with_long_values() {
    Attack::within(256).log_bytes(32 << 20).run(|server| {
        let long = "9".repeat(30_000);
        let before = server.log().len();
        for header in ["Cpu-Quota", "Memory-Request", "Invocation-Timeout"] {
            let answer = server.call(Request::get("/hello").header(header, &long), "");
            assert_coded(&answer, &["bad-limit"]);
            assert!(answer.body.len() < 4096, "{} bytes", answer.body.len());
        }
        let answer = server.get(&format!("/{}", "n".repeat(30_000)));
        assert_coded(&answer, &["bad-module-name", "module-not-found"]);
        assert!(answer.body.len() < 4096, "{} bytes", answer.body.len());
        let grown = server.log().len() - before;
        // The victim's calls are in it, too.
        assert!(grown < 64 << 10, "{grown} bytes");
    });
}
