//! `/status` and `wasmbox status`.

use std::{
    io::{BufRead, BufReader, Read},
    net::TcpListener,
    process::{Command, Output, Stdio},
    thread,
};

use serde_json::Value;
use wasmbox_tests::{WasmBox, eventually, guest, workspace};

/// `wasmbox status` with an empty environment, and in an empty directory.
fn status(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(workspace::wasmbox());
    command.arg("status").args(arguments).env_clear().envs(environment.iter().copied()).stdin(Stdio::null());
    command.output().expect("it runs")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("the output is text")
}

fn busy_box() -> WasmBox {
    let server = WasmBox::launch()
        .function("busy.wat", guest::busy())
        .function("hello.wat", guest::hello())
        .flag("--memory-request", 64)
        .flag("--concurrent-resource-request", 100)
        .flag("--queue-depth-resource-units", 150)
        .flag("--pod-name", "pod-7")
        .start();
    server.get("/hello").ok();
    server.get("/hello").ok();
    server.get("/nothing").problem(404, "module-not-found");
    server.get("/-/ready").ok();
    server
}

#[test]
fn the_document_is_the_live_state() {
    let server = busy_box();
    let running = server.wire("GET /busy HTTP/1.1\r\nHost: box\r\n\r\n");
    server.wait_until_running("busy", 1);
    let queued = server.wire("GET /hello HTTP/1.1\r\nHost: box\r\n\r\n");
    let document = eventually("one runs, one waits, and a core is busy", || {
        let answer = server.admin("/status").ok();
        assert_eq!(answer.header("content-type"), "application/json");
        let document: Value = serde_json::from_str(answer.text()).expect("JSON");
        // CPU in use is measured from time to time.
        let is_busy = document["cpu_cores"].as_f64().is_some_and(|cores| cores > 0.0);
        (document["queued"]["invocations"] == 1 && is_busy).then_some(document)
    });
    let number = |pointer: &str| document.pointer(pointer).and_then(Value::as_f64).unwrap_or(f64::NAN);
    for (pointer, value) in [
        ("/pid", f64::from(server.process().0)),
        ("/capacity/units", 100.0),
        ("/queue_units", 150.0),
        ("/queue_invocations", 0.0),
        ("/in_flight/invocations", 1.0),
        ("/in_flight/units", 64.0),
        ("/queued/units", 64.0),
        ("/functions/busy", 1.0),
        ("/invocations/200", 2.0),
        ("/rejected/module-not-found", 1.0),
        ("/readiness/threshold", 0.9),
        ("/readiness/window", 5.0),
    ] {
        assert_eq!(number(pointer), value, "{pointer} of {document}");
    }
    assert_eq!(document["closed_gates"], serde_json::json!([]), "{document}");
    assert_eq!(document["functions"].as_object().map(serde_json::Map::len), Some(1), "{document}");
    assert_eq!((&document["pod"], &document["readiness"]["ready"]), (&"pod-7".into(), &true.into()));
    assert!(
        number("/uptime_seconds") > 0.0 && number("/workers") >= 1.0 && number("/connections") >= 2.0,
        "{document}"
    );
    assert!(number("/memory/working_set_bytes") > 1e6 && number("/memory/limit_bytes") > 1e6, "{document}");
    let shown = status(&["--address", &server.admin_address().to_string()], &[]);
    assert!(shown.status.success(), "{shown:?}");
    let shown = text(&shown.stdout);
    let lines: Vec<&str> = shown.lines().map(str::trim_end).collect();
    for line in [
        "  state        ready, up ",
        "  running      1 of ",
        "  waiting      1 invocations, 64.0 MiB of 150.0 MiB",
        "  queue-proxy  not connected",
        "  busy                        1",
        "  200                             2",
        "  module-not-found             1",
    ] {
        assert!(lines.iter().any(|shown| shown.starts_with(line)), "{line:?} is not in\n{shown}");
    }
    assert!(lines[0].contains("pod-7") && lines[0].contains(&server.process().0.to_string()), "{shown}");
    drop((queued, running));
}

#[test]
fn where_the_box_is_comes_from_the_same_settings() {
    let server = busy_box();
    let address = server.admin_address().to_string();
    let port = server.admin_address().port().to_string();
    for shown in [
        status(&["--json", "--address", &address], &[]),
        status(&["--json", "--address", &format!("http://{address}/")], &[]),
        status(&["--json", "--admin-port", &port], &[]),
        status(&["--json", "--admin-port", &port, "--admin-host", "127.0.0.1"], &[("HEALTHCHECK_PORT", "1")]),
        status(&["--json"], &[("HEALTHCHECK_PORT", &port)]),
        status(&["--json"], &[("HEALTHCHECK_PORT", &port), ("HEALTHCHECK_HOST", "0.0.0.0")]),
        status(&["--json"], &[("HEALTHCHECK_PORT", &port), ("HEALTHCHECK_HOST", "127.0.0.1")]),
    ] {
        assert!(shown.status.success(), "{shown:?}");
        let document: Value = serde_json::from_slice(&shown.stdout).expect("JSON");
        assert_eq!(document["pid"], server.process().0);
    }
}

#[test]
fn watching_goes_on_until_nobody_listens_or_answers() {
    let server = busy_box();
    let watch = || {
        let mut command = Command::new(workspace::wasmbox());
        command.args(["status", "--watch", "--json", "--address", &server.admin_address().to_string()]);
        command.env_clear().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs")
    };
    let mut one = watch();
    let mut lines = BufReader::new(one.stdout.take().expect("a pipe")).lines();
    for _ in 0..2 {
        let line = lines.next().expect("a line each time").expect("text");
        let document: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(document["pid"], server.process().0);
    }
    // A reader that leaves, as `head` does, is no error.
    drop(lines);
    let ended = eventually("the end", || one.try_wait().expect("the child is ours"));
    assert!(ended.success(), "{ended}");
    let mut other = watch();
    let mut lines = BufReader::new(other.stdout.take().expect("a pipe")).lines();
    lines.next().expect("a line").expect("text");
    drop(server);
    let ended = eventually("the end", || other.try_wait().expect("the child is ours"));
    let mut said = String::new();
    other.stderr.take().expect("a pipe").read_to_string(&mut said).expect("text");
    assert_eq!(ended.code(), Some(1), "{said}");
    assert!(said.contains("no box answers"), "{said}");
}

#[test]
fn where_no_box_is_it_says_so() {
    let refused = |arguments: &[&str], environment: &[(&str, &str)], parts: &[&str]| {
        let shown = status(arguments, environment);
        assert_eq!(shown.status.code(), Some(1), "{shown:?}");
        assert!(shown.stdout.is_empty(), "{shown:?}");
        for part in parts {
            assert!(text(&shown.stderr).contains(part), "{part} is not in {shown:?}");
        }
    };
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = free.local_addr().expect("a bound socket").port().to_string();
    drop(free);
    refused(&[], &[("HEALTHCHECK_PORT", &port)], &["no box answers", &port, "refused", "wasmbox serve", "--address"]);
    refused(&["--admin-port", &port], &[], &["no box answers", &port, "refused", "--admin-port (HEALTHCHECK_PORT)"]);
    let both = status(&["--admin-port", &port, "--address", "127.0.0.1:1"], &[]);
    assert_eq!(both.status.code(), Some(2), "{both:?}");
    // Another server; the function port of a box.
    let server = busy_box();
    refused(&["--address", &server.address().to_string()], &[], &["not the admin port", "404", "--address"]);
    let other = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = other.local_addr().expect("a bound socket").to_string();
    let talks = thread::spawn(move || {
        use std::io::Write;
        let (mut stream, _) = other.accept().expect("a connection");
        stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").expect("it is open");
    });
    refused(&["--address", &address], &[], &["no box answers", "HTTP"]);
    talks.join().expect("it spoke");
}
