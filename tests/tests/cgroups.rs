//! CPU limits in effect: what functions get, what is carried over to the next one, and that nothing is left behind.
//!
//! Each server runs in a cgroup of its test's own. No figure here is a speed: a busy machine gives functions less than their quota, never
//! more, and what the machine withheld is told apart from what the quota withheld, by the time for which the kernel says that it did.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use wasmbox_tests::{Answer, Request, TestCgroup, WasmBox, eventually, guest, temporary::TempDir, workspace};

/// Tests that use whole cores take turns.
fn quiet() -> MutexGuard<'static, ()> {
    static QUIET: Mutex<()> = Mutex::new(());
    QUIET.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The default period, and the longest time between two looks of the kernel, microseconds.
const PERIOD: f64 = 100_000.0;
const TICK: f64 = 10_000.0;

/// What an invocation used, microseconds.
#[derive(Debug, Clone, Copy)]
struct Used {
    cpu: f64,
    throttled: f64,
    wall: f64,
}

impl Used {
    fn of(answer: &Answer) -> Used {
        Used {
            cpu: answer.number("wasmbox-cpu-time-us"),
            throttled: answer.number("wasmbox-throttled-time-us"),
            wall: answer.number("execution-time") * 1000.0,
        }
    }

    /// It used no more than `cores` of a core.
    #[track_caller]
    fn is_at_most(self, cores: f64) {
        // One budget more than there are whole periods; and the kernel looks at each tick, and takes back what was too much.
        let most = 1.05 * cores * (self.wall + PERIOD) + TICK;
        assert!(self.cpu <= most, "more than {cores} cores: {self:?}");
    }

    /// It used up `cores` of a core, within a tenth.
    #[track_caller]
    fn is_share(self, cores: f64) {
        self.is_at_most(cores);
        // The quota stopped it for no longer than what it had used entitled the kernel to. The rest of the time it ran, or waited for a core.
        assert!(self.throttled > 0.0, "not limited: {self:?}");
        assert!(self.cpu >= 0.9 * cores * (self.cpu + self.throttled), "less than {cores} cores: {self:?}");
    }
}

fn call(server: &WasmBox, path: &str, quota: &str) -> Answer {
    server.call(Request::get(path).header("Cpu-Quota", quota), "").ok()
}

/// Runs `busy` until its deadline.
fn burn(server: &WasmBox, quota: &str, time: Duration) -> Used {
    let request = Request::get("/busy").header("Invocation-Timeout", time.as_millis().to_string());
    let request = if quota.is_empty() { request } else { request.header("Cpu-Quota", quota) };
    let answer = server.call(request, "");
    answer.problem(504, "deadline-exceeded");
    Used::of(&answer)
}

/// How far to count so that it takes `time` of CPU here.
fn count_of(server: &WasmBox, time: Duration) -> u64 {
    const TRIED: u64 = 10_000_000;
    server.put("tried.wat", guest::counting(TRIED));
    let shortest = (0..5).map(|_| Used::of(&call(server, "/tried", "1000")).cpu).fold(f64::INFINITY, f64::min);
    (TRIED as f64 * time.as_micros() as f64 / shortest) as u64
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn leaf_number(leaf: &Path, file: &str) -> i64 {
    fs::read_to_string(leaf.join(file)).expect("the leaf is there").trim().parse().expect("a number")
}

fn throttled_ns(leaf: &Path) -> u64 {
    let stat = fs::read_to_string(leaf.join("cpu.stat")).expect("the leaf is there");
    let line = stat.lines().find_map(|line| line.strip_prefix("throttled_time ")).expect("kernel: sched-bwc");
    line.parse().expect("nanoseconds")
}

#[test]
fn loops_side_by_side_get_their_shares() {
    let _quiet = quiet();
    let cgroup = TestCgroup::cpu();
    let server = WasmBox::launch().function("busy.wat", guest::busy()).within(&cgroup).start();
    burn(&server, "1000", Duration::from_millis(100));
    let quotas = [100, 250, 500, 1000];
    let used = thread::scope(|scope| {
        let run = |quota: u32| {
            let server = &server;
            scope.spawn(move || burn(server, &quota.to_string(), Duration::from_secs(5)))
        };
        quotas.map(run).map(|run| run.join().expect("an answer"))
    });
    for (quota, used) in quotas.iter().zip(used).take(3) {
        used.is_share(f64::from(*quota) / 1000.0);
    }
    // A whole core is no limit for one thread: it gets what the others leave, on two cores 1.15, on one 0.15.
    let whole = used[3];
    assert!(whole.throttled == 0.0 && whole.cpu <= 1.01 * whole.wall && whole.cpu >= 0.1 * whole.wall, "{whole:?}");
}

#[test]
fn the_leaf_says_the_same() {
    let _quiet = quiet();
    let cgroup = TestCgroup::cpu();
    let server = WasmBox::launch()
        .function("busy.wat", guest::busy())
        .function("hello.wat", guest::hello())
        .flag("--max-invocations", 1)
        .flag("--inline", "off")
        .within(&cgroup)
        .start();
    let first = call(&server, "/hello", "100");
    let (creation, assign) = (first.number("cgroup-creation-time"), first.number("cgroup-assign-time"));
    assert!(creation > 0.0 && assign > 0.0, "{first:?}");
    let leaf = cgroup.leaf();
    let again = call(&server, "/hello", "100");
    assert_eq!([again.number("cgroup-creation-time"), again.number("cgroup-assign-time")], [0.0, 0.0]);
    assert!(again.header("server-timing").contains("cgroup;dur=0.000"), "{again:?}");
    assert_eq!(again.number("wasmbox-throttled-time-us"), 0.0);
    assert_eq!(throttled_ns(&leaf), 0);

    let usage = || fs::read_to_string(leaf.join("cpuacct.usage")).ok().map(|text| text.trim().parse::<f64>());
    let before = usage();
    let used = burn(&server, "100", Duration::from_secs(1));
    used.is_share(0.1);
    assert_eq!(used.throttled as u64, throttled_ns(&leaf) / 1000);
    match (before, usage()) {
        (Some(Ok(before)), Some(Ok(after))) => {
            let in_leaf = (after - before) / 1000.0;
            assert!((0.9..1.1).contains(&(in_leaf / used.cpu)), "{in_leaf} us in the leaf, {used:?}");
        }
        _ => eprintln!("not checked: cpuacct.usage, since cpuacct is not mounted together with cpu"),
    }

    let line = server.logged(&["invocation:", "function=busy"]);
    assert!(line.contains(&format!(" throttled_us={} ", used.throttled)), "{line}");
    // The deadline lifted the last quota, so this one is written.
    call(&server, "/hello", "100");
    let metrics = server.metrics();
    let throttled = metrics.sum("wasmbox_throttled_seconds_sum", &["function=\"busy\""]);
    assert!((throttled - used.throttled / 1e6).abs() < 1e-3, "{throttled} s, {used:?}");
    for (operation, count) in [("create", 1.0), ("join", 1.0), ("quota", 1.0)] {
        let label = format!("operation=\"{operation}\"");
        assert!(metrics.sum("wasmbox_cgroup_operation_seconds_count", &[&label]) >= count, "{operation}");
    }
}

#[test]
fn defaults_periods_and_changing_quotas() {
    let _quiet = quiet();
    let cgroup = TestCgroup::cpu();
    let server = WasmBox::launch()
        .function("busy.wat", guest::busy())
        .function("hello.wat", guest::hello())
        .env("CPU_PERIOD", "20ms")
        .flag("--max-invocations", 1)
        .within(&cgroup)
        .start();
    // Without a header: half a core.
    burn(&server, "", Duration::from_secs(1)).is_share(0.5);
    let leaf = cgroup.leaf();
    assert_eq!(leaf_number(&leaf, "cpu.shares"), 102, "a tenth of what the box's own threads weigh");
    let set = || [leaf_number(&leaf, "cpu.cfs_quota_us"), leaf_number(&leaf, "cpu.cfs_period_us")];
    // After an invocation that has used much of it, the quota is lifted: so it is looked at while one runs.
    for (quota, expected) in [
        ("", [10_000, 20_000]),
        ("250", [5_000, 20_000]),
        ("0.1", [2_000, 20_000]),
        // The kernel's least quota is 1 ms: a longer period.
        ("10m", [1_000, 100_000]),
        ("1000", [-1, 20_000]),
        ("500", [10_000, 20_000]),
    ] {
        let header = if quota.is_empty() { String::new() } else { format!("Cpu-Quota: {quota}\r\n") };
        let running = server.wire(format!("GET /busy HTTP/1.1\r\nHost: box\r\n{header}\r\n"));
        eventually(&format!("quota {quota} is {expected:?}"), || (set() == expected).then_some(()));
        drop(running);
        server.wait_until_idle();
    }
    burn(&server, "100", Duration::from_millis(500)).is_share(0.1);
    burn(&server, "250", Duration::from_millis(500)).is_share(0.25);
    assert_eq!(cgroup.leaf(), leaf, "the worker has stayed where it was");
}

#[test]
fn the_containers_own_limit_holds_and_is_named_once() {
    let _quiet = quiet();
    let cgroup = TestCgroup::cpu();
    cgroup.set("cpu", "cpu.cfs_quota_us", 30_000);
    let server = WasmBox::launch()
        .function("busy.wat", guest::busy())
        .function("hello.wat", guest::hello())
        .within(&cgroup)
        .start();
    call(&server, "/hello", "400");
    burn(&server, "500", Duration::from_secs(2)).is_at_most(0.3);
    // Below it the quota still holds.
    let used = burn(&server, "100", Duration::from_secs(1));
    used.is_at_most(0.1);
    assert!(used.throttled > 0.0, "{used:?}");
    server.logged(&["WARN", "above the container's own CPU limit"]);
    assert_eq!(server.log().matches("above the container's own CPU limit").count(), 1);
}

/// The first core that this process may run on.
fn one_core() -> String {
    let status = fs::read_to_string("/proc/self/status").expect("/proc is mounted");
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).expect("proc_pid_status(5)");
    list.trim().split([',', '-']).next().expect("a core").to_owned()
}

/// On one core a loop without a limit takes half of it from a function beside it; one with a limit of 100m is not noticed by most.
#[test]
fn a_limited_neighbour_is_not_noticed() {
    let _quiet = quiet();
    let cgroup = TestCgroup::cpu();
    let server = WasmBox::launch()
        .function("busy.wat", guest::busy())
        .within(&cgroup)
        .through(["taskset", "-c", &one_core()])
        .start();
    burn(&server, "1000", Duration::from_millis(100));
    let count = count_of(&server, Duration::from_millis(8));
    server.put("works.wat", guest::counting(count));
    call(&server, "/works", "500");
    let rounds = |neighbour: Option<&str>| -> Vec<f64> {
        thread::scope(|scope| {
            let neighbour = neighbour.map(|quota| {
                let server = &server;
                let beside = scope.spawn(move || burn(server, quota, Duration::from_millis(900)));
                server.wait_until_running("busy", 1);
                beside
            });
            let started = Instant::now();
            let mut walls = Vec::new();
            while started.elapsed() < Duration::from_millis(600) {
                walls.push(Used::of(&call(&server, "/works", "500")).wall);
                // Not in step with the kernel's periods.
                thread::sleep(Duration::from_millis(7));
            }
            if let Some(neighbour) = neighbour {
                neighbour.join().expect("an answer");
            }
            walls
        })
    };
    let ratio = |neighbour: &str| {
        let (mut alone, mut beside) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            alone.extend(rounds(None));
            beside.extend(rounds(Some(neighbour)));
        }
        median(beside) / median(alone)
    };
    let unlimited = ratio("1000");
    assert!(unlimited > 1.3, "{unlimited}: this test could not fail");
    // What runs beside the tests disturbs one attempt, seldom three.
    let limited: Vec<f64> = (0..3).map(|_| ratio("100")).take_while(|ratio| *ratio > 1.1).collect();
    assert!(limited.len() < 3, "{limited:?} times as long beside a loop at 100m");
}

/// A thread that is stopped by its quota holds nothing that others wait for: here functions that do nothing but write to the log.
#[test]
fn throttled_functions_hold_nobody_up() {
    const LONG: Duration = Duration::from_millis(20);
    let _quiet = quiet();
    let cgroup = TestCgroup::cpu();
    let launch = WasmBox::launch();
    // With one there are the logs of functions, too.
    let token = launch.directory().join("token");
    fs::write(&token, "0123456789abcdef\n").expect("a file");
    let server = launch
        .flag("--upload-token-file", token.display())
        .function(
            "logs.wat",
            guest::command_with(
                r#"(data (i32.const 1024) "y\n")"#,
                "(loop $again (call $write (i32.const 2) (i32.const 1024) (i32.const 2)) (br $again))",
            ),
        )
        .function("hello.wat", guest::hello())
        .flag("--memory-request", 1)
        .within(&cgroup)
        .start();
    server.get("/hello").ok();
    let logging: Vec<_> = (0..20)
        .map(|_| server.wire("GET /logs HTTP/1.1\r\nHost: box\r\nCpu-Quota: 20\r\nInvocation-Timeout: 2000\r\n\r\n"))
        .collect();
    server.wait_until_running("logs", 20);
    let (started, mut held_up) = (Instant::now(), Duration::ZERO);
    while started.elapsed() < Duration::from_millis(1500) {
        let asked = Instant::now();
        server.get("/hello").ok();
        held_up += Some(asked.elapsed()).filter(|time| *time > LONG).unwrap_or_default();
        thread::sleep(Duration::from_millis(2));
    }
    assert!(held_up < started.elapsed() / 3, "for {held_up:?} of {:?}", started.elapsed());
    for mut request in logging {
        request.answer().problem(504, "deadline-exceeded");
    }
}

/// An invocation that used more than its budget leaves the next one on the same worker a whole one.
#[test]
fn nothing_is_carried_over() {
    let _quiet = quiet();
    let cgroup = TestCgroup::cpu();
    let server =
        WasmBox::launch().function("busy.wat", guest::busy()).flag("--max-invocations", 1).within(&cgroup).start();
    // At 250m the budget is 25 ms in 100 ms. The first uses one and most of another, so that 7 ms would be left to the second.
    let count = count_of(&server, Duration::from_millis(1));
    server.put("spends.wat", guest::counting(count * 43));
    server.put("follows.wat", guest::counting(count * 15));
    let pair = || {
        let spent = Used::of(&call(&server, "/spends", "250")).throttled;
        let followed = Used::of(&call(&server, "/follows", "250")).throttled;
        // If the machine was too busy for it to use its budget up, this pair says nothing.
        (spent > 0.0).then_some(followed)
    };
    let follower: Vec<f64> = (0..15).map(|_| eventually("the budget was used up", pair)).collect();
    assert_eq!(median(follower.clone()), 0.0, "throttled for {follower:?} us");
    // Nor is it after one that was stopped while it was throttled.
    let mut follower = Vec::new();
    for _ in 0..9 {
        burn(&server, "250", Duration::from_millis(60));
        follower.push(Used::of(&call(&server, "/follows", "250")).throttled);
    }
    assert_eq!(median(follower.clone()), 0.0, "throttled for {follower:?} us");
}

/// The kernel would never stop what runs for microseconds, and most of these calls end in no cgroup at all.
#[test]
fn short_calls_one_after_the_other_have_the_quota_in_sum() {
    let _quiet = quiet();
    let cgroup = TestCgroup::cpu();
    let server = WasmBox::launch().flag("--log-level", "info,invocation=off").within(&cgroup).start();
    let count = count_of(&server, Duration::from_micros(50));
    server.put("short.wat", guest::counting(count));
    call(&server, "/short", "1000");
    let (begun, mut used) = (Instant::now(), Vec::new());
    while begun.elapsed() < Duration::from_secs(4) {
        used.push(Used::of(&call(&server, "/short", "100")));
    }
    let wall = begun.elapsed().as_secs_f64() * 1e6;
    let cpu: f64 = used.iter().map(|used| used.cpu).sum();
    let throttled: f64 = used.iter().map(|used| used.throttled).sum();
    // A whole budget at the beginning. Without a limit it would be as much as there is.
    assert!(cpu <= 1.15 * 0.1 * (wall + PERIOD), "{cpu} of {wall} us in {} calls", used.len());
    // It is kept from running for no longer than what it has used is worth.
    assert!(
        throttled > 0.0 && cpu >= 0.85 * 0.1 * (cpu + throttled),
        "{cpu} us, throttled for {throttled} us of {wall}"
    );
    let metrics = server.metrics();
    assert!(
        metrics.sum("wasmbox_slices_total", &["end=\"done\""]) > 0.0,
        "none of them ran on its connection's thread"
    );
}

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
    burn(&server, "100", Duration::from_millis(500)).is_share(0.1);
    eventually("no leaf is left", || cgroup.leaves().is_empty().then_some(()));
    let metrics = server.metrics();
    for operation in ["create", "join", "remove"] {
        let label = format!("operation=\"{operation}\"");
        assert_eq!(metrics.sum("wasmbox_cgroup_operation_seconds_count", &[&label]), 1001.0, "{operation}");
    }
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
    assert!(cgroup.leaves().len() >= 5);
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
    let left = cgroup.leaves().len() - 1;
    assert!(left >= 3);
    server.signal(rustix::process::Signal::KILL);
    server.wait();
    drop(running);
    assert_eq!(cgroup.leaves().len(), left + 1, "nobody was there to remove them");

    let server = server.stop().start();
    server.logged(&[&format!("removed {left} cgroups that a killed box had left")]);
    server.get("/hello").ok();
    // The other box was not disturbed: its leaf is there, and holds.
    assert!(others_leaf.is_dir());
    burn(&other, "100", Duration::from_millis(500)).is_share(0.1);
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
    let child = run(&["--cpu-quota=100", "--invocation-timeout=2s"]);
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
    while child.try_wait().expect("the child is ours").is_none() {
        assert!(cgroup.leaves().is_empty());
    }
}
