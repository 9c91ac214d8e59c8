//! What a reader has before following a block: a box, a project, a file.

use std::{fs, os::unix::fs::symlink};

use http::Request;
use wasmbox_tests::{Reader, document::Block, eventually, guest, node::Node, reader::ADDRESS, workspace};

/// A module, as compilers make it.
pub fn module() -> Vec<u8> {
    wat::parse_str(guest::hello()).expect("a module")
}

/// At the root of the working copy, where the reader has done what begins with `done` already.
pub fn at_the_root(blocks: &[Block], done: &[&str]) {
    let node = Node::new();
    let mut reader = Reader::new(&node);
    reader.prepare(&format!("cd {}", workspace::root().display()));
    done.iter().for_each(|beginning| reader.has_done(beginning));
    reader.follow(blocks);
}

/// In a directory with the build.
pub fn beside_the_build(blocks: &[Block]) {
    let node = Node::new();
    let mut reader = Reader::new(&node);
    symlink(workspace::root().join("target"), reader.directory().join("target")).expect("a new link");
    reader.follow(blocks);
}

/// In a directory with `hello.wasm` and an empty one of functions, in which `hello` is when it was pushed.
pub fn with_a_module(blocks: &[Block]) {
    let node = Node::new();
    let mut reader = Reader::new(&node);
    reader.write("hello.wasm", module());
    reader.write("functions/hello.wat", guest::hello());
    reader.follow(blocks);
}

/// Beside a box that serves `hello`.
pub fn at_a_box(blocks: &[Block]) {
    let node = Node::new();
    let mut reader = Reader::new(&node);
    reader.write("functions/hello.wat", guest::hello());
    reader.prepare("wasmbox serve");
    reader.follow(blocks);
}

/// Somebody with `hello.wasm` and a token, whose box takes functions, and has none. `flags`: more of its settings.
pub fn with_a_token<'a>(node: &'a Node, flags: &str) -> Reader<'a> {
    let mut reader = Reader::new(node);
    reader.write("hello.wasm", module());
    reader.write("token", "a-token-of-the-test-box\n");
    reader.prepare("export TOKEN=$(cat token); mkdir functions");
    reader.prepare(&format!("wasmbox serve --upload-token-file token {flags}"));
    reader
}

pub fn at_a_box_with_a_token(blocks: &[Block]) {
    with_a_token(&Node::new(), "").follow(blocks);
}

/// A box in the state that the document shows.
pub fn at_a_busy_box(blocks: &[Block]) {
    let node = Node::new();
    let mut reader = Reader::new(&node);
    reader.write("functions/resize.wat", guest::sleeping());
    reader.write("functions/checkout.wat", guest::command("unreachable"));
    let others: Vec<String> = (1..15).map(|number| format!("other-{number}")).chain(["hello".to_owned()]).collect();
    for name in &others {
        reader.write(&format!("functions/{name}.wat"), guest::hello());
    }
    reader.prepare("wasmbox serve");
    let call = |path: &str| node.call(ADDRESS, Request::get(path), "").expect("an answer");
    for name in &others {
        call(&format!("/{name}")).ok();
    }
    call("/checkout").problem(500, "guest-trap");
    call("/nothing").problem(404, "module-not-found");
    let refused = node.call(ADDRESS, Request::get("/hello").header("memory-request", "lots"), "").expect("an answer");
    refused.problem(400, "bad-limit");
    for _ in 0..3 {
        reader.prepare("curl localhost:8095/resize >/dev/null &");
    }
    // What is printed depends on the machine: lines and columns are those of the document.
    for step in blocks.iter().flat_map(|block| &block.steps) {
        let first_words = |text: &str| {
            let words = text.lines().filter_map(|line| line.split_whitespace().next().map(str::to_owned));
            words.collect::<Vec<_>>()
        };
        let mut expected = first_words(&step.expected);
        // Which of them use the most depends on it, too.
        expected.retain(|word| {
            !step.command.starts_with("wasmbox top") || !["resize", "checkout", "hello"].contains(&&**word)
        });
        eventually(&step.command, || {
            let printed = first_words(&reader.prepare(&step.command));
            expected.iter().all(|word| printed.contains(word)).then_some(())
        });
    }
}

/// With a cache to which anybody can write, and nothing that serves.
pub fn with_an_open_cache(blocks: &[Block]) {
    let node = Node::new();
    let mut reader = Reader::new(&node);
    reader.write("functions/hello.wat", guest::hello());
    reader.prepare("mkdir cache && chmod 777 cache");
    let [block] = blocks else { panic!("one block") };
    let [step] = &block.steps[..] else { panic!("one command") };
    let said = reader.prepare(&format!("{}; [ $? = 1 ]", step.command));
    // Each check of the document, but those that take a containerd; and what is wrong.
    let checks = |text: &str| {
        // How many there are, and how many warn, is another thing on each machine.
        let lines = text.lines().filter(|line| !line.contains(" checks, "));
        let names = lines.filter_map(|line| Some(line.get(6..)?.split("  ").next()?.to_owned()));
        names.collect::<Vec<_>>()
    };
    let (expected, printed) = (checks(&step.expected), checks(&said));
    let of_containerd = ["containerd", "shim", "handler", "orphans"];
    for check in expected.iter().filter(|check| !of_containerd.contains(&&***check)) {
        assert!(printed.contains(check), "no {check} in {said}");
    }
    let wrong = "has mode 777: others may write native code into it -> let it belong to the box's user, mode 0700; or name another with";
    for text in [&step.expected, &said] {
        let line = text.lines().find(|line| line.starts_with("FAIL  cache ")).unwrap_or_else(|| panic!("{text}"));
        assert!(line.contains(wrong), "{line}");
    }
}

/// With the examples, but none of their directories is written to.
pub fn with_the_examples(blocks: &[Block]) {
    let node = Node::new();
    let mut reader = Reader::new(&node);
    fs::create_dir(reader.directory().join("examples")).expect("a new directory");
    symlink(workspace::root().join("examples/functions"), reader.directory().join("examples/functions"))
        .expect("a new link");
    reader.has_done("make -C examples counter");
    reader.follow(blocks);
}

/// In the directory of the examples, but it is not written to.
pub fn among_the_examples(blocks: &[Block]) {
    let node = Node::new();
    let mut reader = Reader::new(&node);
    symlink(workspace::root().join("examples/functions"), reader.directory().join("functions")).expect("a new link");
    reader.has_done("make  ");
    reader.follow(blocks);
    let picture = fs::read(reader.directory().join("blurred.png")).expect("the answer");
    assert!(picture.starts_with(b"\x89PNG"), "{} bytes", picture.len());
}

/// In a project of Rust's.
pub fn in_a_project(blocks: &[Block]) {
    let node = Node::new();
    let mut reader = Reader::new(&node);
    reader.knows("{{name}}", "hello");
    reader.prepare("wasmbox new hello --lang rust && cd hello");
    reader.follow(blocks);
}

/// In one, and beside a box that takes functions.
pub fn in_a_project_beside_a_box(blocks: &[Block]) {
    let node = Node::new();
    let mut reader = Reader::new(&node);
    reader.knows("http://BOX:", "http://localhost:");
    reader.has_done("rustup target add");
    reader.write("token", "a-token-of-the-test-box\n");
    reader.prepare("mkdir functions");
    reader.prepare("wasmbox serve --upload-token-file token");
    reader.prepare("wasmbox new hello --lang rust && cp token hello && cd hello");
    // What is pushed later is not the first version.
    reader.write("earlier.wasm", module());
    reader.prepare("wasmbox push ../earlier.wasm --name hello --token-file token");
    reader.follow(blocks);
}
