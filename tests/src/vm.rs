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
    sync::{Mutex, OnceLock, PoisonError},
};

use crate::workspace;

/// Set in the virtual machine.
const INSIDE: &str = "WASMBOX_TEST_INSIDE_VM";
/// Set by `tests/vm/run.sh` in one that is started twice: which time it is.
const BOOT: &str = "WASMBOX_VM_BOOT";
/// What a node's virtual machine is: `tests/vm/run.sh` says.
const NODE: [&str; 3] = ["--systemd", "--memory", "2560"];

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
    within(&OUTPUT, &NODE, test);
}

/// As [`on_a_node`], on a node of this test's own. After `before` it is switched off, whatever runs on it, and started again for `after`. Both must be
/// closures written in the test's own function.
///
/// # Panics
/// If either fails there, with its output, or did not run there.
pub fn on_a_node_that_restarts<F: FnOnce(), G: FnOnce()>(before: F, after: G) {
    if env::var_os(INSIDE).is_some() {
        return match env::var(BOOT).as_deref() {
            Ok("1") => before(),
            Ok(_) => after(),
            // Other tests' machine, which stays on.
            Err(_) => {}
        };
    }
    let name = name_of::<F>();
    let output = run(&[&NODE[..], &["--restart"]].concat(), &["--exact".to_owned(), name.clone()]);
    passed(&output, &name, 2);
}

fn within<F: FnOnce()>(output: &OnceLock<String>, machine: &[&str], test: F) {
    if env::var_os(INSIDE).is_some() {
        return test();
    }
    let output = output.get_or_init(|| run(machine, &arguments(env::args().skip(1))));
    passed(output, &name_of::<F>(), 1);
}

/// # Panics
/// Unless the test has run there so many times, and passed.
fn passed(output: &str, name: &str, times: usize) {
    let line = format!("test {name} ... ");
    let results: Vec<_> = output.lines().filter_map(|said| said.strip_prefix(&line)).collect();
    if results.contains(&"FAILED") {
        panic!("in the virtual machine:\n{}", marked(failure(output, name)));
    }
    let passed = results.len() == times && results.iter().all(|result| *result == "ok");
    assert!(passed, "the virtual machine ran {name} {} of {times} times:\n{}", results.len(), marked(output));
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

/// Runs this binary in the virtual machine, with arguments that choose tests; gives all that it and the machine said.
fn run(machine: &[&str], chosen: &[String]) -> String {
    // Two at once would be as slow as one after the other, and slower than their tests expect.
    static RUNNING: Mutex<()> = Mutex::new(());
    let _running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    let (reader, writer) = pipe().expect("a pipe");
    // Should the tests be killed, the virtual machine ends, too.
    let mut child = Command::new("setpriv")
        .args(["--pdeathsig", "TERM"])
        .arg(workspace::root().join("tests/vm/run.sh"))
        .args(machine)
        // Each test gives up by itself; this is for all of them, on a machine that is busy.
        .args(["--deadline", "600", "--"])
        .arg(env::current_exe().expect("this binary has a path"))
        .args(chosen)
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
