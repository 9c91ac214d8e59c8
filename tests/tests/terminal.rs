//! `wasmbox top` and `wasmbox status --watch`, on a terminal and elsewhere.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    process::{Command, Output, Stdio},
    thread,
};

use wasmbox_tests::{Pty, WasmBox, eventually, guest, workspace};

fn wasmbox(arguments: &[&str], address: SocketAddr) -> Command {
    let mut command = Command::new(workspace::wasmbox());
    command.args(arguments).args(["--address", &address.to_string()]).env_clear().stdin(Stdio::null());
    command
}

fn output(arguments: &[&str], address: SocketAddr) -> Output {
    wasmbox(arguments, address).output().expect("it runs")
}

fn text(output: &Output) -> &str {
    assert!(output.status.success(), "{output:?}");
    std::str::from_utf8(&output.stdout).expect("text")
}

fn called() -> WasmBox {
    let launch = WasmBox::launch().function("hello.wat", guest::hello()).function("busy.wat", guest::busy());
    let server = launch.function("fails.wat", guest::command("unreachable")).start();
    for _ in 0..5 {
        server.get("/hello").ok();
    }
    server.get("/fails").problem(500, "guest-trap");
    eventually("they are counted", || {
        let overview = server.admin("/overview.json").ok();
        // With the one that was not called.
        let is_whole = overview.text().contains("\"directory\":\"whole\"");
        (is_whole && overview.text().contains("\"calls\":5")).then_some(())
    });
    server
}

#[test]
fn top_lists_once_where_it_is_not_on_a_terminal() {
    let server = called();
    let address = server.admin_address();
    let listed = output(&["top", "--sort", "name"], address);
    let lines: Vec<Vec<&str>> = text(&listed).lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0][..4], ["FUNCTION", "STATE", "RUNS", "CALLS/S"]);
    assert_eq!((lines[1][..2].to_vec(), lines.len()), (vec!["busy", "unloaded"], 4));
    assert_eq!((lines[2][0], lines[2][5], lines[2][6]), ("fails", "1", "1"));
    assert_eq!((lines[3][0], lines[3][5], lines[3][6]), ("hello", "5", "0"));
    // Some pages of 64 KiB, of 200 MiB; of what was not called no limits are known.
    assert_eq!(lines[0][7..], ["CPU", "CPU", "%", "PEAK", "PEAK", "%", "99", "%"]);
    assert_eq!((&lines[3][10..12], lines[1][8], lines[1][11]), (&["KiB", "0"][..], "-", "-"));
    let first = output(&["top", "--once", "--sort=errors", "-n1"], address);
    assert!(text(&first).contains("\nfails ") && text(&first).contains("and 2 more"), "{}", text(&first));
    let some = output(&["top", "--filter", "HELL", "--json"], address);
    let document: serde_json::Value = serde_json::from_str(text(&some)).expect("JSON");
    assert_eq!((&document["matching"], &document["rows"][0]["name"]), (&1.into(), &"hello".into()));
    for bad in [["top", "--sort=size"], ["top", "-n0"], ["top", "-n201"]] {
        assert_eq!(output(&bad, address).status.code(), Some(2), "{bad:?}");
    }
}

#[test]
fn a_terminal_shows_a_box_until_a_key_ends_it() {
    let server = called();
    for arguments in [&["top"][..], &["status", "--watch"]] {
        let mut shown = Pty::spawn(wasmbox_on_terminal(arguments, server.admin_address()));
        shown.writes(&["WasmBox", "hello", "fails", "cores"]);
        if arguments[0] == "status" {
            shown.writes(&["FAILED", "guest-trap", "unreachable"]);
        }
        // Another column, and what happens meanwhile.
        shown.press("s");
        shown.writes(&["memory"]);
        let _busy = server.wire("GET /busy HTTP/1.1\r\nHost: box\r\n\r\n");
        shown.writes(&["busy"]);
        shown.press("q");
        assert!(shown.ended().success());
        let written = shown.written();
        // The screen that was there before is there again, with its cursor.
        assert!(
            written.contains("\x1b[?1049l") && written.ends_with("\x1b[?25h"),
            "{:?}",
            &written[written.len().saturating_sub(80)..]
        );
    }
}

/// The terminal is its standard input.
fn wasmbox_on_terminal(arguments: &[&str], address: SocketAddr) -> Command {
    let mut command = Command::new(workspace::wasmbox());
    command.args(arguments).args(["--address", &address.to_string()]).env_clear();
    command
}

#[test]
fn a_box_that_ends_is_told_on_a_terminal_that_works() {
    let server = called();
    let mut shown = Pty::spawn(wasmbox_on_terminal(&["top"], server.admin_address()));
    shown.writes(&["hello"]);
    drop(server);
    assert_eq!(shown.ended().code(), Some(1));
    shown.writes(&["\x1b[?1049l", "no box answers"]);
    let modes = shown.settings().local_modes;
    assert!(modes.contains(rustix::termios::LocalModes::ICANON | rustix::termios::LocalModes::ECHO), "{modes:?}");
}

/// What answers may be anybody.
#[test]
fn no_escape_sequence_reaches_the_terminal() {
    let server = called();
    let document = server.admin("/overview.json").ok().text().to_owned();
    let status = server.admin("/status").ok().text().to_owned();
    drop(server);
    let hostile = |document: String| {
        let evil = "evil\\u001b]0;title\\u0007\\u009b2J\\n\\u202e";
        let pod =
            document.split_once("\"pod\":").and_then(|(_, rest)| rest.split('"').nth(1)).expect("a pod").to_owned();
        document.replace("hello", evil).replace("fails", evil).replace(&format!("\"{pod}\""), &format!("\"{evil}\""))
    };
    let (document, status) = (hostile(document), hostile(status));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("a bound socket");
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 1024];
            let Ok(read) = stream.read(&mut request) else { continue };
            let body = if request[..read].starts_with(b"GET /status") { &status } else { &document };
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
        }
    });
    for arguments in [&["top", "--once"][..], &["status"]] {
        let shown = output(arguments, address);
        let text = text(&shown);
        assert!(text.contains("evil\\u{1b}]0;title\\u{7}\\u{9b}2J \\u{202e}"), "{text:?}");
        assert!(
            !text.contains(|letter: char| letter.is_control() && letter != '\n' || letter == '\u{202e}'),
            "{text:?}"
        );
    }
    for arguments in [&["top"][..], &["status", "--watch"]] {
        let mut shown = Pty::spawn(wasmbox_on_terminal(arguments, address));
        shown.writes(&["evil\\u{1b}]0;title"]);
        shown.press("\u{3}");
        assert!(shown.ended().success());
        let written = shown.written();
        for harmful in ["\x1b]", "\x07", "\u{9b}", "\u{202e}"] {
            assert!(!written.contains(harmful), "{harmful:?} in {written:?}");
        }
    }
}
