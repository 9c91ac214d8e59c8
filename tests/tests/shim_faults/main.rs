//! The shim when something else fails. Each test ends with the harness's check that nothing is left.
//!
//! - [`killed`]: shims and boxes that are killed; [`daemon`]: a containerd that comes and goes; [`runtime`]: an OCI runtime that hangs
//! - [`streams`]: loggers, disks and readers; [`ends`]: of processes, that are late; [`bundle`]: garbage; [`crowd`]: many at once

mod bundle;
mod crowd;
mod daemon;
mod ends;
mod killed;
mod runtime;
mod streams;

use std::{fs, process::Command};

use wasmbox_tests::{Containerd, Image, Version, eventually, guest};

fn start(version: Version) -> (Containerd, Image) {
    let containerd = Containerd::start(version);
    let image = Image::busybox();
    containerd.import(&image);
    (containerd, image)
}

fn box_image() -> Image {
    Image::of("box")
        .file("functions/hi.wat", guest::hello())
        .entrypoint(&["wasmbox", "serve", "--functions-dir", "/functions", "--cache-dir", "none"])
        .build()
}

/// `ctr run --rm` with the shim under test.
fn ctr_run(containerd: &Containerd, words: &[&str]) -> Command {
    let mut ctr = containerd.command("ctr");
    ctr.args(["--namespace", containerd.namespace(), "run", "--rm", "--runtime", "io.containerd.wasmbox.v1"]);
    ctr.args(words);
    ctr
}

/// The ids in a list of `ctr`.
fn ids(list: &str) -> Vec<String> {
    list.lines().skip(1).filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

/// As a user would after a fault: removes what containerd knows, whatever its state.
fn remove_all(containerd: &Containerd) {
    eventually("all tasks and containers are removed", || {
        for id in ids(&containerd.ctr(&["task", "ls"]).ok()) {
            containerd.ctr(&["task", "delete", "--force", &id]);
        }
        for id in ids(&containerd.ctr(&["container", "ls"]).ok()) {
            containerd.ctr(&["container", "delete", &id]);
        }
        (ids(&containerd.ctr(&["task", "ls"]).ok()).is_empty()
            && ids(&containerd.ctr(&["container", "ls"]).ok()).is_empty())
        .then_some(())
    });
}

fn stopped(containerd: &Containerd, id: &str) {
    let is_stopped =
        |list: &str| list.lines().any(|line| line.starts_with(&format!("{id} ")) && line.contains("STOPPED"));
    eventually("its end", || is_stopped(&containerd.ctr(&["task", "ls"]).ok()).then_some(()));
}

/// `ctr` makes the directories of its fifos, and leaves them if it fails halfway.
fn clear_fifos(containerd: &Containerd) {
    for entry in fs::read_dir(containerd.node().path("/run/containerd/fifo")).into_iter().flatten().flatten() {
        fs::remove_dir_all(entry.path()).expect("nobody uses it");
    }
}
