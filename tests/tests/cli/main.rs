//! The command line: `wasmbox run`, `compile`, `explain`, `completions`, `man`, `--help`, and what keeps `serve` from starting. `status` and
//! `doctor` have files of their own.

mod compile;
mod help;
mod run;
mod serve;

use std::{
    io::Write,
    process::{Command, Output, Stdio},
};

use wasmbox_tests::workspace;

/// `wasmbox` with an empty environment.
fn wasmbox(arguments: &[&str]) -> Command {
    let mut command = Command::new(workspace::wasmbox());
    command.args(arguments).env_clear().stdin(Stdio::null());
    command
}

/// Runs it to its end, with `input`.
fn output(mut command: Command, input: &[u8]) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    // One that does not read its input is no error.
    let _ = child.stdin.take().expect("a pipe").write_all(input);
    child.wait_with_output().expect("it ends")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("the output is text")
}
