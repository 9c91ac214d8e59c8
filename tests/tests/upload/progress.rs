//! `wasmbox push` of a large module shows how much of it is on its way: on a terminal, and nowhere else.

use std::{fs, process::Command};

use wasmbox_tests::{Pty, WasmBox, binary, guest, outcome::good, workspace};

use super::{TOKEN, launch};

/// The command that pushes a module of 16 MiB.
fn push(server: &WasmBox) -> Command {
    let file = server.launched().directory().join("large.wasm");
    let mut module = binary::encoded(&guest::hello());
    module.extend(binary::custom_section("padding", &vec![b'x'; 16 << 20]));
    fs::write(&file, module).expect("a file");
    let mut command = Command::new(workspace::wasmbox());
    command.arg("push").arg(file).env_clear().env("WASMBOX_TOKEN", TOKEN);
    command.env("WASMBOX_URL", format!("http://{}", server.admin_address()));
    command
}

#[test]
fn a_terminal_shows_how_much_is_sent() {
    let server = launch().start();
    let mut shown = Pty::spawn(push(&server));
    shown.writes(&["░", " B/16.00 MiB", "sending", "large: created: 16.00 MiB"]);
    assert!(shown.ended().success());
    // The line of the bar is gone in the end.
    let written = shown.written();
    let (_, last) = written.rsplit_once("MiB/16.00 MiB").unwrap_or(("", &written));
    assert!(last.contains("\u{1b}[2K") && last.contains("large: created"), "{last:?}");
    assert_eq!(server.get("/large").ok().text(), "hello\n");
}

#[test]
fn nothing_but_the_result_is_written_elsewhere() {
    let server = launch().start();
    let output = push(&server).output().expect("it runs");
    assert!(output.stderr.is_empty(), "{output:?}");
    let said = good(&output);
    assert!(said.starts_with("large: created: 16.00 MiB") && said.lines().count() == 1, "{said:?}");
}
