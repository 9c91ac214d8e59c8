//! What a function with a quota takes from those beside it.

use std::{
    fs, process, thread,
    time::{Duration, Instant},
};

use wasmbox_tests::{TestCgroup, WasmBox, guest, process::Process};

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
