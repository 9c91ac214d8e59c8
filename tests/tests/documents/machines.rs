//! What a reader has before following a block that takes more than a box: containerd, a virtual machine, a registry.

use std::fs;

use wasmbox_tests::{
    Authority, Containerd, Reader, Version, document::Block, eventually, node::Node, registry::RealRegistry, workspace,
};

use crate::small::{at_the_root, module};

/// At the root of the working copy, with the images that `make test` has made, and the shim where this containerd finds it.
pub fn with_containerd(blocks: &[Block]) {
    let containerd = Containerd::start(Version::V1_7);
    let mut reader = Reader::on(containerd.node(), &containerd.directory().join("bin"));
    reader.prepare(&format!("cd {}", workspace::root().display()));
    // By that, its cgroups are the node's.
    reader.prepare(&format!("export CONTAINERD_NAMESPACE={}", containerd.namespace()));
    reader.has_done("make static images");
    // Shims are counted while a container runs, and it is killed at last.
    let [install, run, shims] = blocks else { panic!("{} blocks", blocks.len()) };
    let mut run = run.clone();
    let kill = run.steps.pop().expect("its last command");
    assert!(kill.command.starts_with("sudo ctr task kill "), "{}", kill.command);
    reader.follow(&[install.clone(), run]);
    let [counting] = &shims.steps[..] else { panic!("one command") };
    // Of all shims of this machine that the node can see, which are its own.
    let said = reader.prepare(&counting.command);
    assert!(said.contains(" Rss: ") && said.contains(" Pss: ") && said.contains(" KiB"), "{said}");
    reader.prepare(&kill.command);
    let is_stopped = || reader.prepare("ctr task ls").lines().any(|line| line.contains("STOPPED")).then_some(());
    eventually("its end", is_stopped);
    reader.prepare("ctr task delete three && ctr container delete three");
}

/// With the working copy's files, and those of this machine.
pub fn in_the_virtual_machine(blocks: &[Block]) {
    at_the_root(blocks, &["cargo test"]);
}

/// Which documents call `registry.example`; it is the distribution project's, and cosign signs.
pub fn with_a_registry(blocks: &[Block]) {
    let node = Node::new();
    let certificates = node.directory().join("certificates");
    fs::create_dir(&certificates).expect("a new directory");
    let path = |name: &str| certificates.join(name);
    let authority = Authority::new();
    authority.write(&path("ca.pem"));
    authority.write_server(&["registry.example"], &path("server.pem"), &path("key.pem"));
    let _registry = RealRegistry::certified_on(&node, (&path("server.pem"), &path("key.pem")));
    fs::write(path("hosts"), "127.0.0.1 localhost registry.example\n").expect("a file");
    let mut reader = Reader::on(&node, &workspace::root().join("target/tools/go"));
    // The mount is the node's alone.
    reader.prepare(&format!("mount --bind {} /etc/hosts", path("hosts").display()));
    reader.prepare(&format!("export SSL_CERT_FILE={} COSIGN_PASSWORD= COSIGN_YES=true", path("ca.pem").display()));
    for name in ["hello.wasm", "signed/functions/hello.wasm"] {
        reader.write(name, module());
    }
    reader.write("signed/functions/hello.toml", "args = ['one']\n");
    reader.write("token", "a-token-of-the-test-box\n");
    reader.write("functions/other.wat", wasmbox_tests::guest::hello());
    reader.prepare("wasmbox serve --upload-token-file token");
    let [readme, registries @ ..] = blocks else { panic!("blocks") };
    reader.follow(std::slice::from_ref(readme));
    reader.prepare("cp token signed && cd signed");
    // What is pulled does not replace what is there.
    reader.knows("--output functions/", "--output functions/ --force");
    // The log is on the Internet; the document says how to sign without.
    reader.knows("cosign sign ", "cosign sign --tlog-upload=false --use-signing-config=false ");
    let pushed = reader.prepare("wasmbox push functions/hello.wasm oci://registry.example/team/hello:1.0");
    let digest = pushed.trim().rsplit(' ').next().expect("a digest").to_owned();
    reader.knows("sha256:...", &digest);
    reader.follow(registries);
}
