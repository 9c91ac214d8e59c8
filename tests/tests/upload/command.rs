//! `wasmbox push`, `list`, `rm` and `rollback`.

use std::{
    fs,
    process::{Command, Output, Stdio},
};

use http::Method;
use wasmbox_tests::{
    WasmBox, component, guest,
    outcome::{self, good},
    workspace,
};

use super::{TOKEN, ask, assert_nothing_left, launch, request, token_file};

fn wasmbox(arguments: &[&str], environment: &[(&str, String)]) -> Output {
    let mut command = Command::new(workspace::wasmbox());
    command.args(arguments).env_clear().stdin(Stdio::null());
    for (name, value) in environment {
        command.env(name, value);
    }
    command.output().expect("it runs")
}

fn at(server: &WasmBox) -> Vec<(&'static str, String)> {
    vec![("WASMBOX_URL", format!("http://{}/", server.admin_address())), ("WASMBOX_TOKEN", TOKEN.to_owned())]
}

#[track_caller]
fn refused(output: &Output, parts: &[&str]) {
    let said = outcome::refused(output, parts);
    assert!(!said.contains(TOKEN), "{said}");
}

/// They are written for a function of another kind: what serves goes on, and of a new function nothing is left.
#[test]
fn settings_that_the_module_does_not_fit_are_refused() {
    let server = launch().function("by-hand.wat", guest::hello()).start();
    let environment = at(&server);
    let run = |arguments: &[&str]| wasmbox(arguments, &environment);
    let work = server.launched().directory().join("work");
    fs::create_dir(&work).expect("a directory");
    let file = |name: &str| work.join(name).display().to_string();
    fs::write(file("command.wat"), guest::printing("serves", "")).expect("a file");
    good(&run(&["push", &file("command.wat")]));
    fs::write(file("command.toml"), "[instance]\nreuse = 100").expect("a file");
    for name in ["command", "other"] {
        refused(&run(&["push", &file("command.wat"), "--name", name]), &["instance.reuse", "is a command"]);
    }
    assert_eq!(server.get("/command").ok().text(), "serves");
    server.get("/other").problem(404, "module-not-found");
    assert_nothing_left(&server.functions(), &["by-hand.wat", "command.wasm"]);
    // For a component they are good.
    fs::write(file("component.wasm"), component::http_guest()).expect("a file");
    fs::write(file("component.toml"), "[instance]\nreuse = 2").expect("a file");
    good(&run(&["push", &file("component.wasm")]));
    let instance = || server.get("/component/instance").ok().header("wasmbox-instance").to_owned();
    assert_eq!([instance(), instance(), instance()], ["fresh", "reused", "fresh"]);
    // And then a command cannot take its place.
    refused(
        &run(&["push", &file("command.wat"), "--name", "component", "--no-settings"]),
        &["instance.reuse", "is a command"],
    );
    server.get("/component/instance").ok();
    // But one that has its own settings with it can: those that there are go first.
    fs::write(file("command.toml"), "args = ['x']").expect("a file");
    let said = good(&run(&["push", &file("command.wat"), "--name", "component"]));
    assert!(said.starts_with("component: replaced, with its settings"), "{said}");
    assert_eq!(server.get("/component").ok().text(), "serves");
    // Settings that are broken already say nothing of the module.
    server.put("broken.wat", guest::hello());
    server.put("broken.toml", "nonsense = 1");
    let put = |text: &'static str| ask(&server, request(Method::PUT, "/functions/broken/settings"), text);
    put("[instance]\nreuse = 2").problem(422, "module-invalid").names(&["instance.reuse", "is a command"]);
    assert_eq!(put("args = ['x']").status, 204);
    assert_eq!(server.get("/broken").ok().text(), "hello\n");
    // What was not put there by this way has no versions, and is no error.
    assert!(good(&run(&["list", "by-hand"])).starts_with("by-hand has no versions yet"));
}

#[test]
fn push_says_what_it_has_changed() {
    let server = launch().start();
    let environment = at(&server);
    let work = server.launched().directory().join("work");
    fs::create_dir(&work).expect("a directory");
    let file = work.join("greeting.wat").display().to_string();
    let push = |text: &str, settings: &str| {
        fs::write(&file, guest::printing(text, "")).expect("a file");
        fs::write(work.join("greeting.toml"), settings).expect("a file");
        good(&wasmbox(&["push", &file], &environment))
    };
    for (text, settings, said) in [
        ("one", "args = ['one']", "greeting: created, with its settings: "),
        ("one", "args = ['one']", "greeting: unchanged, with its settings: "),
        ("one", "args = ['two']", "greeting: the same module, with other settings: "),
        ("two", "args = ['two']", "greeting: replaced, with its settings: "),
    ] {
        let is = push(text, settings);
        assert!(is.starts_with(said), "{said:?}: {is}");
    }
}

#[test]
fn push_list_rollback_and_rm() {
    let server = launch().start();
    let environment = at(&server);
    let run = |arguments: &[&str]| wasmbox(arguments, &environment);
    let work = server.launched().directory().join("work");
    fs::create_dir(&work).expect("a directory");
    let file = work.join("greeting.wat").display().to_string();
    fs::write(&file, guest::arguments()).expect("a file");
    fs::write(work.join("greeting.toml"), "args = ['one']").expect("a file");
    let said = good(&run(&["push", &file]));
    assert!(said.starts_with("greeting: created, with its settings") && said.contains("version 1"), "{said}");
    assert_eq!(server.get("/greeting").ok().text(), "greeting\0one\0\n\n");
    // Another module, and other settings.
    fs::write(&file, guest::printing("two", "")).expect("a file");
    fs::remove_file(work.join("greeting.toml")).expect("it is there");
    let said = good(&run(&["push", &file]));
    assert!(said.starts_with("greeting: replaced: "), "{said}");
    assert_eq!(server.get("/greeting").ok().text(), "two");
    good(&run(&["push", &file, "--name", "other", "--create"]));
    refused(&run(&["push", &file, "--name", "other", "--create"]), &["other", "precondition-failed"]);
    let listed = good(&run(&["list"]));
    let lines: Vec<&str> = listed.lines().collect();
    assert!(
        lines[0].starts_with("NAME") && lines[1].starts_with("greeting") && lines[2].starts_with("other"),
        "{listed}"
    );
    let versions = good(&run(&["list", "greeting"]));
    assert_eq!(versions.lines().count(), 3, "{versions}");
    assert!(good(&run(&["list", "--json"])).contains("\"name\": \"greeting\""));
    good(&run(&["rollback", "greeting"]));
    assert_eq!(server.get("/greeting").ok().text(), "greeting\0one\0\n\n");
    good(&run(&["rollback", "greeting", "--to", "2"]));
    assert_eq!(server.get("/greeting").ok().text(), "two\0one\0\n\n".split('\0').next().expect("a text"));
    let said = good(&run(&["rm", "greeting"]));
    assert!(said.contains("wasmbox rollback greeting"), "{said}");
    server.get("/greeting").problem(404, "module-not-found");
    good(&run(&["rollback", "greeting"]));
    server.get("/greeting").ok();
    good(&run(&["rm", "greeting", "--purge"]));
    refused(&run(&["rollback", "greeting"]), &["greeting", "version-not-found"]);
    good(&run(&["rm", "other"]));
    good(&run(&["rm", "other", "--purge"]));
    assert_nothing_left(&server.functions(), &[]);
}

#[test]
fn what_goes_wrong_says_what_to_do() {
    let server = launch().start();
    let environment = at(&server);
    let run = |arguments: &[&str]| wasmbox(arguments, &environment);
    let work = server.launched().directory().join("work");
    fs::create_dir(&work).expect("a directory");
    let file = |name: &str, content: &str| {
        fs::write(work.join(name), content).expect("a file");
        work.join(name).display().to_string()
    };
    let good_file = file("good.wat", &guest::hello());
    let invalid = file("invalid.wasm", "nothing of the kind");
    file("invalid.toml", "args = ['x']");
    refused(&run(&["push", &invalid]), &["invalid.wasm", "wasmbox explain module-invalid"]);
    // Its settings are gone, too.
    assert_nothing_left(&server.functions(), &[]);
    refused(&run(&["push", "/nowhere/x.wasm"]), &["/nowhere/x.wasm"]);
    refused(&run(&["push", &work.display().to_string()]), &["not a file"]);
    refused(&run(&["push", &file("a b.wasm", "")]), &["a b", "--name"]);
    refused(&run(&["rollback", "nothing"]), &["nothing", "wasmbox explain version-not-found"]);
    refused(&run(&["rm", "nothing"]), &["nothing"]);
    refused(&run(&["list", "nothing"]), &["nothing"]);
    let url = environment[0].clone();
    refused(&wasmbox(&["push", &good_file], std::slice::from_ref(&url)), &["--token-file", "WASMBOX_TOKEN"]);
    let wrong = ("WASMBOX_TOKEN", "wrong".to_owned());
    refused(&wasmbox(&["push", &good_file], &[url.clone(), wrong]), &["--upload-token-file", "unauthorized"]);
    let token = token_file(server.launched()).display().to_string();
    let empty = file("empty", "");
    refused(&wasmbox(&["list", "--token-file", &empty], std::slice::from_ref(&url)), &["empty"]);
    assert!(good(&wasmbox(&["push", &good_file, "--token-file", &token], &[url])).contains("created"));
    refused(&run(&["list", "--url", "https://box"]), &["TLS", "port-forward"]);
    refused(&run(&["list", "--url", "http://127.0.0.1:1"]), &["127.0.0.1:1", "wasmbox serve", "--url"]);
    let function_port = format!("http://{}", server.address());
    refused(&run(&["push", &good_file, "--url", &function_port]), &["module-not-found"]);
    let off = WasmBox::launch().start();
    let off = format!("http://{}", off.admin_address());
    refused(&run(&["list", "--url", &off]), &["--upload-token-file"]);
}
