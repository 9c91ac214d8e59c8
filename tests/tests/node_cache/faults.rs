//! A service that is killed, gone, or of another version: the box compiles itself.

use std::{io::Write, os::unix::net::UnixListener, thread};

use rustix::process::Signal;
use wasmbox_tests::{binary, eventually, process::Process};

use super::{LARGE, counts, node::Node};

#[test]
fn a_service_that_is_killed_is_made_up_for() {
    for victim in [Node::services as fn(&Node) -> Vec<Process>, Node::compilers] {
        let node = Node::start(&[]);
        let server = node.launch().flag("--tiers", "off").function("large.wasm", binary::large(LARGE)).start();
        thread::scope(|scope| {
            let request = scope.spawn(|| server.get("/large").ok());
            let compiler = node.wait_for_compiler();
            victim(&node)[0].signal(Signal::KILL);
            eventually("nothing is left", || (node.services().is_empty() && !compiler.exists()).then_some(()));
            request.join().expect("an answer");
        });
        assert_eq!(counts(&server), (0.0, 1.0, 0.0));
        server.logged(&["WARN", "compile service", "compiling here"]);
        assert!(node.images().is_empty());
    }
}

#[test]
fn without_its_service_a_box_compiles_itself_and_says_so_once() {
    let node = Node::start(&[]);
    let gone = node.directory.path().join("gone.sock");
    let server = node
        .launch_alone()
        .flag("--compile-socket", gone.display())
        .function("first.wasm", binary::large(64 << 10))
        .function("second.wasm", binary::large(80 << 10))
        .start();
    server.get("/first").ok();
    server.get("/second").ok();
    assert_eq!(counts(&server), (0.0, 2.0, 0.0));
    assert_eq!(server.log().matches("does not serve").count(), 1, "{}", server.log());
    server.logged(&["WARN", "gone.sock", "connecting"]);
}

/// After the node's binaries were replaced, boxes of the old ones still run.
#[test]
fn a_service_of_another_version_is_not_used() {
    let node = Node::start(&[]);
    let other = node.directory.path().join("other.sock");
    let listener = UnixListener::bind(&other).expect("a new socket");
    let server = node
        .launch_alone()
        .flag("--compile-socket", other.display())
        .function("module.wasm", binary::large(64 << 10))
        .start();
    thread::scope(|scope| {
        scope.spawn(|| {
            let (mut connection, _) = listener.accept().expect("the box");
            connection.write_all(b"compiles for 0123456789abcdef\n").expect("it reads");
        });
        server.get("/module").ok();
    });
    assert_eq!(counts(&server), (0.0, 1.0, 0.0));
    server.logged(&["WARN", "another version"]);
}
