//! What `wasmbox pull` leaves in a directory.

use std::{fs, io::Read as _, os::unix::process::ExitStatusExt};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use wasmbox_tests::{
    eventually,
    registry::{Asked, Documents, FakeRegistry, Flow, Reply, digest},
};

use super::{Workplace, at, good, module, refused};

fn with_settings(text: &str) -> Documents {
    let mut documents = Documents::of(&module());
    documents.manifest["annotations"] = json!({"dev.wasmbox.settings": text});
    documents
}

fn serve(documents: Documents) -> FakeRegistry {
    FakeRegistry::new(move |asked| documents.answer(asked))
}

#[test]
fn files_are_named_by_who_asks() {
    let mut documents = with_settings("# ours\nargs = ['one']\n");
    for title in ["../../evil.wasm", "/etc/evil"] {
        documents.manifest["layers"][0]["annotations"] = json!({"org.opencontainers.image.title": title});
        documents.manifest["annotations"]["org.opencontainers.image.title"] = title.into();
    }
    let (here, registry) = (Workplace::new(), serve(documents));
    let reference = at(registry.address(), "team/hello:1");
    let said = good(&here.run(&["pull", &reference]));
    assert!(said.contains("hello.wasm and hello.toml") && said.contains("digest sha256:"), "{said}");
    assert_eq!(here.names(), ["hello.toml", "hello.wasm"]);
    assert_eq!((here.read("hello.wasm"), here.read("hello.toml")), (module(), b"# ours\nargs = ['one']\n".to_vec()));
    fs::create_dir(here.path().join("functions")).expect("a directory");
    good(&here.run(&["pull", &reference, "--output", "functions"]));
    good(&here.run(&["pull", &reference, "--output", "functions/other.wasm", "--no-settings"]));
    let mut names: Vec<_> = fs::read_dir(here.path().join("functions"))
        .expect("it is there")
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["hello.toml", "hello.wasm", "other.wasm"]);
    refused(&here.run(&["pull", &reference, "--output", "nowhere/"]), &["nowhere/", "no such directory"]);
    refused(&here.run(&["pull", &reference, "--output", "nowhere/x.wasm"]), &["nowhere"]);
    refused(&here.run(&["pull", &reference, "--output", "x.toml"]), &["x.toml", "hello.wasm"]);
}

#[test]
fn nothing_is_replaced_unless_it_is_asked_for() {
    let (here, registry) = (Workplace::new(), serve(with_settings("args = ['new']")));
    let reference = at(registry.address(), "hello");
    here.write("hello.wasm", "old");
    refused(&here.run(&["pull", &reference]), &["hello.wasm", "--force"]);
    // Nobody was asked for what cannot be kept.
    assert!(registry.asked().is_empty());
    fs::remove_file(here.path().join("hello.wasm")).expect("it is there");
    here.write("hello.toml", "args = ['old']");
    refused(&here.run(&["pull", &reference]), &["hello.toml", "--force"]);
    assert_eq!((here.names(), here.read("hello.toml")), (vec!["hello.toml".into()], b"args = ['old']".to_vec()));
    good(&here.run(&["pull", &reference, "--no-settings"]));
    assert_eq!(here.read("hello.toml"), b"args = ['old']");
    good(&here.run(&["pull", &reference, "--force"]));
    assert_eq!((here.read("hello.wasm"), here.read("hello.toml")), (module(), b"args = ['new']".to_vec()));
    // Settings of another function would be this one's.
    let without = serve(Documents::of(&module()));
    let reference = at(without.address(), "hello");
    fs::remove_file(here.path().join("hello.wasm")).expect("it is there");
    refused(&here.run(&["pull", &reference]), &["hello.toml", "--force"]);
    good(&here.run(&["pull", &reference, "--force"]));
    assert_eq!(here.names(), ["hello.wasm"]);
}

/// What comes while a function is fetched is nobody's to replace, and what cannot be replaced leaves all as it was.
#[test]
fn both_files_come_or_none() {
    for documents in [Documents::of(&module()), with_settings("args = ['new']")] {
        let here = Workplace::new();
        let (layer, place) = (digest(module()), here.path().to_owned());
        let registry = FakeRegistry::new(move |asked| {
            if asked.path.contains(&layer) {
                fs::write(place.join("hello.toml"), "args = ['theirs']").expect("a file");
            }
            documents.answer(asked)
        });
        let reference = at(registry.address(), "hello");
        refused(&here.run(&["pull", &reference]), &["hello.toml", "--force"]);
        assert_eq!((here.names(), here.read("hello.toml")), (vec!["hello.toml".into()], b"args = ['theirs']".to_vec()));
        // A directory is in the module's place.
        fs::create_dir(here.path().join("hello.wasm")).expect("a directory");
        refused(&here.run(&["pull", &reference, "--force"]), &["hello.wasm"]);
        assert_eq!(
            (here.names(), here.read("hello.toml")),
            (vec!["hello.toml".into(), "hello.wasm".into()], b"args = ['theirs']".to_vec())
        );
    }
    // There were none before: there are none after it.
    let (here, registry) = (Workplace::new(), serve(with_settings("args = ['new']")));
    let reference = at(registry.address(), "hello");
    fs::create_dir(here.path().join("hello.wasm")).expect("a directory");
    refused(&here.run(&["pull", &reference, "--force"]), &["hello.wasm"]);
    assert_eq!(here.names(), ["hello.wasm"]);
    fs::remove_dir(here.path().join("hello.wasm")).expect("our own");
    fs::create_dir(here.path().join("hello.toml")).expect("a directory");
    refused(&here.run(&["pull", &reference, "--force"]), &["hello.toml"]);
    assert_eq!(here.names(), ["hello.toml"]);
}

#[test]
fn settings_that_are_not_wanted_need_not_be_right() {
    let (here, registry) = (Workplace::new(), serve(with_settings("name = 'a-crate'")));
    let reference = at(registry.address(), "hello");
    refused(&here.run(&["pull", &reference]), &["are no function's", "name"]);
    good(&here.run(&["pull", &reference, "--no-settings"]));
    assert_eq!(here.names(), ["hello.wasm"]);
}

#[test]
fn commands_that_build_do_not_come_along() {
    let (here, registry) =
        (Workplace::new(), serve(with_settings("args = ['x']\n[build]\ncommand = ['touch', 'evil']\n")));
    good(&here.run(&["pull", &at(registry.address(), "hello")]));
    assert_eq!(here.read("hello.toml"), b"args = [\"x\"]\n");
}

/// Ended while the module arrives, by whatever signal.
#[test]
fn what_is_interrupted_leaves_nothing() {
    let (layer, documents) = (digest(module()), with_settings("args = ['x']"));
    let answer = move |asked: &Asked| {
        if asked.path.contains(&layer) {
            Reply::flow(Flow::Stalls(module()[..20].to_vec()))
        } else {
            documents.answer(asked)
        }
    };
    let (here, registry) = (Workplace::new(), FakeRegistry::new(answer));
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let mut child = here.command(&["pull", &at(registry.address(), "hello")]).spawn().expect("it runs");
        eventually("some of it has arrived", || {
            let names = here.names();
            let [name] = names.as_slice() else { return None };
            assert!(name.starts_with(".hello.wasm."), "{name}");
            (fs::metadata(here.path().join(name)).ok()?.len() == 20).then_some(())
        });
        kill_process(Pid::from_child(&child), signal).expect("it is ours");
        let status = child.wait().expect("it is ours");
        let mut said = String::new();
        child.stderr.take().expect("a pipe").read_to_string(&mut said).expect("text");
        assert_eq!((status.code(), here.names()), (Some(1), Vec::<String>::new()), "{said}");
        assert!(said.contains("interrupted: nothing was written"), "{said}");
    }
}

/// On its way to a box there is nothing to clean up: signals end it, also while the box is awaited.
#[test]
fn a_push_ends_by_a_signal() {
    let (here, registry) = (Workplace::new(), serve(Documents::of(&module())));
    here.write("token", "a-token-of-the-test-box\n");
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", silent.local_addr().expect("it is bound"));
    let reference = at(registry.address(), "hello");
    let mut child =
        here.command(&["push", &reference, "--url", &url, "--token-file", "token"]).spawn().expect("it runs");
    // It has the function when it talks to the box.
    let (mut stream, _) = silent.accept().expect("a connection");
    stream.read_exact(&mut [0; 4]).expect("a request");
    // Whoever runs the tests may have others ignored, as nohup does: that is inherited.
    kill_process(Pid::from_child(&child), Signal::TERM).expect("it is ours");
    let status = eventually("it ends", || child.try_wait().expect("it is ours"));
    assert_eq!(status.signal(), Some(Signal::TERM.as_raw()));
}

/// What is said of somebody who does not take part was meant otherwise.
#[test]
fn flags_of_others_are_refused() {
    let here = Workplace::new();
    here.write("hello.wasm", module());
    here.write("token", "a-token-of-the-test-box\n");
    for flags in [&["--plain-http"][..], &["--timeout", "1s"], &["--ca", "ca.pem"], &["--max-module-size", "1Mi"]] {
        let arguments = [&["push", "hello.wasm", "--token-file", "token"][..], flags].concat();
        refused(&here.run(&arguments), &[flags[0], "is for a registry"]);
    }
    let reference = "oci://127.0.0.1:1/hello:1";
    for flags in [["--url", "http://127.0.0.1:1"], ["--token-file", "token"]] {
        refused(&here.run(&[&["push", "hello.wasm", reference][..], &flags].concat()), &[flags[0], "is for a box"]);
    }
    // Variables are for all commands.
    let mut command = here.command(&["push", "hello.wasm", reference]);
    let output = command.env("WASMBOX_URL", "http://127.0.0.1:1").env("WASMBOX_TOKEN_FILE", "token").output();
    refused(&output.expect("it runs"), &["no registry answers at 127.0.0.1:1"]);
}

#[test]
fn what_is_no_reference_is_refused() {
    let here = Workplace::new();
    for reference in
        ["hello", "oci://registry.example", "oci://registry.example/../x", "oci://registry.example/a@sha256:1"]
    {
        refused(&here.run(&["pull", reference]), &[reference, "expected oci://REGISTRY/NAME:TAG"]);
    }
    here.write("hello.wasm", module());
    refused(&here.run(&["push", "hello.wasm", "oci://127.0.0.1:1/hello"]), &["takes a tag"]);
    refused(&here.run(&["push", "hello.wasm", "oci://127.0.0.1:1/hello:1"]), &["127.0.0.1:1", "no registry answers"]);
    here.write("text.wasm", "nothing of the kind");
    refused(&here.run(&["push", "text.wasm", "oci://127.0.0.1:1/hello:1"]), &["text.wasm", "no module"]);
    refused(
        &here.run(&["push", "hello.wasm", "oci://127.0.0.1:1/hello:1", "--max-module-size", "9B"]),
        &["hello.wasm", "--max-module-size"],
    );
    refused(&here.run(&["push", "--image", "home", "oci://127.0.0.1:1/hello:1"]), &["home"]);
    refused(&here.run(&["push", "oci://127.0.0.1:1/a:1", "oci://127.0.0.1:1/b:1"]), &["oras copy"]);
    here.write("hello.toml", "args = [");
    refused(&here.run(&["push", "hello.wasm", "oci://127.0.0.1:1/hello:1"]), &["hello.toml", "TOML"]);
}
