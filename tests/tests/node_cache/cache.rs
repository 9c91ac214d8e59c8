//! The cache: who may write it, what is in it, and how much.

use std::{
    fs::{self, Permissions},
    os::unix::{
        fs::{PermissionsExt, chown},
        net::UnixStream,
    },
};

use wasmbox_tests::{WasmBox, binary, server::Launch};

use super::{
    USER, counts,
    node::{Node, line},
};

#[test]
fn a_cache_that_can_be_written_is_refused() {
    let node = Node::start(&[]);
    let refusal = |launch: Launch, parts: &[&str]| {
        let said = launch.refusal();
        for part in parts.iter().chain(&["--node-cache-dir"]) {
            assert!(said.contains(part), "{part} is not in {said}");
        }
    };
    let writable = WasmBox::launch().flag("--node-cache-dir", node.cache().display());
    refusal(writable, &["not mounted read-only"]);
    fs::set_permissions(node.cache(), Permissions::from_mode(0o775)).expect("the directory is ours");
    refusal(node.launch(), &["775"]);
    fs::set_permissions(node.cache(), Permissions::from_mode(0o711)).expect("the directory is ours");
    chown(node.cache(), Some(USER), None).expect("the directory is ours");
    refusal(node.launch(), &["belongs to user 1000"]);
    // The service does not write there either.
    let mut stream = UnixStream::connect(node.socket()).expect("somebody listens");
    let said = line(&mut stream);
    assert!(said.starts_with("refused: ") && said.contains("belongs to user 1000"), "{said}");
    chown(node.cache(), Some(0), None).expect("the directory is ours");
    refusal(WasmBox::launch().flag("--node-cache-dir", "/nowhere"), &["/nowhere"]);
    let alone = WasmBox::launch().flag("--compile-socket", node.socket().display()).refusal();
    assert!(alone.contains("--node-cache-dir"), "{alone}");
}

/// By the node's root, or by its disk: nobody else can.
#[test]
fn a_changed_file_is_refused_and_made_anew() {
    let node = Node::start(&[]);
    let start = |launch: Launch| launch.example("rust-hello.wasm").start();
    start(node.launch()).get("/rust-hello").ok();
    let image = node.images().remove(0);
    let genuine = fs::read(&image).expect("it can be read");
    for damage in [
        |image: &mut Vec<u8>| image[5000] ^= 1,
        |image: &mut Vec<u8>| *image.last_mut().expect("an image") ^= 0x80,
        |image: &mut Vec<u8>| image.truncate(100),
    ] {
        let mut content = genuine.clone();
        damage(&mut content);
        fs::remove_file(&image).expect("it is there");
        fs::write(&image, &content).expect("a new file");
        let alone = start(node.launch_alone());
        alone.get("/rust-hello").ok();
        assert_eq!(counts(&alone), (0.0, 1.0, 0.0));
        alone.logged(&["WARN", "node's cache", "digest"]);
        // The box cannot remove it, the service does.
        assert_eq!(fs::read(&image).expect("it is there"), content);
        let server = start(node.launch());
        server.get("/rust-hello").ok();
        assert_eq!(counts(&server), (1.0, 0.0, 0.0));
        assert_eq!(fs::read(&image).expect("it is there"), genuine);
    }
    // One that others may write, though what is in it is right.
    fs::set_permissions(&image, Permissions::from_mode(0o666)).expect("it is ours");
    let alone = start(node.launch_alone());
    alone.get("/rust-hello").ok();
    assert_eq!(counts(&alone), (0.0, 1.0, 0.0));
}

/// An image that is genuine, but another module's.
#[test]
fn one_image_cannot_stand_in_for_another() {
    let node = Node::start(&[]);
    for size in [64 << 10, 96 << 10] {
        assert_eq!(node.send(&binary::large(size)), "done");
    }
    let images = node.images();
    fs::copy(&images[0], node.directory.path().join("copy")).expect("it can be read");
    fs::rename(node.directory.path().join("copy"), &images[1]).expect("the same file system");
    let server = node
        .launch_alone()
        .function("first.wasm", binary::large(64 << 10))
        .function("second.wasm", binary::large(96 << 10))
        .start();
    server.get("/first").ok();
    server.get("/second").ok();
    assert_eq!(counts(&server), (0.0, 1.0, 1.0));
}

#[test]
fn the_nodes_cache_is_bounded() {
    let node = Node::start(&["--cache-size=512Ki"]);
    for size in 0..6 {
        assert_eq!(node.send(&binary::large((64 << 10) + (size << 14))), "done");
    }
    let sizes: Vec<u64> =
        node.images().into_iter().map(|image| fs::metadata(image).expect("it is there").len()).collect();
    assert!(!sizes.is_empty() && sizes.iter().sum::<u64>() <= 512 << 10, "{sizes:?}");
    // Code that is larger than the whole cache removes nothing.
    let said = node.send(&binary::large(1 << 20));
    assert!(said.starts_with("refused: "), "{said}");
    assert_eq!(node.images().len(), sizes.len());
}
