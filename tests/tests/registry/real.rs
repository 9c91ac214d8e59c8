//! With the registry of the distribution project: there and back, into a box, and signed.

use std::{
    fs,
    process::{Command, Stdio},
};

use serde_json::{Value, json};
use wasmbox_tests::{
    Authority, WasmBox, component,
    registry::{AUTH, RealRegistry},
    workspace,
};

use super::{Workplace, at, good, module, refused};

#[test]
#[ignore = "needs Go: make e2e"]
fn functions_come_back_as_they_went() {
    let (here, registry) = (Workplace::new(), RealRegistry::open());
    let reference = at(registry.address(), "team/hello:1.0");
    let settings = "# why\nargs = ['one']\n";
    here.write("hello.wasm", module());
    here.write("hello.toml", settings);
    let pushed = good(&here.run(&["push", "hello.wasm", &reference]));
    assert!(pushed.contains("pushed, with its settings"), "{pushed}");
    // The same function is the same artifact.
    assert_eq!(good(&here.run(&["push", "hello.wasm", &reference])), pushed);
    let digest = pushed.trim().rsplit(' ').next().expect("a digest");
    fs::create_dir(here.path().join("functions")).expect("a directory");
    good(&here.run(&["pull", &at(registry.address(), &format!("team/hello@{digest}")), "--output", "functions"]));
    assert_eq!(here.read("functions/hello.wasm"), module());
    assert_eq!(here.read("functions/hello.toml"), settings.as_bytes());
    // A text goes as a module; a component says what it wants.
    here.write("text.wat", wasmbox_tests::guest::arguments());
    good(&here.run(&["push", "text.wat", &at(registry.address(), "text:1")]));
    good(&here.run(&["pull", &at(registry.address(), "text:1"), "--output", "functions"]));
    assert_eq!(here.read("functions/text.wasm"), module());
    here.write("http.wasm", component::http_guest());
    good(&here.run(&["push", "http.wasm", &at(registry.address(), "http:1")]));
    good(&here.run(&["pull", &at(registry.address(), "http:1"), "--output", "functions"]));
    assert_eq!(here.read("functions/http.wasm"), component::http_guest());
    // They serve.
    let server = WasmBox::launch()
        .function("hello.wasm", here.read("functions/hello.wasm"))
        .function("hello.toml", here.read("functions/hello.toml"))
        .start();
    assert_eq!(server.get("/hello").ok().text(), "hello\0one\0\n\n");
    refused(&here.run(&["pull", &at(registry.address(), "team/hello:2.0"), "--force"]), &["team/hello:2.0: not found"]);
    refused(&here.run(&["pull", &at(registry.address(), "nobody/hello"), "--force"]), &["not found"]);
}

#[test]
#[ignore = "needs Go: make e2e"]
fn a_function_goes_from_a_registry_into_a_box() {
    let (here, registry) = (Workplace::new(), RealRegistry::open());
    here.write("hello.wasm", module());
    here.write("hello.toml", "args = ['one']");
    here.write("token", "a-token-of-the-test-box\n");
    let reference = at(registry.address(), "hello:1.0");
    good(&here.run(&["push", "hello.wasm", &reference]));
    let server = WasmBox::launch().flag("--upload-token-file", here.path().join("token").display()).start();
    let url = format!("http://{}", server.admin_address());
    let to = ["--url", &url, "--token-file", "token"];
    let said = good(&here.run(&[&["push", &reference][..], &to].concat()));
    assert!(said.starts_with("hello: created, with its settings"), "{said}");
    assert_eq!(server.get("/hello").ok().text(), "hello\0one\0\n\n");
    good(&here.run(&[&["push", &reference, "--name", "other", "--no-settings"][..], &to].concat()));
    assert_eq!(server.get("/other").ok().text(), "other\0\n\n");
}

#[test]
#[ignore = "needs Go: make e2e"]
fn a_registry_asks_for_a_password_and_has_a_certificate() {
    let here = Workplace::new();
    let authority = Authority::new();
    authority.write(&here.path().join("ca.pem"));
    authority.write_server(&["127.0.0.1"], &here.path().join("server.pem"), &here.path().join("key.pem"));
    let certificate = (here.path().join("server.pem"), here.path().join("key.pem"));
    let registry = RealRegistry::start(true, Some((&certificate.0, &certificate.1)));
    let reference = at(registry.address(), "team/hello:1.0");
    here.write("hello.wasm", module());
    let push = |flags: &[&str]| here.run(&[&["push", "hello.wasm", &reference][..], flags].concat());
    refused(&push(&["--ca", "ca.pem"]), &["not authorised", "config.json", "docker login"]);
    fs::create_dir_all(here.path().join("home/.docker")).expect("a directory");
    let auths = json!({"auths": {registry.address().to_string(): {"auth": AUTH}}});
    here.write("home/.docker/config.json", auths.to_string());
    good(&push(&["--ca", "ca.pem"]));
    fs::create_dir(here.path().join("out")).expect("a directory");
    good(&here.run(&["pull", &reference, "--ca", "ca.pem", "--output", "out"]));
    assert_eq!(here.read("out/hello.wasm"), module());
    // Nobody who is trusted vouches for it; and without TLS it does not answer as a registry.
    let other = Authority::new();
    other.write(&here.path().join("other.pem"));
    refused(&push(&["--ca", "other.pem"]), &["no TLS", "to --ca"]);
    refused(&push(&["--ca", "hello.wasm"]), &["--ca hello.wasm", "PEM"]);
    refused(&push(&["--plain-http"]), &["400"]);
}

/// What an image has is what its layer says.
#[test]
#[ignore = "needs Go: make e2e"]
fn an_image_has_the_functions_of_a_directory() {
    let (here, registry) = (Workplace::new(), RealRegistry::open());
    here.write("hello.wasm", module());
    here.write("hello.toml", "args = ['one']");
    here.write("text.wat", wasmbox_tests::guest::hello());
    here.write("alone.toml", "no function's");
    here.write(".hidden.wasm", "no function");
    here.write("notes.txt", "no function");
    let reference = at(registry.address(), "functions:1");
    let said = good(&here.run(&["push", "--image", ".", &reference]));
    assert!(said.contains("an image of 2 functions"), "{said}");
    assert_eq!(good(&here.run(&["push", "--image", ".", &reference])), said);
    let get = |path: &str, accept: &str| {
        let request = http::Request::get(format!("/v2/functions/{path}")).header("accept", accept);
        wasmbox_tests::client::exchange(registry.address(), request, "").expect("an answer").ok().body
    };
    let index: Value =
        serde_json::from_slice(&get("manifests/1", "application/vnd.oci.image.index.v1+json")).expect("JSON");
    let architectures: Vec<&Value> =
        index["manifests"].as_array().expect("a list").iter().map(|one| &one["platform"]["architecture"]).collect();
    assert_eq!(architectures, ["amd64", "arm64"]);
    let digest = index["manifests"][0]["digest"].as_str().expect("a digest");
    let manifest: Value =
        serde_json::from_slice(&get(&format!("manifests/{digest}"), "application/vnd.oci.image.manifest.v1+json"))
            .expect("JSON");
    let layer = manifest["layers"][0]["digest"].as_str().expect("a digest");
    here.write("layer.tar", get(&format!("blobs/{layer}"), "*/*"));
    fs::create_dir(here.path().join("unpacked")).expect("a directory");
    let tar = Command::new("tar").args(["xf", "layer.tar", "-C", "unpacked"]).current_dir(here.path()).status();
    assert!(tar.expect("tar").success());
    let mut names: Vec<_> = fs::read_dir(here.path().join("unpacked"))
        .expect("it is there")
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["hello.toml", "hello.wasm", "text.wat"]);
    assert_eq!(here.read("unpacked/hello.wasm"), module());
    // It is no function, and says so.
    refused(&here.run(&["pull", &reference]), &["an index of 2 manifests"]);
    refused(
        &here.run(&["pull", &at(registry.address(), &format!("functions@{digest}"))]),
        &["an image for containers", "--image"],
    );
}

/// By cosign itself, in both of its formats; and what it says otherwise of a function is no signature.
#[test]
#[ignore = "needs Go: make e2e"]
fn cosign_signs_what_is_taken() {
    let (here, registry) = (Workplace::new(), RealRegistry::open());
    let cosign = |arguments: &[&str]| {
        let mut command = Command::new(workspace::root().join("target/tools/go/cosign"));
        command.args(arguments).env_clear().env("HOME", here.path().join("home")).current_dir(here.path());
        // It asks nobody but the registry: neither for a password nor for a log's entry.
        command.env("COSIGN_PASSWORD", "").env("COSIGN_YES", "true").stdin(Stdio::null());
        good(&command.output().expect("cosign; `make e2e` builds it, with Go"));
    };
    let push = |name: &str| {
        let said = good(&here.run(&["push", "hello.wasm", &at(registry.address(), &format!("{name}:1"))]));
        let digest = said.trim().rsplit(' ').next().expect("a digest");
        format!("{}/{name}@{digest}", registry.address())
    };
    let pull = |key: &str, name: &str| {
        let reference = at(registry.address(), &format!("{name}:1"));
        here.run(&["pull", "--force", "--output", "hello.wasm", "--key", key, &reference])
    };
    let privately = ["--tlog-upload=false", "--use-signing-config=false"];
    let sign = |key: &str, flags: &[&str], what: &str| {
        cosign(&[&["sign", "--key", key][..], &privately, flags, &[what]].concat());
    };
    here.write("hello.wasm", module());
    here.write("hello.toml", "args = ['one']");
    here.write("predicate.json", "{}");
    cosign(&["generate-key-pair"]);
    cosign(&["generate-key-pair", "--output-key-prefix", "other"]);
    for (name, flags) in [("team/new", &[][..]), ("team/classic", &["--new-bundle-format=false"])] {
        let pushed = push(name);
        refused(&pull("cosign.pub", name), &["not signed", &pushed]);
        let attest = ["attest", "--key", "cosign.key", "--type", "custom", "--predicate", "predicate.json"];
        cosign(&[&attest[..], &privately, flags, &[&pushed]].concat());
        refused(&pull("cosign.pub", name), &["not signed"]);
        sign("other.key", flags, &pushed);
        refused(&pull("cosign.pub", name), &["not signed by a key of --key", "made by none of these keys"]);
        good(&pull("other.pub", name));
        sign("cosign.key", flags, &pushed);
        assert!(good(&pull("cosign.pub", name)).contains("signed by the key of cosign.pub"));
        assert_eq!((here.read("hello.wasm"), here.read("hello.toml")), (module(), b"args = ['one']".to_vec()));
        good(&pull("other.pub", name));
    }
    // The tag moves to what nobody has signed.
    here.write("hello.wasm", component::http_guest());
    push("team/new");
    refused(&pull("cosign.pub", "team/new"), &["not signed"]);
}
