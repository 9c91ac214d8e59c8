//! `wasmbox serve` that cannot start.

use std::{fs, io::Read, process::Stdio};

use wasmbox_tests::{WasmBox, eventually, server::Launch, temporary::TempDir};

use super::wasmbox;

/// With no configuration at all it serves ./functions on ports 8095 and 8086, and says what is missing if it cannot.
#[test]
fn serve_says_what_prevents_its_start() {
    let directory = TempDir::new();
    let serve = |arguments: &[&str]| {
        let mut command = wasmbox(&["serve"]);
        command.args(arguments).current_dir(directory.path());
        let mut child = command.stderr(Stdio::piped()).spawn().expect("it runs");
        let status = eventually("a refusal", || child.try_wait().expect("the child is ours"));
        let mut said = String::new();
        child.stderr.take().expect("a pipe").read_to_string(&mut said).expect("text");
        assert_eq!(status.code(), Some(1), "{said}");
        said
    };
    let said = serve(&[]);
    assert!(said.contains("functions") && said.contains("--functions-dir"), "{said}");
    fs::write(directory.path().join("functions"), "").expect("a file");
    let said = serve(&[]);
    assert!(said.contains("is not a directory") && said.contains("--functions-dir"), "{said}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("a bound socket").port();
    for (flag, other, variable) in
        [("--port", "--admin-port", "WEBSERVER_PORT"), ("--admin-port", "--port", "HEALTHCHECK_PORT")]
    {
        let said = serve(&[
            "--functions-dir=.",
            "--cache-dir=none",
            "--host=127.0.0.1",
            "--admin-host=127.0.0.1",
            &format!("{flag}={port}"),
            &format!("{other}=0"),
        ]);
        let line = said.lines().find(|line| line.starts_with("wasmbox: ")).expect("the reason");
        for part in [&port.to_string(), flag, variable, "in use", "choose another with"] {
            assert!(line.contains(part), "{part} is not in {line}");
        }
        assert_eq!(line.matches("in use").count(), 1, "said twice: {line}");
    }
    // An address that this machine does not have (RFC 5737).
    for (flag, other, variable) in
        [("--host", "--admin-host", "WEBSERVER_HOST"), ("--admin-host", "--host", "HEALTHCHECK_HOST")]
    {
        let said = serve(&[
            "--functions-dir=.",
            "--cache-dir=none",
            "--port=0",
            "--admin-port=0",
            &format!("{flag}=192.0.2.1"),
            &format!("{other}=127.0.0.1"),
        ]);
        let line = said.lines().find(|line| line.starts_with("wasmbox: ")).expect("the reason");
        for part in ["192.0.2.1", flag, variable, "choose another with"] {
            assert!(line.contains(part), "{part} is not in {line}");
        }
    }
}

/// What only a configuration that can be read shows. That each ends with a remedy is looked at by `refusal` itself, here and in all other tests.
#[test]
fn what_cannot_be_had_is_named_with_a_remedy() {
    let file = |launch: &Launch| {
        let path = launch.directory().join("file");
        fs::write(&path, "").expect("a file");
        path.display().to_string()
    };
    type Change = fn(Launch, String) -> Launch;
    let cases: [(Change, &[&str]); 6] = [
        (|launch, file| launch.flag("--keyvalue-dir", file), &["--keyvalue-dir", "/file"]),
        (|launch, file| launch.flag("--functions-dir", file), &["--functions-dir", "/file"]),
        (|launch, file| launch.flag("--cache-dir", file), &["--cache-dir", "/file"]),
        (
            |launch, _| launch.env("ENABLE_CGROUPS", true).flag("--cgroup-root", "/nowhere"),
            &["--cgroup-root", "/nowhere"],
        ),
        (|launch, _| launch.flag("--log-level", "quux"), &["--log-level", "quux"]),
        // No addresses for the pools of instances.
        (|launch, _| launch.through(["prlimit", "--as=4294967296"]), &["--max-invocations", "ulimit -v"]),
    ];
    for (change, parts) in cases {
        let launch = WasmBox::launch();
        let path = file(&launch);
        let said = change(launch, path).refusal();
        for part in parts {
            assert!(said.contains(part), "{part} is not in {said}");
        }
    }
}

/// However few there may be. What is started by the tests needs some itself.
#[test]
fn too_few_descriptors_are_named() {
    for number in (5..64).step_by(3) {
        let limit = format!("--nofile={number}:{number}");
        let said = WasmBox::launch().through(["prlimit", &limit]).refusal();
        for part in ["open files", &format!("is {number},"), "ulimit -n"] {
            assert!(said.contains(part), "{part} is not in {said}");
        }
    }
}
