//! The examples of docs/errors.md, as far as a request makes the error.

use wasmbox_tests::{Reader, component, document::Block, guest, node::Node};

use crate::small::{module, with_a_token};

/// With default settings.
pub fn at_a_box(blocks: &[Block]) {
    let node = Node::new();
    let mut reader = Reader::new(&node);
    for (name, function) in [
        ("hello", guest::hello()),
        ("echo", guest::echo()),
        ("cgi", guest::echo()),
        ("exit", guest::command("(call $exit (i32.const 3))")),
        ("trap", guest::command("unreachable")),
        ("hungry", guest::hungry()),
        ("busy", guest::busy()),
    ] {
        reader.write(&format!("functions/{name}.wat"), function);
    }
    reader.write("functions/cgi.toml", "output = 'cgi'");
    reader.write("functions/http.wasm", component::http_guest());
    reader.write("hello.wasm", module());
    reader.prepare("wasmbox serve");
    reader.follow(blocks);
}

/// With all of the settings and files that the examples name.
pub fn at_a_narrow_box(blocks: &[Block]) {
    let node = Node::new();
    let mut reader = Reader::new(&node);
    let granted = reader.directory().join("srv/data").display().to_string();
    reader.prepare(&format!("mkdir -p {granted}"));
    for (name, function) in [
        ("hello", guest::hello()),
        ("echo", guest::echo()),
        ("cgi", guest::printing("no header\n\nbody", "")),
        ("flood", guest::flood(0)),
    ] {
        reader.write(&format!("functions/{name}.wat"), function);
    }
    reader.write("functions/hello.toml", format!("preopens = [{{ host = '{granted}', guest = '/data' }}]"));
    reader.write("functions/cgi.toml", "output = 'cgi'");
    reader.prepare(&format!(
        "wasmbox serve --memory-request 32 --concurrent-resource-request 64 --max-memory-request 100 --max-body 1Mi --max-output 64Ki \
         --preopen-root {}",
        reader.directory().join("srv").display()
    ));
    reader.prepare("curl localhost:8095/hello");
    reader.prepare(&format!("rmdir {granted}"));
    reader.follow(blocks);
}

/// Whose only function is `hello`, and at last another.
pub fn at_a_box_with_a_token(blocks: &[Block]) {
    let node = Node::new();
    let mut reader = with_a_token(&node, "--upload-max-functions 1");
    reader.prepare("wasmbox push hello.wasm --token-file token");
    let (full, others) = blocks.split_last().expect("blocks");
    reader.follow(others);
    reader.prepare("wasmbox rm hello --purge --token-file token");
    reader.prepare("wasmbox push hello.wasm --name other --token-file token");
    reader.follow(std::slice::from_ref(full));
}
