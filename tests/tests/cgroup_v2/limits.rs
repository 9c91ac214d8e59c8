//! The box gives each invocation its share of the CPU, and leaves no cgroup behind.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use wasmbox_tests::{Request, WasmBox, Wire, eventually, guest, patience::in_one_of_three, server::Launch, vm};

use crate::{
    cgroup::cpu_stat,
    container::{Container, DELEGATED},
};

const USER: u32 = 1000;

/// A box that must have cgroups.
fn launch() -> Launch {
    WasmBox::launch()
        .function("busy.wat", guest::busy())
        .function("hello.wat", guest::hello())
        .env("ENABLE_CGROUPS", "true")
}

/// Runs for a second, whatever CPU time it gets in it.
fn second() -> String {
    guest::command(
        "(local $end i64)
         (call $check (call $clock_time_get (i32.const 1) (i64.const 1) (i32.const 64)))
         (local.set $end (i64.add (i64.load (i32.const 64)) (i64.const 1000000000)))
         (loop $again
           (call $check (call $clock_time_get (i32.const 1) (i64.const 1) (i32.const 64)))
           (br_if $again (i64.lt_u (i64.load (i32.const 64)) (local.get $end))))",
    )
}

/// The leaf in which an invocation of 100 millicores runs.
fn leaf(container: &Container) -> Option<PathBuf> {
    let read = |path: &Path, file: &str| fs::read_to_string(path.join(file)).unwrap_or_default();
    container.leaves().into_iter().find(|path| {
        let limit = read(path, "cpu.max");
        let limit: Vec<u64> = limit.split_whitespace().flat_map(str::parse).collect();
        let is_a_tenth = matches!(limit[..], [quota, period] if quota * 10 == period);
        is_a_tenth && read(path, "cgroup.type") == "threaded\n" && !read(path, "cgroup.threads").is_empty()
    })
}

/// Begins a busy loop of 100 millicores, which ends when what is returned is dropped; gives its leaf.
fn begin(container: &Container, server: &WasmBox) -> (Wire, PathBuf) {
    let request = "GET /busy HTTP/1.1\r\nHost: box\r\nCpu-Quota: 100\r\n\r\n";
    let client = server.wire(request);
    (client, eventually("a leaf of 100 millicores with a thread", || leaf(container)))
}

/// An invocation gets its share, and its cgroup goes with the box.
fn limited(container: &Container, launch: Launch) {
    let server = container.start(launch);
    let line = server.logged(&["cgroups="]);
    assert!(line.contains("v2"), "{line}");
    let (client, leaf) = begin(container, &server);
    assert_eq!(
        fs::read_to_string(leaf.join("cpu.weight")).as_deref().ok(),
        Some("10\n"),
        "a tenth of the box's own threads"
    );
    let burns = || {
        let (start, before) = (Instant::now(), cpu_stat(&leaf, "usage_usec"));
        thread::sleep(Duration::from_secs(2));
        let used = cpu_stat(&leaf, "usage_usec") - before;
        // A tenth, and what a period may begin and end with.
        (used, start.elapsed().as_micros() as u64 / 10 + 2 * 10_000)
    };
    in_one_of_three(burns, |(used, most)| *used > 0 && *used <= most * 3 / 2);
    // The box itself is not throttled with it.
    assert_eq!(server.get("/hello").ok().text(), "hello\n");
    drop(client);
    server.wait_until_idle();
    drop(server.stop());
    assert_eq!(container.leaves(), Vec::<PathBuf>::new());
}

#[test]
fn on_a_host_as_root() {
    vm::inside(|| limited(&Container::host("host"), launch()));
}

#[test]
fn on_a_host_with_a_fresh_cgroup_for_each() {
    vm::inside(|| limited(&Container::host("host-fresh"), launch().env("CGROUP_MODE", "fresh")));
}

#[test]
fn in_a_container_as_root() {
    vm::inside(|| limited(&Container::delegated("container", 0), launch()));
}

#[test]
fn in_a_container_as_another_user() {
    vm::inside(|| limited(&Container::delegated("user", USER), launch()));
}

#[test]
fn in_a_container_as_another_user_with_a_fresh_cgroup_for_each() {
    vm::inside(|| limited(&Container::delegated("user-fresh", USER), launch().env("CGROUP_MODE", "fresh")));
}

#[test]
fn below_the_cgroup_that_is_named() {
    vm::inside(|| {
        let container = Container::host("named");
        // The box is in the container's; what it divides must be threaded then.
        let named = container.cgroup().leaf("elsewhere");
        for divided in [container.cgroup(), &named] {
            divided.write("cgroup.subtree_control", "+cpu").expect("the CPU is divided");
        }
        let server = container.start(launch().env("CGROUP_ROOT", named.path().display()));
        let (client, leaf) = begin(&container, &server);
        assert!(leaf.starts_with(named.path()), "{}", leaf.display());
        drop(client);
        drop(server.stop());
        assert_eq!(container.leaves(), [named.path()]);
    });
}

#[test]
fn the_answer_says_how_long_it_was_throttled() {
    vm::inside(|| {
        let container = Container::host("throttled");
        let server = container.start(launch().function("second.wat", second()));
        let call = |quota: &str| server.call(Request::get("/second").header("Cpu-Quota", quota), "").ok();
        call("100");
        let slow = || {
            let slow = call("100");
            (slow.number("wasmbox-throttled-time-us"), slow.number("wasmbox-cpu-time-us"))
        };
        // It may run on for what the period had left, and has a second in all.
        in_one_of_three(slow, |(throttled, cpu)| *throttled > 0.0 && *cpu < 500_000.0);
        // As many cores as there are.
        assert_eq!(call("2000").number("wasmbox-throttled-time-us"), 0.0);
    });
}

fn nothing_is_left_of_one_that_was_killed(name: &str, mode: &str) {
    let container = Container::delegated(name, USER);
    let mut server = container.start(launch().env("CGROUP_MODE", mode));
    let _client = begin(&container, &server);
    server.signal(Signal::KILL);
    server.wait();
    let left = container.leaves();
    assert_ne!(left, Vec::<PathBuf>::new(), "one that is killed cannot tidy up");
    let server = container.restart(server);
    // Nothing has run yet, so what has a limit is of the one before.
    let is_limited = |path: &PathBuf| fs::read_to_string(path.join("cpu.max")).is_ok_and(|cpu| !cpu.starts_with("max"));
    eventually(&format!("{left:?} are gone"), || (!container.leaves().iter().any(is_limited)).then_some(()));
    server.get("/hello").ok();
    drop(server.stop());
    assert_eq!(container.leaves(), Vec::<PathBuf>::new());
}

#[test]
fn nothing_is_left_of_a_box_that_was_killed() {
    vm::inside(|| nothing_is_left_of_one_that_was_killed("killed", "pinned"));
}

#[test]
fn nothing_is_left_of_a_box_that_was_killed_with_fresh_cgroups() {
    vm::inside(|| nothing_is_left_of_one_that_was_killed("killed-fresh", "fresh"));
}

#[test]
fn where_nothing_may_be_divided() {
    vm::inside(|| {
        for (user, why) in [(0, "Read-only file system"), (USER, "Permission denied")] {
            let container = Container::closed("closed", user);
            let entered = container.cgroup().enter();
            let said = container.prepare(launch()).refusal();
            drop(entered);
            assert!(said.contains("/sys/fs/cgroup") && said.contains(why), "{said}");
            assert!(user != 0 || said.contains(DELEGATED), "the remedy is not in {said}");
        }

        let container = Container::closed("closed", USER);
        let server = container.start(launch().env("ENABLE_CGROUPS", "auto"));
        server.logged(&["WARN", "cgroup"]);
        let line = server.logged(&["cgroups="]);
        assert!(line.contains("none"), "{line}");
        server.get("/hello").ok();

        let server = container.start(launch().env("ENABLE_CGROUPS", "false"));
        server.get("/hello").ok();
        assert!(!server.log().contains("WARN"), "{}", server.log());
    });
}

/// Unlike with v1, a leaf may be promised more than its container has.
#[test]
fn a_container_with_less_than_an_invocation_asks_for() {
    vm::inside(|| {
        let container = Container::delegated("small", USER);
        container.cgroup().write("cpu.max", "50000 100000").expect("a limit");
        let server = container.start(launch().function("second.wat", second()).flag("--max-cpu-quota", "1000m"));
        server.logged(&["cgroups=", "v2"]);
        server.call(Request::get("/second").header("Cpu-Quota", "1000"), "").ok();
        assert!(container.cgroup().cpu_stat("throttled_usec") > 0);
    });
}
