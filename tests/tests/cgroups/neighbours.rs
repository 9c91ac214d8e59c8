//! What a function with a quota takes from those beside it.

use std::{
    fs, process, thread,
    time::{Duration, Instant},
};

use wasmbox_tests::{TestCgroup, WasmBox, guest, patience::in_one_of_three, process::Process};

use super::{Used, burn, call, count_of, median, quiet};

/// The first core that this process may run on.
fn one_core() -> String {
    let list = Process(process::id()).status("Cpus_allowed_list").expect("proc_pid_status(5)");
    list.split([',', '-']).next().expect("a core").to_owned()
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
    // How much longer a call takes than it uses of the core: how fast that is makes no difference. Some slices of the kernel's scheduler, and yet
    // less than half of a period, so that most calls are between two turns of the limited one.
    let stretched_beside = |neighbour: &str| {
        let count = count_of(&server, Duration::from_millis(20));
        server.put("works.wat", guest::counting(count));
        call(&server, "/works", "1000");
        thread::scope(|scope| {
            let beside = scope.spawn(|| burn(&server, neighbour, Duration::from_millis(2500)));
            server.wait_until_running("busy", 1);
            let started = Instant::now();
            let mut stretched = Vec::new();
            while started.elapsed() < Duration::from_millis(2000) {
                let used = Used::of(&call(&server, "/works", "1000"));
                stretched.push(used.wall / used.cpu);
                // Not in step with the kernel's periods.
                thread::sleep(Duration::from_millis(7));
            }
            beside.join().expect("an answer");
            median(stretched)
        })
    };
    in_one_of_three(
        || (stretched_beside("1000"), stretched_beside("100")),
        |(unlimited, limited)| *unlimited > 1.3 && *limited < 1.15,
    );
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
    let logging: Vec<_> =
        (0..20).map(|_| server.wire("GET /logs HTTP/1.1\r\nHost: box\r\nCpu-Quota: 20\r\n\r\n")).collect();
    server.wait_until_running("logs", 20);
    let held_up = || {
        let (started, mut held_up) = (Instant::now(), Duration::ZERO);
        while started.elapsed() < Duration::from_millis(1500) {
            let asked = Instant::now();
            server.get("/hello").ok();
            held_up += Some(asked.elapsed()).filter(|time| *time > LONG).unwrap_or_default();
            thread::sleep(Duration::from_millis(2));
        }
        held_up.as_secs_f64() / started.elapsed().as_secs_f64()
    };
    // Who waits for one of them waits nearly all the time, in each run.
    in_one_of_three(held_up, |part| *part < 1.0 / 3.0);
    assert_eq!(server.running("logs"), 20.0, "they run all the time");
    drop(logging);
    server.wait_until_idle();
}
