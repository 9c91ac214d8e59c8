//! The service: what the process that compiles can reach, and what becomes of modules, good and bad.

use std::{fs, io::Write, net::Shutdown};

use rustix::process::Signal;
use wasmbox_tests::{WasmBox, binary, compiler::assert_confined, eventually};

use super::{
    LARGE, compilations,
    node::{Node, line},
};

#[test]
fn the_process_that_compiles_can_reach_nothing() {
    let node = Node::start(&[]);
    let mut connection = node.connect();
    connection.write_all(&binary::large(LARGE)).expect("it reads");
    connection.shutdown(Shutdown::Write).expect("connected");
    let compiler = node.wait_for_compiler();
    assert_confined(compiler, &["/dev/null"]);
    let status = |name: &str| compiler.status(name).expect("proc(5): status");
    // A user that nobody else is.
    let user = (0x7000_0000 + node.services()[0].0).to_string();
    for name in ["Uid", "Gid"] {
        assert_eq!(status(name).split('\t').collect::<Vec<_>>(), [&user; 4]);
    }
    assert_eq!(status("Groups"), "");
    assert!(status("NSpid").ends_with("\t1"), "the first of its own namespace");
    let pid = compiler.0;
    for namespace in ["mnt", "net", "ipc", "uts", "pid", "cgroup"] {
        let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{namespace}")).expect("a namespace");
        assert_ne!(of(&pid.to_string()), of("self"), "{namespace}");
    }
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).expect("it compiles");
    assert_eq!(mounts.lines().count(), 1, "{mounts}");
    assert!(mounts.contains(" / / ro,nosuid,nodev,noexec"), "{mounts}");
    assert_eq!(fs::read_dir(format!("/proc/{pid}/root/")).expect("it compiles").count(), 0);
    compiler.signal(Signal::CONT);
    assert_eq!(line(&mut connection), "done");
}

#[test]
fn what_is_no_module_leaves_nothing() {
    let node = Node::start(&["--max-module-size=1Mi"]);
    for garbage in [&b""[..], b"\0", b"hello", b"\0asm", b"\0asm\x01\0\0\0\xff\xff\xff", &[0xff; 1 << 20], b"(module)"]
    {
        let said = node.send(garbage);
        assert!(said.starts_with("failed: "), "{} bytes: {said}", garbage.len());
    }
    // Native code is none either, though it is what the cache holds.
    assert_eq!(node.send(&binary::large(64 << 10)), "done");
    let native = fs::read(&node.images()[0]).expect("an image");
    assert!(node.send(&native).starts_with("failed: "));
    let said = node.send(&binary::large(2 << 20));
    assert!(said.contains("refused") && said.contains("larger than 1048576 bytes"), "{said}");
    assert_eq!(node.images().len(), 1);
}

#[test]
fn a_module_that_does_not_arrive_is_not_waited_for() {
    let node = Node::start(&["--receive-time=500"]);
    let mut slow = node.connect();
    slow.write_all(b"\0asm").expect("it reads");
    let said = line(&mut slow);
    assert!(said.contains("refused") && said.contains("did not arrive within 500 ms"), "{said}");
    assert!(node.images().is_empty());
}

/// Others may wait for the same module.
#[test]
fn a_compilation_outlives_its_box() {
    let node = Node::start(&[]);
    let mut connection = node.connect();
    connection.write_all(&binary::large(LARGE)).expect("it reads");
    connection.shutdown(Shutdown::Write).expect("connected");
    let compiler = node.wait_for_compiler();
    drop(connection);
    compiler.signal(Signal::CONT);
    eventually("the code is there", || (node.images().len() == 1).then_some(()));
}

#[test]
fn compiling_for_too_long_is_given_up() {
    let node = Node::start(&["--compile-time=100"]);
    let said = node.send(&binary::large(2 * LARGE));
    assert!(said.contains("failed") && said.contains("longer than 100 ms"), "{said}");
    eventually("nothing runs", || node.services().is_empty().then_some(()));
    assert!(node.images().is_empty());
}

/// What the node's compiler could not compile, the box does not try to.
#[test]
fn a_module_that_exhausts_the_compiler_is_compiled_nowhere_else() {
    let node = Node::start(&["--compile-memory=128Mi"]);
    let server = node.launch().function("exhausting.wasm", binary::exhausting(&[])).start();
    for _ in 0..2 {
        server.get("/exhausting").problem(422, "module-invalid").names(&["128 MiB"]);
    }
    let metrics = server.metrics();
    assert_eq!(compilations(&metrics, "node-failed"), 1.0);
    for result in ["ok", "invalid", "failed"] {
        assert_eq!(compilations(&metrics, result), 0.0, "{result}");
    }
    assert!(node.images().is_empty());
}

#[test]
fn an_invalid_module_is_what_it_always_is() {
    // Large enough to be asked for.
    let text = "(module (func (export \"_start\") (drop)))";
    let mut module = binary::encoded(text);
    module.extend(binary::custom_section("filling", &vec![7; 64 << 10]));
    let node = Node::start(&[]);
    let server = node.launch().function("bad.wasm", &module).start();
    let alone = WasmBox::with("bad.wasm", &module);
    let details = [&server, &alone].map(|server| server.get("/bad").problem(422, "module-invalid").detail().to_owned());
    assert_eq!(details[0], details[1]);
    let metrics = server.metrics();
    assert_eq!((compilations(&metrics, "node-failed"), compilations(&metrics, "invalid")), (1.0, 0.0));
    assert!(!server.log().contains("compile service"), "{}", server.log());
    assert!(node.images().is_empty());
}
