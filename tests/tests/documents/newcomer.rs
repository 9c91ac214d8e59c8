//! Who has the working copy and the README, and follows it from its top in one shell. What is further down there takes a registry or containerd, which
//! [`machines`](crate::machines) has.

use std::os::unix::fs::symlink;

use wasmbox_tests::{
    Reader,
    document::{self, Block},
    guest,
    node::Node,
    workspace,
};

/// At the root of the working copy where the document serves what is there; where it makes files, in a directory with the same build.
pub fn from_the_top(blocks: &[Block]) {
    let all = document::blocks("README.md");
    let place = |block: &Block| all.iter().position(|one| one.first() == block.first());
    assert!(blocks.iter().map(place).is_sorted(), "the README has another order");
    let [run, call, make, invoke, limits, serve, push] = blocks else { panic!("{} blocks", blocks.len()) };
    let node = Node::new();
    let mut reader = Reader::new(&node);
    symlink(workspace::root().join("target"), reader.directory().join("target")).expect("a new link");
    let to_the_root = format!("cd {}", workspace::root().display());
    let to_the_files = format!("cd {}", reader.directory().display());
    reader.prepare(&to_the_root);
    reader.follow(&[run.clone(), call.clone()]);
    // "Stop `make run` with Ctrl-C first."
    reader.stop();
    reader.prepare(&to_the_files);
    reader.follow(&[make.clone(), invoke.clone()]);
    reader.stop();
    // "With the examples, which `make run` serves."
    reader.prepare(&to_the_root);
    reader.follow(&[run.clone(), limits.clone()]);
    reader.stop();
    // "With a module such as the `functions/hello.wasm` of your project"; and something that it replaces.
    reader.prepare(&to_the_files);
    reader.prepare("cp hello/functions/hello.wasm .");
    reader.write("functions/hello.wat", guest::hello());
    reader.follow(&[serve.clone(), push.clone()]);
    reader.stop();
}
