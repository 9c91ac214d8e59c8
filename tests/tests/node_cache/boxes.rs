//! Boxes of a node, whoever their users are: the second one starts warm.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt,
    process::{Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use wasmbox_tests::{binary, component, eventually, patience::SetOnDrop, server::Launch, workspace};

use super::{LARGE, USER, compilations, counts, node::Node};

#[test]
fn the_second_box_of_a_node_starts_warm() {
    let examples = |launch: Launch| launch.example("rust-hello.wasm").example("rust-http.wasm").start();
    let node = Node::start(&[]);
    let first = examples(node.launch());
    let answer = first.get("/rust-hello?arg=Ada").ok();
    // A component, too.
    first.get("/rust-http").ok();
    assert_eq!(counts(&first), (2.0, 0.0, 0.0));
    let images = node.images();
    assert_eq!(images.len(), 2, "{images:?}");
    for image in &images {
        let metadata = fs::metadata(image).expect("it is there");
        assert_eq!((metadata.uid(), metadata.mode() & 0o777), (0, 0o444));
    }
    // Without the service, since nothing has to be compiled.
    let second = examples(node.launch_alone());
    assert_eq!(second.get("/rust-hello?arg=Ada").ok().body, answer.body);
    second.get("/rust-http").ok();
    assert_eq!(counts(&second), (0.0, 0.0, 2.0));
    assert!(!second.log().contains("WARN"), "{}", second.log());
}

#[test]
fn a_box_without_rights_is_served_too() {
    let drop = ["setpriv", &format!("--reuid={USER}"), &format!("--regid={USER}"), "--clear-groups"].map(str::to_owned);
    let node = Node::start(&[]);
    for expected in [(1.0, 0.0, 0.0), (0.0, 0.0, 1.0)] {
        let server = node.launch().through(drop.clone()).example("rust-hello.wasm").start();
        assert_eq!(server.process().status("Uid"), Some([&*USER.to_string(); 4].join("\t")));
        server.get("/rust-hello").ok();
        assert_eq!(counts(&server), expected);
    }
}

/// As in a pod with `hostUsers: false`, where the node's root is nobody that a box knows.
#[test]
fn a_box_in_a_user_namespace_is_served_too() {
    // Somebody outside makes the namespace, maps its users, and lets go of it when the box is in it.
    let script = "box=$$; namespace() { readlink /proc/$1/ns/user; }
        (unshare --user sleep 60 & holder=$!
            while [ \"$(namespace $holder)\" = \"$(namespace self)\" ]; do sleep 0.01; done
            for map in gid_map uid_map; do echo 0 100000 65536 > /proc/$holder/$map; done
            echo $holder > $0
            while [ \"$(namespace $box)\" = \"$(namespace self)\" ]; do sleep 0.01; done
            kill $holder) &
        until [ -s $0 ]; do sleep 0.01; done
        holder=$(cat $0); rm $0
        exec nsenter --user=/proc/$holder/ns/user --setuid 0 --setgid 0 \"$@\"";
    let node = Node::start(&[]);
    for expected in [(1.0, 0.0, 0.0), (0.0, 0.0, 1.0)] {
        let holder = node.directory.path().join("holder").display().to_string();
        let launch = node.launch().through(["sh", "-c", script, &holder]);
        let server = launch.example("rust-hello.wasm").start();
        let map = fs::read_to_string(format!("/proc/{}/uid_map", server.process().0)).expect("it runs");
        assert!(map.split_whitespace().eq(["0", "100000", "65536"]), "{map}");
        server.get("/rust-hello").ok();
        assert_eq!(counts(&server), expected);
    }
}

/// What compiling a small module costs is less than asking for it.
#[test]
fn small_modules_are_compiled_by_the_box() {
    let node = Node::start(&[]);
    let server = node.launch().function("small.wat", wasmbox_tests::guest::hello()).start();
    server.get("/small").ok();
    assert_eq!(counts(&server), (0.0, 1.0, 0.0));
    assert!(node.images().is_empty());
}

/// Baseline code is the box's own, optimised code the node's.
#[test]
fn what_is_compiled_in_two_steps_is_optimised_by_the_service() {
    let node = Node::start(&[]);
    let server = node.launch().function("large.wasm", binary::large(LARGE)).start();
    assert!(server.get("/large").ok().header("server-timing").contains("desc=baseline"));
    assert!(node.images().is_empty());
    eventually("it is optimised", || {
        let timing = server.get("/large").ok().header("server-timing").to_owned();
        (!timing.contains("desc=baseline")).then_some(())
    });
    let metrics = server.metrics();
    assert_eq!((compilations(&metrics, "node"), compilations(&metrics, "ok")), (1.0, 1.0));
    assert_eq!(node.images().len(), 1);
}

#[test]
fn two_boxes_at_once_compile_once() {
    let node = Node::start(&[]);
    let servers =
        [(); 2].map(|()| node.launch().flag("--tiers", "off").function("large.wasm", binary::large(LARGE)).start());
    let compilers = Mutex::new(BTreeSet::new());
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let _end = SetOnDrop(&done);
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                compilers.lock().expect("nobody panicked").extend(node.compilers());
                thread::sleep(Duration::from_millis(5));
            }
        });
        let requests = servers.each_ref().map(|server| scope.spawn(|| server.get("/large").ok()));
        for request in requests {
            request.join().expect("an answer");
        }
    });
    // Both were served by the one compilation, or the later one found it done.
    let [first, second] = servers.each_ref().map(counts);
    assert_eq!((first.1, second.1), (0.0, 0.0), "{first:?} {second:?}");
    assert_eq!((first.0 + first.2, second.0 + second.2), (1.0, 1.0), "{first:?} {second:?}");
    let compilers = compilers.into_inner().expect("nobody panicked");
    assert_eq!(compilers.len(), 1, "{compilers:?}");
}

#[test]
fn run_uses_the_nodes_cache_too() {
    let node = Node::start(&[]);
    let (enter, mapped) = (node.enter(), node.mapped());
    for _ in 0..2 {
        let output = Command::new(&enter[0])
            .args(&enter[1..])
            .arg(workspace::wasmbox())
            .arg("run")
            .arg(workspace::example("rust-hello.wasm"))
            .env_clear()
            .envs([("NODE_CACHE_DIR", &mapped), ("COMPILE_SOCKET", &node.socket())])
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null())
            .output()
            .expect("unshare, of the package util-linux, runs");
        assert!(output.status.success(), "{output:?}");
        assert_eq!(node.images().len(), 1);
    }
}

/// Neither the cache nor the socket, nor a directory with one of them in it.
#[test]
fn nothing_of_the_nodes_is_granted_to_functions() {
    let node = Node::start(&[]);
    let (whole, mapped) = (node.directory.path(), node.directory.path().join("mapped"));
    let apart = whole.join("apart");
    let socket = apart.join("compile.sock");
    fs::create_dir(&apart).expect("a new directory");
    fs::hard_link(node.socket(), &socket).expect("another name");
    for (root, with) in [(&mapped, &mapped), (&whole.to_owned(), &mapped), (&apart, &socket)] {
        let launch = node.launch_alone().flag("--compile-socket", socket.display());
        let said = launch.flag("--preopen-root", root.display()).refusal();
        let expected = format!("--preopen-root {} overlaps with {}, ", root.display(), with.display());
        assert!(said.contains(&expected), "{expected:?} is not in {said}");
    }
}

/// What is off in a box is off in that box alone: it does not ask the node for what it would not run.
#[test]
fn what_a_box_does_not_offer_is_not_compiled_for_it() {
    let node = Node::start(&[]);
    let launch = || node.launch().flag("--tiers", "off");
    let importing = r#"(component (import "wasi:keyvalue/store@0.2.0-draft" (instance (export "f" (func)))))"#;
    // Compiling it does not end.
    let server = launch().function("kv.wasm", binary::exhausting_component(importing)).start();
    server.get("/kv").problem(422, "module-invalid").names(&["--keyvalue-dir"]);
    assert_eq!((counts(&server), compilations(&server.metrics(), "invalid")), ((0.0, 0.0, 0.0), 1.0));
    assert!(node.images().is_empty());
    // Where it is on the node is asked.
    let launch = launch().function("kv.wasm", component::keyvalue_guest());
    let kept = launch.directory().join("kept");
    let server = launch.flag("--keyvalue-dir", kept.display()).start();
    server.get("/kv/list").ok();
    assert_eq!(counts(&server), (1.0, 0.0, 0.0));
}
