//! The cgroups of workers: made, removed, left by a killed box, and not taken from others.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use wasmbox_tests::{TestCgroup, WasmBox, eventually, guest, temporary::TempDir, workspace};

use super::{assert_share, call, leaf_number, quiet};

#[test]
fn fresh_cgroups_are_made_and_removed() {
    let _quiet = quiet();
    let cgroup = TestCgroup::cpu();
    let server = WasmBox::launch()
        .function("busy.wat", guest::busy())
        .function("hello.wat", guest::hello())
        .env("CGROUP_MODE", "fresh")
        .flag("--log-level", "info,invocation=off")
        .within(&cgroup)
        .start();
    server.logged(&["serving", "cgroups=v1, fresh, "]);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..250 {
                    let answer = call(&server, "/hello", "500");
                    let times = [answer.number("cgroup-creation-time"), answer.number("cgroup-assign-time")];
                    assert!(times.iter().all(|time| *time > 0.0), "{answer:?}");
                }
            });
        }
    });
    eventually("no leaf is left", || cgroup.leaves().is_empty().then_some(()));
    for operation in ["create", "join", "remove"] {
        let label = format!("operation=\"{operation}\"");
        eventually(&format!("{operation}, once for each"), || {
            let count = server.metrics().sum("wasmbox_cgroup_operation_seconds_count", &[&label]);
            assert!(count <= 1000.0, "{count} times {operation}");
            (count == 1000.0).then_some(())
        });
    }
    assert_share(&server, "100", Duration::from_millis(500), 0.1);
    eventually("no leaf is left", || cgroup.leaves().is_empty().then_some(()));
    let launch = server.stop();
    assert!(cgroup.leaves().is_empty());
    assert!(!fs::read_to_string(launch.directory().join("log")).expect("a log").contains("WARN"));
}

#[test]
fn sigterm_leaves_nothing() {
    let cgroup = TestCgroup::cpu();
    let server = WasmBox::launch()
        .function("busy.wat", guest::busy())
        .function("hello.wat", guest::hello())
        .flag("--drain-timeout", "200ms")
        .within(&cgroup)
        .start();
    server.get("/hello").ok();
    let running: Vec<_> =
        (0..5).map(|_| server.wire("GET /busy HTTP/1.1\r\nHost: box\r\nCpu-Quota: 20\r\n\r\n")).collect();
    server.wait_until_running("busy", 5);
    eventually("each has a leaf", || (cgroup.leaves().len() >= 5).then_some(()));
    let _ = server.stop();
    assert!(cgroup.leaves().is_empty(), "{:?}", cgroup.leaves());
    drop(running);
}

#[test]
fn the_next_start_removes_what_a_killed_box_left() {
    let cgroup = TestCgroup::cpu();
    let launch =
        || WasmBox::launch().function("busy.wat", guest::busy()).function("hello.wat", guest::hello()).within(&cgroup);
    let other = launch().flag("--inline", "off").start();
    call(&other, "/hello", "100");
    let others_leaf = cgroup.leaf();

    let mut server = launch().start();
    let running: Vec<_> = (0..3).map(|_| server.wire("GET /busy HTTP/1.1\r\nHost: box\r\n\r\n")).collect();
    server.wait_until_running("busy", 3);
    eventually("each has a leaf", || (cgroup.leaves().len() > 3).then_some(()));
    server.signal(rustix::process::Signal::KILL);
    server.wait();
    drop(running);
    let left = cgroup.leaves().len() - 1;
    assert!(left >= 3, "nobody was there to remove them: {left}");

    let server = server.stop().start();
    server.logged(&[&format!("removed {left} cgroups that a killed box had left")]);
    server.get("/hello").ok();
    // The other box was not disturbed: its leaf is there, and holds.
    assert!(others_leaf.is_dir());
    assert_share(&other, "100", Duration::from_millis(500), 0.1);
    assert!(others_leaf.is_dir(), "it is still the same");
}

/// Boxes in different containers may have the same process number, and share a root: another's leaf of the same name is not taken.
#[test]
fn a_name_that_another_box_has() {
    let cgroup = TestCgroup::cpu();
    let path = cgroup.path("cpu").display().to_string();
    // The lock is its own, but not one that it took: as if another process had it.
    let taken = format!("mkdir {path}/wasmbox-$$-0; exec 9<{path}/wasmbox-$$-0; flock 9; exec \"$@\"");
    let server = WasmBox::launch()
        .function("hello.wat", guest::hello())
        .flag("--inline", "off")
        .within(&cgroup)
        .through(["sh", "-ec", &taken, "sh"])
        .start();
    let others = cgroup.leaf();
    let answer = call(&server, "/hello", "100");
    assert!(answer.number("cgroup-creation-time") > 0.0);
    assert_eq!(cgroup.leaves().len(), 2);
    assert_eq!(leaf_number(&others, "cpu.cfs_quota_us"), -1, "it was not touched");
    drop(server);
    assert_eq!(cgroup.leaf(), others);
    fs::remove_dir(others).expect("nobody is in it");
}

#[test]
fn run_limits_and_leaves_nothing() {
    let cgroup = TestCgroup::cpu();
    let directory = TempDir::new();
    let module = directory.path().join("busy.wat");
    fs::write(&module, guest::busy()).expect("a file");
    let run = |flags: &[&str]| {
        let enter = cgroup.enter();
        let mut command = Command::new(&enter[0]);
        command.args(&enter[1..]).arg(workspace::wasmbox()).args(["run", "--cache-dir=none"]).args(flags).arg(&module);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it runs")
    };
    let child = run(&["--cpu-quota=100", "--invocation-timeout=6s"]);
    // The first that is there is the probe's.
    eventually("a leaf of 100m that is throttled", || {
        let read = |leaf: &Path, file| fs::read_to_string(leaf.join(file)).unwrap_or_default();
        let is_limited = |leaf: &PathBuf| {
            read(leaf, "cpu.cfs_quota_us").trim() == "10000" && !read(leaf, "cpu.stat").contains("nr_throttled 0")
        };
        cgroup.leaves().into_iter().find(is_limited)
    });
    let ended = child.wait_with_output().expect("it ends");
    assert_eq!(ended.status.code(), Some(124), "{ended:?}");
    assert!(cgroup.leaves().is_empty(), "{:?}", cgroup.leaves());
    // Without a quota there is no cgroup.
    let mut child = run(&["--invocation-timeout=300ms"]);
    let ended = eventually("its end", || {
        assert!(cgroup.leaves().is_empty(), "{:?}", cgroup.leaves());
        child.try_wait().expect("the child is ours")
    });
    assert_eq!(ended.code(), Some(124));
}
