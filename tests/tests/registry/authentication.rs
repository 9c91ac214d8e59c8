//! Who a registry is told that asks, and who is told nothing.

use std::{fs, os::unix::fs::PermissionsExt};

use serde_json::json;
use wasmbox_tests::registry::{AUTH, Asked, Documents, FakeRegistry, Flow, Reply};

use super::{Workplace, at, good, module, refused};

impl Workplace {
    /// docker's file, in its own place.
    fn docker(&self, content: &serde_json::Value) {
        let directory = self.path().join("home/.docker");
        fs::create_dir_all(&directory).expect("a directory");
        fs::write(directory.join("config.json"), content.to_string()).expect("a file");
    }

    /// A program that docker would ask.
    fn helper(&self, name: &str, script: &str) {
        let path = self.path().join("home/bin");
        fs::create_dir_all(&path).expect("a directory");
        let path = path.join(format!("docker-credential-{name}"));
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("our own file");
    }

    fn path_variable(&self) -> String {
        format!("{}:/usr/bin:/bin", self.path().join("home/bin").display())
    }
}

type Give = fn(&Asked) -> Reply;

/// Asks for a name and password.
fn basic() -> FakeRegistry {
    let documents = Documents::of(&module());
    FakeRegistry::new(move |asked| {
        if asked.authorization == format!("Basic {AUTH}") {
            documents.answer(asked)
        } else {
            Reply::of(401, "").with("www-authenticate", "Basic realm=\"here\"")
        }
    })
}

/// Asks for a token, which it gives itself.
fn tokens(give: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> FakeRegistry {
    let documents = Documents::of(&module());
    let address = std::sync::Arc::new(std::sync::OnceLock::<String>::new());
    let realm = address.clone();
    let registry = FakeRegistry::new(move |asked| {
        if asked.path.starts_with("/token") {
            return give(asked);
        }
        if asked.authorization == "Bearer good" {
            return documents.answer(asked);
        }
        let realm = realm.get().expect("it is set before anybody asks");
        let challenge = format!("Bearer realm=\"{realm}/token\",service=\"here\",scope=\"repository:hello:pull\"");
        Reply::of(401, "").with("www-authenticate", challenge)
    });
    address.set(format!("http://{}", registry.address())).expect("once");
    registry
}

#[test]
fn names_and_passwords_are_those_of_docker_and_podman() {
    let (here, registry) = (Workplace::new(), basic());
    let (host, reference) = (registry.address().to_string(), at(registry.address(), "team/hello"));
    let looked = here.path().join("home/.docker/config.json").display().to_string();
    refused(&here.run(&["pull", &reference]), &["not authorised", &host, &looked, "podman login"]);
    here.docker(&json!({"auths": {"other.example": {"auth": AUTH}}}));
    refused(&here.run(&["pull", &reference]), &["no credentials for", &looked]);
    here.docker(&json!({"auths": {&host: {"auth": AUTH}}}));
    good(&here.run(&["pull", &reference]));
    // Wrong ones: it says whose they are, and does not say them.
    here.docker(&json!({"auths": {&host: {"auth": "YWRhOndyb25n"}}}));
    let output = here.run(&["pull", &reference, "--force"]);
    refused(&output, &["not authorised", &format!("those of {looked}")]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains("wrong") && !said.contains("YWRhOndyb25n"), "{said}");
    // Docker's variable names another directory; what is in the usual one does not count then.
    fs::create_dir(here.path().join("docker")).expect("a directory");
    here.write("docker/config.json", json!({"auths": {&host: {"auth": AUTH}}}).to_string());
    here.write("home/.docker/config.json", "{");
    refused(&here.run(&["pull", &reference, "--force"]), &[&looked]);
    let with = |name: &str, path: &str| {
        let mut command = here.command(&["pull", &reference, "--force"]);
        command.env(name, here.path().join(path)).output().expect("it runs")
    };
    good(&with("DOCKER_CONFIG", "docker"));
    // Podman's files come first, and have names of repositories.
    let stored = json!({"auths": {format!("{host}/team"): {"auth": AUTH}}}).to_string();
    for directory in ["run/containers", "config/containers", "home/.config/containers"] {
        fs::create_dir_all(here.path().join(directory)).expect("a directory");
    }
    here.write("run/containers/auth.json", &stored);
    good(&with("XDG_RUNTIME_DIR", "run"));
    here.write("config/containers/auth.json", &stored);
    good(&with("XDG_CONFIG_HOME", "config"));
    here.write("home/.config/containers/auth.json", &stored);
    good(&here.run(&["pull", &reference, "--force"]));
    // The file that is named is the only one.
    here.write("auth.json", &stored);
    good(&with("REGISTRY_AUTH_FILE", "auth.json"));
    refused(&with("REGISTRY_AUTH_FILE", "missing.json"), &["missing.json", "REGISTRY_AUTH_FILE"]);
    here.write("auth.json", "{}");
    refused(&with("REGISTRY_AUTH_FILE", "auth.json"), &["not authorised", "no credentials for", "auth.json"]);
}

#[test]
fn programs_that_keep_credentials_are_asked() {
    let (here, registry) = (Workplace::new(), basic());
    let (host, reference) = (registry.address().to_string(), at(registry.address(), "hello"));
    let run =
        || here.command(&["pull", &reference, "--force"]).env("PATH", here.path_variable()).output().expect("it runs");
    here.helper("good", r#"read -r server; [ "$1" = get ] && echo "{\"ServerURL\":\"$server\",\"Username\":\"ada\",\"Secret\":\"open-sesame\"}""#);
    here.helper("none", "echo 'credentials not found in native keychain'; exit 1");
    here.helper("broken", "echo 'the keyring is locked'; exit 2");
    here.helper("endless", "exec cat /dev/zero");
    here.docker(&json!({"credsStore": "good"}));
    good(&run());
    here.docker(&json!({"credsStore": "none", "credHelpers": {&host: "good"}}));
    good(&run());
    here.docker(&json!({"credsStore": "none", "auths": {&host: {"auth": AUTH}}}));
    good(&run());
    // No program for this registry.
    here.docker(&json!({"credsStore": "broken", "credHelpers": {&host: ""}, "auths": {&host: {"auth": AUTH}}}));
    good(&run());
    here.docker(&json!({"credsStore": "broken"}));
    refused(&run(), &["docker-credential-broken", "the keyring is locked"]);
    here.docker(&json!({"credsStore": "missing"}));
    refused(&run(), &["docker-credential-missing"]);
    here.docker(&json!({"credsStore": "endless"}));
    refused(&run(), &["docker-credential-endless"]);
    here.docker(&json!({"credsStore": "../good"}));
    refused(&run(), &["docker-credential-../good"]);
}

#[test]
fn tokens_are_asked_for_and_bounded() {
    let token = |_: &Asked| Reply::of(200, r#"{"token": "good"}"#);
    let (here, registry) = (Workplace::new(), tokens(token));
    let (host, reference) = (registry.address().to_string(), at(registry.address(), "hello"));
    // Nobody in particular may read.
    good(&here.run(&["pull", &reference]));
    let asked = registry.asked().into_iter().find(|asked| asked.path.starts_with("/token")).expect("a token");
    assert_eq!(asked.path, "/token?service=here&scope=repository%3Ahello%3Apull");
    assert_eq!(asked.authorization, "");
    here.docker(&json!({"auths": {&host: {"auth": AUTH}}}));
    good(&here.run(&["pull", &reference, "--force"]));
    let asked = registry.asked();
    assert!(
        asked.iter().any(|asked| asked.path.starts_with("/token") && asked.authorization == format!("Basic {AUTH}"))
    );
    // The password is for who gives tokens.
    assert!(asked.iter().all(|asked| asked.path.starts_with("/token") || !asked.authorization.starts_with("Basic")));
    // One token for what belongs together.
    assert_eq!(asked.iter().filter(|asked| asked.path.starts_with("/token")).count(), 2, "{asked:?}");
    // Who writes asks for that from the beginning.
    here.write("hello.wasm", module());
    refused(&here.run(&["push", "hello.wasm", &at(registry.address(), "hello:1")]), &["not found"]);
    let asked = registry.asked().into_iter().rfind(|asked| asked.path.starts_with("/token"));
    assert_eq!(asked.expect("a token").path, "/token?service=here&scope=repository%3Ahello%3Apull%2Cpush");
    // An identity token is exchanged.
    let exchange = tokens(|asked| {
        let form = "service=here&scope=repository%3Ahello%3Apull&grant_type=refresh%5Ftoken&refresh_token=idt&client_id=wasmbox";
        if asked.method == "POST" && asked.body == form {
            Reply::of(200, r#"{"access_token": "good"}"#)
        } else {
            Reply::of(400, "")
        }
    });
    here.docker(&json!({"auths": {exchange.address().to_string(): {"identitytoken": "idt"}}}));
    good(&here.run(&["pull", &at(exchange.address(), "hello"), "--force"]));
    // Docker's gives it by both names.
    for both in [r#"{"token":"good","access_token":"good"}"#, r#"{"token":"good","access_token":""}"#] {
        let registry = tokens(move |_| Reply::of(200, both));
        good(&here.run(&["pull", &at(registry.address(), "hello"), "--force"]));
    }
    let wrong: [(Give, &str); 7] = [
        (|_| Reply::of(200, r#"{"token": "", "access_token": null}"#), "asked for a token, and has sent none"),
        (|_| Reply::of(404, r#"{"errors": [{"code": "NO_REALM"}]}"#), "not found: a token (NO_REALM )"),
        (|_| Reply::flow(Flow::Endless), "a token of more than"),
        (|_| Reply::of(200, "{}"), "asked for a token, and has sent none"),
        (|_| Reply::of(200, r#"{"token": "bad"}"#), "not authorised"),
        (|_| Reply::of(401, ""), "not authorised"),
        (|_| Reply::of(307, "").with("location", "/token"), "307"),
    ];
    for (give, part) in wrong {
        let registry = tokens(give);
        refused(&here.run(&["pull", &at(registry.address(), "hello"), "--force"]), &[part]);
    }
}

/// Blobs are often elsewhere: who stores them is not told who asks.
#[test]
fn credentials_are_for_the_registry_alone() {
    let elsewhere = FakeRegistry::new(|_| Reply::of(200, module()));
    let (documents, blobs) = (Documents::of(&module()), elsewhere.address());
    let layer = wasmbox_tests::registry::digest(module());
    let registry = FakeRegistry::new(move |asked| {
        if asked.authorization.is_empty() {
            Reply::of(401, "").with("www-authenticate", "Basic realm=\"here\"")
        } else if asked.path.contains(&layer) {
            Reply::of(307, "").with("location", format!("http://{blobs}/somewhere?signature=1"))
        } else {
            documents.answer(asked)
        }
    });
    let here = Workplace::new();
    here.docker(&json!({"auths": {registry.address().to_string(): {"auth": AUTH}}}));
    good(&here.run(&["pull", &at(registry.address(), "hello")]));
    assert_eq!(here.read("hello.wasm"), module());
    let asked = elsewhere.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!((asked[0].path.as_str(), asked[0].authorization.as_str()), ("/somewhere?signature=1", ""));
}

/// So is what is sent: the registry says where to.
#[test]
fn uploads_elsewhere_are_anonymous() {
    // What is signed for GET alone is no answer to HEAD.
    let elsewhere = FakeRegistry::new(|asked| Reply::of(if asked.method == "HEAD" { 403 } else { 201 }, ""));
    let blobs = elsewhere.address();
    let registry = FakeRegistry::new(move |asked| match asked.method.as_str() {
        _ if asked.authorization.is_empty() => Reply::of(401, "").with("www-authenticate", "Basic realm=\"here\""),
        "HEAD" => Reply::of(307, "").with("location", format!("http://{blobs}/head")),
        "POST" => Reply::of(202, "").with("location", format!("http://{blobs}/upload?signature=1")),
        _ => Reply::of(201, ""),
    });
    let here = Workplace::new();
    here.docker(&json!({"auths": {registry.address().to_string(): {"auth": AUTH}}}));
    here.write("hello.wasm", module());
    good(&here.run(&["push", "hello.wasm", &at(registry.address(), "hello:1")]));
    let asked = elsewhere.asked();
    assert!(asked.iter().all(|asked| asked.authorization.is_empty()));
    let sent: Vec<&Asked> = asked.iter().filter(|asked| asked.method == "PUT").collect();
    // The module and its configuration.
    assert_eq!(sent.len(), 2, "{asked:?}");
    assert!(sent[0].path.starts_with("/upload?signature=1&digest=sha256") && sent[0].body == module());
}

/// A registry on this machine speaks HTTP; the server that it names for its tokens is not on this machine.
#[test]
fn credentials_are_not_sent_openly() {
    let registry =
        FakeRegistry::new(|_| Reply::of(401, "").with("www-authenticate", "Bearer realm=\"http://0.0.0.0:1/token\""));
    let (here, reference) = (Workplace::new(), at(registry.address(), "hello"));
    here.docker(&json!({"auths": {registry.address().to_string(): {"auth": AUTH}}}));
    refused(&here.run(&["pull", &reference]), &["0.0.0.0:1", "without TLS", "--plain-http"]);
    here.docker(&json!({"auths": {registry.address().to_string(): {"identitytoken": "idt"}}}));
    refused(&here.run(&["pull", &reference]), &["0.0.0.0:1", "without TLS", "--plain-http"]);
    // Nobody answers there; who has nothing to hide may ask it, and who has said so.
    refused(&here.run(&["pull", &reference, "--plain-http"]), &["no registry answers at 0.0.0.0:1"]);
    here.docker(&json!({}));
    refused(&here.run(&["pull", &reference]), &["no registry answers at 0.0.0.0:1"]);
}
