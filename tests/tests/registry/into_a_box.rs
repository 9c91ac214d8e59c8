//! `wasmbox push oci://...`: from a registry into a box.

use serde_json::json;
use wasmbox_tests::{
    WasmBox, component, guest,
    registry::{Documents, FakeRegistry},
};

use super::{Workplace, at, good, refused};

/// A registry with one function.
fn registry(module: &[u8], settings: Option<&str>) -> FakeRegistry {
    let mut documents = Documents::of(module);
    if let Some(text) = settings {
        documents.manifest["annotations"] = json!({"dev.wasmbox.settings": text});
    }
    FakeRegistry::new(move |asked| documents.answer(asked))
}

#[test]
fn settings_are_those_that_come_with_it() {
    let here = Workplace::new();
    here.write("token", "a-token-of-the-test-box\n");
    let server = WasmBox::launch().flag("--upload-token-file", here.path().join("token").display()).start();
    let url = format!("http://{}", server.admin_address());
    let push = |registry: &FakeRegistry, more: &[&str]| {
        let reference = at(registry.address(), "hello:1");
        here.run(&[&["push", &reference, "--url", &url, "--token-file", "token"][..], more].concat())
    };
    let command = || wat::parse_str(guest::arguments()).expect("a module");
    let with = registry(&command(), Some("args = ['one']"));
    let without = registry(&command(), None);
    good(&push(&with, &[]));
    assert_eq!(server.get("/hello").ok().text(), "hello\0one\0\n\n");
    // Those that are there were another function's, unless it is said that they stay.
    good(&push(&without, &["--no-settings"]));
    assert_eq!(server.get("/hello").ok().text(), "hello\0one\0\n\n");
    let said = good(&push(&without, &[]));
    assert!(said.starts_with("hello: the same module, without the settings that were there: "), "{said}");
    assert_eq!(server.get("/hello").ok().text(), "hello\0\n\n");
    // Settings that a module does not fit would be in its way.
    let reusing = registry(component::http_guest(), Some("[instance]\nreuse = 4"));
    good(&push(&reusing, &[]));
    server.get("/hello/instance").ok();
    good(&push(&without, &[]));
    assert_eq!(server.get("/hello").ok().text(), "hello\0\n\n");
    good(&push(&reusing, &[]));
    good(&push(&with, &[]));
    assert_eq!(server.get("/hello").ok().text(), "hello\0one\0\n\n");
    // What is refused changes nothing, neither of the settings nor of the module.
    let broken = [
        registry(b"\0asm\x01\0\0\0\xff", None),
        registry(&command(), Some("[instance]\nreuse = 4")),
        registry(&command(), Some("nonsense = 1")),
    ];
    for registry in &broken {
        let output = push(registry, &[]);
        assert!(!output.status.success(), "{output:?}");
        assert_eq!(server.get("/hello").ok().text(), "hello\0one\0\n\n");
    }
    refused(&push(&without, &["--create"]), &["hello"]);
    refused(&push(&without, &["--if-match", "\"other\""]), &["hello"]);
    assert_eq!(server.get("/hello").ok().text(), "hello\0one\0\n\n");
}
