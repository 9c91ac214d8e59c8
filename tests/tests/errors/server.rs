//! Errors for which neither the request nor the guest is to blame: 500, 503, 504.

use std::{fs, os::unix::fs::PermissionsExt};

use wasmbox_tests::{Request, WasmBox, Wire, guest, server::half_written};

use super::{narrow, without_its_preopen};

/// Starts an invocation that goes on until the connection is dropped.
fn occupy(server: &WasmBox) -> Wire {
    let wire = server.wire("GET /sleeping HTTP/1.1\r\nHost: box\r\n\r\n");
    server.wait_until_running("sleeping", 1);
    wire
}

#[test]
fn preopen_unavailable() {
    // Neither the client nor the guest is to blame.
    without_its_preopen().get("/hello").problem(500, "preopen-unavailable").names(&["/data"]);
}

#[test]
fn internal() {
    let launch = WasmBox::launch().function("hello.wat", guest::hello()).function("secret.wat", guest::hello());
    fs::set_permissions(launch.directory(), fs::Permissions::from_mode(0o755)).expect("the directory is ours");
    // A file that the box's user may not read: neither the client nor the guest is to blame.
    let secret = launch.functions().join("secret.wat");
    fs::set_permissions(secret, fs::Permissions::from_mode(0o000)).expect("the file is ours");
    let user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let server = launch.flag("--cache-dir", "none").through(user).start();
    server.get("/hello").ok();
    server.get("/secret").problem(500, "internal");
}

#[test]
fn queue_full() {
    let server = narrow(0);
    let running = occupy(&server);
    server.get("/hello").problem(503, "queue-full").names(&["64 MiB"]);
    drop(running);
    server.wait_until_idle();
    server.get("/hello").ok();
}

/// The box has less than any process needs, so a guest can never have what it wants.
#[test]
fn evicted() {
    let server = WasmBox::launch()
        .function("hello.wat", guest::hello())
        .env("MEMORY_LIMIT", 1)
        .flag("--concurrent-resource-request", 1000)
        .start();
    server.get("/hello").problem(503, "evicted").names(&["memory"]);
}

#[test]
fn queue_timeout() {
    let server = narrow(64);
    let running = occupy(&server);
    server.call(Request::get("/hello").header("Invocation-Timeout", "100"), "").problem(503, "queue-timeout");
    drop(running);
    server.wait_until_idle();
    server.get("/hello").ok();
}

#[test]
fn draining() {
    let mut server = WasmBox::launch().function("busy.wat", guest::busy()).flag("--drain-timeout", "300ms").start();
    let mut running = server.wire("GET /busy HTTP/1.1\r\nHost: box\r\n\r\n");
    server.wait_until_running("busy", 1);
    server.signal(rustix::process::Signal::TERM);
    running.answer().problem(503, "draining");
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn compiling() {
    let server = WasmBox::launch().start();
    let file = half_written(&server.functions().join("hello.wat"), guest::hello().as_bytes());
    let request = || Request::get("/hello").header("Invocation-Timeout", "200");
    server.call(request(), "").problem(503, "compiling").names(&["hello.wat"]);
    drop(file);
    server.get("/hello").ok();
}

#[test]
fn deadline_exceeded() {
    let server = WasmBox::with("busy.wat", guest::busy());
    // Compiled before its time counts.
    server.call(Request::options("/busy"), "");
    let answer = server.call(Request::get("/busy").header("Invocation-Timeout", "300"), "");
    answer.problem(504, "deadline-exceeded").names(&["300 ms", "Invocation-Timeout"]);
}
