//! Registries that lie, send without end, or lead elsewhere: nothing of what they send stays.

use serde_json::{Value, json};
use wasmbox_tests::registry::{Asked, Documents, FakeRegistry, Flow, Reply, digest};

use super::{Workplace, at, module, refused};

/// Fetches from a registry that is `answer`: in vain, and nothing is left.
#[track_caller]
fn in_vain(flags: &[&str], answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static, parts: &[&str]) {
    let (here, registry) = (Workplace::new(), FakeRegistry::new(answer));
    let reference = at(registry.address(), "team/hello:1");
    let arguments: Vec<&str> = ["pull", &reference].into_iter().chain(flags.iter().copied()).collect();
    refused(&here.run(&arguments), parts);
    assert_eq!(here.names(), [""; 0]);
}

/// One whose documents are `change`d.
#[track_caller]
fn changed(change: impl Fn(&mut Documents), parts: &[&str]) {
    let mut documents = Documents::of(&module());
    change(&mut documents);
    in_vain(&[], move |asked| documents.answer(asked), parts);
}

/// One that answers otherwise where `part` is in the path.
#[track_caller]
fn otherwise(part: String, flags: &[&str], reply: impl Fn(&Asked) -> Reply + Send + Sync + 'static, parts: &[&str]) {
    let documents = Documents::of(&module());
    let answer = move |asked: &Asked| if asked.path.contains(&part) { reply(asked) } else { documents.answer(asked) };
    in_vain(flags, answer, parts);
}

fn layer() -> String {
    digest(module())
}

#[test]
fn what_is_another_content_is_not_kept() {
    let other = |_: &Asked| Reply::of(200, vec![b'x'; module().len()]);
    otherwise(layer(), &[], other, &["the module", &layer(), "it is not kept"]);
    otherwise(layer(), &[], |_| Reply::of(200, &module()[..9]), &["the module", "ends after 9 of"]);
    otherwise(layer(), &[], |_| Reply::flow(Flow::Endless), &["the module of more than"]);
    otherwise("/manifests/".into(), &[], |_| Reply::flow(Flow::Endless), &["a manifest of more than 4.00 MiB"]);
    // What it says that it has sent is something else.
    let (documents, zero) = (Documents::of(&module()), format!("sha256:{:064}", 0));
    let lies = move |_: &Asked| Reply::of(200, documents.manifest()).with("docker-content-digest", &zero);
    otherwise("/manifests/".into(), &[], lies, &["the manifest", "its digest is"]);
    // By a digest, whatever else it says.
    let (here, documents) = (Workplace::new(), Documents::of(&module()));
    let registry = FakeRegistry::new(move |asked| documents.answer(asked));
    let reference = at(registry.address(), &format!("hello@{}", digest("another")));
    refused(&here.run(&["pull", &reference]), &["the manifest", &digest("another")]);
    assert_eq!(here.names(), [""; 0]);
}

#[test]
fn what_is_no_function_is_named() {
    let kind =
        |media_type: &'static str| move |all: &mut Documents| all.manifest["config"]["mediaType"] = media_type.into();
    changed(kind("application/vnd.oci.image.config.v1+json"), &["no function", "an image for containers"]);
    changed(kind("application/vnd.cncf.helm.config.v1+json"), &["a Helm chart"]);
    changed(kind("x/\u{1b}[31m\u{202e}y"), &["an artifact of the type", "application/vnd.wasm.config.v0+json"]);
    changed(|all| all.manifest["layers"] = json!([]), &["it has 0 layers"]);
    let twice = |all: &mut Documents| {
        let layer = all.manifest["layers"][0].clone();
        all.manifest["layers"] = json!([layer, layer]);
    };
    changed(twice, &["it has 2 layers"]);
    changed(|all| all.manifest["layers"][0]["mediaType"] = "text/html".into(), &["text/html", "application/wasm"]);
    changed(|all| all.manifest["layers"][0]["size"] = (300_u64 << 20).into(), &["300.00 MiB", "--max-module-size"]);
    changed(|all| all.manifest["layers"][0]["digest"] = "sha256:../../etc".into(), &["the manifest cannot be read"]);
    changed(|all| all.config["architecture"] = "arm64".into(), &["arm64", "a box runs \"wasm\""]);
    changed(|all| all.config["os"] = "linux".into(), &["linux", "wasip1"]);
    changed(|all| all.config["layerDigests"] = json!([digest("other")]), &["another layer"]);
    changed(|all| all.config = json!({"x": 1}), &["names no architecture"]);
    changed(|all| all.manifest["schemaVersion"] = 1.into(), &["schemaVersion is 1"]);
    changed(|all| all.manifest["mediaType"] = "a/b".into(), &["a/b"]);
    changed(|all| all.manifest["mediaType"] = "x".repeat(1 << 20).into(), &["xxx"]);
    changed(|all| all.manifest["layers"] = "x".repeat(1 << 20).into(), &["the manifest cannot be read"]);
    changed(|all| all.config["os"] = "x".repeat(1 << 19).into(), &["xxx"]);
    changed(|all| all.config = "x".repeat(1 << 19).into(), &["the configuration cannot be read"]);
    changed(|all| all.config = "x".repeat(1 << 21).into(), &["its configuration has more than 1.00 MiB"]);
    let index = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": vec![json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest("a"), "size": 1}); 1000],
    });
    changed(move |all| all.manifest = index.clone(), &["an index of 1000 manifests", &format!("@{}", digest("a"))]);
    let page = |_: &Asked| Reply::of(200, "<html>").with("content-type", "text/html");
    otherwise("/manifests/".into(), &[], page, &["the manifest cannot be read"]);
    let deep = |_: &Asked| Reply::of(200, "[".repeat(1 << 20));
    otherwise("/manifests/".into(), &[], deep, &["the manifest cannot be read"]);
    // It is what its digest says, but no module.
    in_vain(&[], |asked| Documents::of(b"#!/bin/sh\nexit\n").answer(asked), &["no binary module"]);
}

#[test]
fn settings_that_are_none_are_refused() {
    let with = |text: &str| {
        let text = Value::from(text);
        move |all: &mut Documents| all.manifest["annotations"] = json!({"dev.wasmbox.settings": text})
    };
    changed(with("args = ["), &["settings", "not TOML"]);
    changed(with("name = 'a-crate'"), &["settings are no function's", "name"]);
    changed(with(&"#".repeat(100_000)), &["settings", "65536"]);
}

#[test]
fn redirects_end() {
    let again = |asked: &Asked| Reply::of(307, "").with("location", &asked.path);
    otherwise(layer(), &[], again, &["redirects the module more than 5 times"]);
    otherwise(layer(), &[], |_| Reply::of(302, ""), &["redirects the module nowhere"]);
    for (location, part) in [
        ("file:///etc/passwd", "cannot be read"),
        ("gopher://127.0.0.1/", "neither https:// nor http://"),
        ("http://user:password@127.0.0.1/", "a user's name"),
        ("//host/", "neither https:// nor http://"),
        ("\\", "cannot be read"),
        ("relative", "neither https:// nor http://"),
        ("http://127.0.0.1:99999/", "a port from 1 to 65535"),
    ] {
        otherwise(layer(), &[], move |_| Reply::of(307, "").with("location", location), &[part]);
    }
}

#[test]
fn silence_ends_with_the_time_that_is_given() {
    let stalls = |_: &Asked| Reply::flow(Flow::Stalls(module()[..9].to_vec()));
    otherwise(layer(), &["--timeout", "1s"], stalls, &["--timeout"]);
    let stalls = |_: &Asked| Reply::flow(Flow::Stalls(b"{".to_vec()));
    otherwise("/manifests/".into(), &["--timeout", "1s"], stalls, &["--timeout"]);
}

#[test]
fn what_it_says_of_errors_is_quoted_and_short() {
    let message = format!("\u{1b}[31m{}", "no ".repeat(2000));
    let body = json!({"errors": [{"code": "DENIED", "message": message}]}).to_string();
    let refusal = body.clone();
    otherwise("/manifests/".into(), &[], move |_| Reply::of(500, refusal.clone()), &["500", "DENIED", "\\u{1b}[31m"]);
    otherwise("/manifests/".into(), &[], |_| Reply { status: 503, ..Reply::flow(Flow::Endless) }, &["503"]);
    otherwise("/manifests/".into(), &[], |_| Reply::of(404, ""), &["team/hello:1: not found", "and the tag?"]);
    let unknown = |_: &Asked| Reply::of(404, r#"{"errors": [{"code": "UNKNOWN", "message": "no such"}]}"#);
    otherwise(layer(), &[], unknown, &["not found: the module (UNKNOWN no such); is the name right? A"]);
    otherwise(layer(), &[], move |_| Reply::of(403, body.clone()), &["not authorised", "DENIED", "docker login"]);
    // Whoever keeps blobs for it knows nothing of logins.
    let elsewhere = FakeRegistry::new(|_| Reply::of(403, ""));
    let address = elsewhere.address();
    let away = move |_: &Asked| Reply::of(307, "").with("location", format!("http://{address}/"));
    otherwise(layer(), &[], away, &[&format!("{address} answers 403 Forbidden to the module\n")]);
}

/// A registry that answers a push as nobody should.
#[test]
fn a_push_goes_where_its_user_said() {
    let here = Workplace::new();
    here.write("hello.wasm", module());
    let push = |answer: fn(&Asked) -> Reply, parts: &[&str]| {
        let registry = FakeRegistry::new(answer);
        refused(&here.run(&["push", "hello.wasm", &at(registry.address(), "hello:1")]), parts);
    };
    push(|_| Reply::of(404, ""), &["not found: the module; the repository may have to be created first"]);
    push(|_| Reply::of(401, ""), &["not authorised"]);
    let begins = |location: &'static str| {
        move |asked: &Asked| match asked.method.as_str() {
            "HEAD" => Reply::of(404, ""),
            "POST" => Reply::of(202, "").with("location", location),
            _ => Reply::of(500, ""),
        }
    };
    let registry = FakeRegistry::new(begins("file:///tmp/x"));
    refused(
        &here.run(&["push", "hello.wasm", &at(registry.address(), "hello:1")]),
        &["file:///tmp/x", "cannot be read"],
    );
    let registry = FakeRegistry::new(begins("/v2/hello/blobs/uploads/1?a=b"));
    refused(&here.run(&["push", "hello.wasm", &at(registry.address(), "hello:1")]), &["500", "the module"]);
    let put = registry.asked().pop().expect("it was asked");
    assert_eq!(put.path, format!("/v2/hello/blobs/uploads/1?a=b&digest={}", digest(module())));
    assert_eq!(put.body, module());
    // It has everything, but says that it has another manifest.
    push(
        |asked| {
            Reply::of(if asked.method == "HEAD" { 200 } else { 201 }, "").with("docker-content-digest", digest("x"))
        },
        &["stored the manifest as", &digest("x")],
    );
}
