//! The log of one function, for whoever has the token: its last lines, and those that come.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use http::Method;
use serde_json::Value;
use wasmbox_tests::{Answer, Request, WasmBox, Wire, component::http_guest, eventually, guest, workspace};

use super::{TOKEN, ask, get, launch, request};

/// What it is sent is what it writes to its standard error.
fn writes() -> String {
    guest::command("(call $copy (i32.const 0) (i32.const 2))")
}

fn lines(text: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(text).expect("UTF-8");
    text.lines()
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_str(line).expect("a line of JSON"))
        .collect()
}

/// The lines of `name`, when there are so many.
fn wait_for(server: &WasmBox, name: &str, number: usize) -> Vec<Value> {
    eventually(&format!("{number} lines of {name}"), || {
        let found = lines(&get(server, &format!("/functions/{name}/logs")).ok().body);
        (found.len() >= number).then_some(found)
    })
}

fn id(answer: &Answer) -> &str {
    answer.header("wasmbox-invocation-id")
}

/// Follows the log of `name`, whose head has come.
fn follow(server: &WasmBox, name: &str) -> Wire {
    let mut wire = Wire::send_to(
        server.admin_address(),
        format!("GET /functions/{name}/logs?follow HTTP/1.1\r\nHost: box\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"),
    );
    assert_eq!(wire.head().status, 200);
    wire
}

/// Reads until so many lines have come.
fn next_lines(wire: &mut Wire, number: usize) -> Vec<Value> {
    let mut found = Vec::new();
    while found.len() < number {
        found.extend(lines(&wire.chunk().expect("it goes on").expect("it goes on")));
    }
    found
}

#[test]
fn lines_have_their_invocation_and_their_order_and_are_one_functions() {
    let server = launch()
        .function("writes.wat", writes())
        .function("other.wat", writes())
        .function("http.wasm", http_guest())
        .function("trap.wat", guest::command("unreachable"))
        .start();
    let first = server.post("/writes", "one\ntwo \u{1b}[2J\u{202e}").ok();
    server.post("/other", "of another").ok();
    let second = server.post("/writes", "three").ok();
    let found = wait_for(&server, "writes", 3);
    let expected = [(id(&first), "one"), (id(&first), "two \u{1b}[2J\u{202e}"), (id(&second), "three")];
    let shown: Vec<_> = found
        .iter()
        .map(|line| (line["id"].as_str().expect("an id"), line["stderr"].as_str().expect("a text")))
        .collect();
    assert_eq!(shown, expected);
    assert!(found.iter().all(|line| line["unix_ms"].as_u64() > Some(1_700_000_000_000)));
    let raw = get(&server, "/functions/writes/logs").ok();
    assert_eq!(raw.header("content-type"), "application/x-ndjson");
    assert!(!raw.text().contains(['\u{1b}', '\u{202e}']), "{}", raw.text());

    server.get("/http/log?warn,shop,sold-out").ok();
    let line = &wait_for(&server, "http", 1)[0];
    assert_eq!(
        (&line["severity"], &line["context"], &line["log"]),
        (&"warn".into(), &"shop".into(), &"sold-out".into())
    );
    assert_eq!(server.get("/trap").status, 500);
    let line = &wait_for(&server, "trap", 1)[0];
    assert_eq!((&line["status"], &line["code"]), (&500.into(), &"guest-trap".into()));
    assert!(line["failure"].as_str().expect("a text").contains("unreachable"), "{line}");
}

#[test]
fn what_comes_is_followed_until_the_box_ends() {
    let server = launch().function("writes.wat", writes()).function("other.wat", writes()).start();
    let mut early = follow(&server, "writes");
    server.post("/writes", "one").ok();
    server.post("/other", "of another").ok();
    assert_eq!(next_lines(&mut early, 1)[0]["stderr"], "one");
    // Whoever comes later sees what was there.
    let mut late = follow(&server, "writes");
    assert_eq!(next_lines(&mut late, 1)[0]["stderr"], "one");
    server.post("/writes", "two").ok();
    for wire in [&mut early, &mut late] {
        assert_eq!(next_lines(wire, 1)[0]["stderr"], "two");
    }
    let stopping = std::thread::spawn(move || drop(server.stop()));
    // A whole answer: it is not broken off.
    assert!(matches!(early.chunk(), Ok(None)), "it ends well");
    assert!(matches!(late.chunk(), Ok(None)), "it ends well");
    stopping.join().expect("it ends");
}

#[test]
fn who_reads_slowly_is_told_how_many_lines_are_gone() {
    let server = launch()
        .function("writes.wat", writes())
        .flag("--memory-limit", "256Mi")
        .flag("--function-log-rate", 0)
        .start();
    let mut wire = follow(&server, "writes");
    // Some megabytes of lines, of which the box keeps 128 KiB; what is on its way holds not much more.
    let body = "x".repeat(1000) + "\n";
    for _ in 0..12 {
        server.post("/writes", body.repeat(700)).ok();
    }
    // There is room for it when what came before has come to its place.
    let kept = || get(&server, "/functions/writes/logs").ok().body;
    eventually("the lines are in their place", || {
        let before = kept();
        std::thread::sleep(std::time::Duration::from_millis(300));
        (kept() == before).then_some(())
    });
    server.post("/writes", "the last").ok();
    let (mut seen, mut missed) = (0, 0);
    loop {
        let found = next_lines(&mut wire, 1);
        let is_last = found.iter().any(|line| line["stderr"] == "the last");
        missed += found.iter().filter_map(|line| line["missed"].as_u64()).sum::<u64>();
        seen += found.iter().filter(|line| line["missed"].is_null()).count() as u64;
        if is_last {
            break;
        }
    }
    // None is missed that is not told.
    assert_eq!(seen + missed, 12 * 700 + 1, "{seen} lines, {missed} gone");
    assert!(missed > 0, "all of them were kept somewhere");
}

#[test]
fn who_may_not_is_told_nothing_and_few_may_at_once() {
    let off = WasmBox::launch().function("writes.wat", writes()).start();
    ask(&off, Request::get("/functions/writes/logs"), "").problem(404, "uploads-off");

    let server = launch().function("writes.wat", writes()).start();
    server.post("/writes", "secret").ok();
    for token in ["", "Bearer no", "Bearer 0123456789abcdef"] {
        let answer = ask(&server, Request::get("/functions/writes/logs").header("authorization", token), "");
        assert!(!answer.text().contains("secret"));
        answer.problem(401, "unauthorized");
    }
    get(&server, "/functions/none/logs").problem(404, "module-not-found");
    get(&server, "/functions/writes/logs?since=1").problem(400, "bad-request");
    ask(&server, request(Method::DELETE, "/functions/writes/logs"), "").problem(405, "method-not-allowed");
    let followers: Vec<Wire> = (0..16).map(|_| follow(&server, "writes")).collect();
    get(&server, "/functions/writes/logs").problem(503, "uploads-busy");
    drop(followers);
    eventually("places are given back", || (get(&server, "/functions/writes/logs").status == 200).then_some(()));
}

#[test]
fn the_command_follows_and_ends() {
    let server = launch().function("writes.wat", writes()).start();
    let command = |arguments: &[&str]| {
        let mut command = Command::new(workspace::wasmbox());
        command.arg("logs").args(arguments).env_clear().stdin(Stdio::null());
        command.env("WASMBOX_URL", format!("http://{}", server.admin_address())).env("WASMBOX_TOKEN", TOKEN);
        command
    };
    let answer = server.post("/writes", "one\u{1b}[2J").ok();
    wait_for(&server, "writes", 1);
    let output = command(&["writes"]).output().expect("it runs");
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success() && text.ends_with(&format!(" {} one\\u{{1b}}[2J\n", id(&answer))), "{text}");
    let output = command(&["--json", "writes.wasm"]).output().expect("it runs");
    assert_eq!(lines(&output.stdout)[0]["id"], id(&answer));
    let output = command(&["none"]).output().expect("it runs");
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("module-not-found"));

    let mut following = command(&["-f", "writes"]).stdout(Stdio::piped()).spawn().expect("it runs");
    let mut output = BufReader::new(following.stdout.take().expect("a pipe"));
    let mut line = String::new();
    output.read_line(&mut line).expect("a line");
    assert!(line.contains("one"), "{line}");
    server.post("/writes", "two").ok();
    line.clear();
    output.read_line(&mut line).expect("a line");
    assert!(line.ends_with(" two\n"), "{line}");
    drop(server);
    assert_eq!(following.wait().expect("it ends").code(), Some(0));
}
