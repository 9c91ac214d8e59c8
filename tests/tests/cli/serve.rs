//! `wasmbox serve` that cannot start.

use std::{fs, io::Read, process::Stdio};

use wasmbox_tests::{eventually, temporary::TempDir};

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
