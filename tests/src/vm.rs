//! Tests that run in a virtual machine with a pure cgroup v2 hierarchy (`tests/vm/run.sh`): with this machine's files, or as a node with systemd
//! and containerd.
//!
//! All tests of a binary share one virtual machine, for each boot costs seconds: the first of them that is run boots it and runs
//! this same binary in it, with the same filter. A test then has passed if it passed in there, and never without having run there.

use std::{
    any::type_name,
    env,
    io::{BufRead, BufReader, pipe},
    process::Command,
    sync::OnceLock,
};

use crate::workspace;

/// Set in the virtual machine.
const INSIDE: &str = "WASMBOX_TEST_INSIDE_VM";

/// Runs `test`, which must be a closure written in the test's own function, in the virtual machine.
///
/// # Panics
/// If it fails there, with its output, or if it did not run there.
pub fn inside<F: FnOnce()>(test: F) {
    static OUTPUT: OnceLock<String> = OnceLock::new();
    within(&OUTPUT, &[], test);
}

/// As [`inside`], on a node: systemd is the first process, containerd one of its units.
///
/// # Panics
/// If it fails there, with its output, or if it did not run there.
pub fn on_a_node<F: FnOnce()>(test: F) {
    static OUTPUT: OnceLock<String> = OnceLock::new();
    within(&OUTPUT, &["--systemd", "--memory", "2560"], test);
}

fn within<F: FnOnce()>(output: &OnceLock<String>, machine: &[&str], test: F) {
    if env::var_os(INSIDE).is_some() {
        return test();
    }
    let output = output.get_or_init(|| run(machine));
    let name = name_of::<F>();
    let result = output.lines().find_map(|line| line.strip_prefix(&format!("test {name} ... ")));
    match result {
        Some("ok") => {}
        Some("FAILED") => panic!("in the virtual machine:\n{}", marked(failure(output, &name))),
        Some(_) | None => panic!("the virtual machine did not run {name}:\n{}", marked(output)),
    }
}

/// `crate::module::test::{{closure}}`, as libtest names it: `module::test`.
fn name_of<F>() -> String {
    let path = type_name::<F>();
    let (_, path) = path.split_once("::").expect("a closure's type is in a crate");
    path.trim_end_matches("::{{closure}}").to_owned()
}

/// What libtest shows of a failed test; everything, if that is not found.
fn failure<'a>(output: &'a str, name: &str) -> &'a str {
    let Some((_, rest)) = output.split_once(&format!("---- {name} stdout ----\n")) else { return output };
    let end = rest.find("\n---- ").or_else(|| rest.find("\nfailures:\n")).unwrap_or(rest.len());
    &rest[..end]
}

/// So that nobody takes its lines for this test's: `tests/run.sh` reads them.
fn marked(output: &str) -> String {
    output.lines().map(|line| format!("vm| {line}\n")).collect()
}

/// Runs this binary in the virtual machine, gives all that it and the machine said.
fn run(machine: &[&str]) -> String {
    let (reader, writer) = pipe().expect("a pipe");
    // Should the tests be killed, the virtual machine ends, too.
    let mut child = Command::new("setpriv")
        .args(["--pdeathsig", "TERM"])
        .arg(workspace::root().join("tests/vm/run.sh"))
        .args(machine)
        // Each test gives up by itself; this is for all of them, on a machine that is busy.
        .args(["--deadline", "600", "--"])
        .arg(env::current_exe().expect("this binary has a path"))
        .args(arguments(env::args().skip(1)))
        // One at a time: they move their own process between cgroups, and the virtual machine is slow.
        .args(["--test-threads=1", "--color=never"])
        .env(INSIDE, "1")
        .stdout(writer.try_clone().expect("another descriptor"))
        .stderr(writer)
        .spawn()
        .expect("setpriv, of the package util-linux, runs");
    let mut output = String::new();
    for line in BufReader::new(reader).lines() {
        let line = line.expect("the output is text");
        eprintln!("vm| {line}");
        output += &line;
        output.push('\n');
    }
    let status = child.wait().expect("the child is ours");
    output + &format!("tests/vm/run.sh: {status}\n")
}

/// The arguments that choose tests. The others are about how they are run and shown, here.
fn arguments(all: impl Iterator<Item = String>) -> Vec<String> {
    let mut chosen = Vec::new();
    let mut all = all.fuse();
    while let Some(argument) = all.next() {
        match argument.as_str() {
            "--exact" => chosen.push(argument),
            "--skip" => chosen.extend([argument, all.next().unwrap_or_default()]),
            "--test-threads" | "--color" | "--format" | "--logfile" => drop(all.next()),
            _ if argument.starts_with("--skip=") || !argument.starts_with('-') => chosen.push(argument),
            _ => {}
        }
    }
    chosen
}
