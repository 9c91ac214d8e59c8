//! More is asked of a small container than it has: it answers, goes on, and is as fast as before when that is over.
//!
//! Each box is in a cgroup of its own, with a memory limit. Where none can be made these tests fail.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use wasmbox_tests::{Answer, Request, TestCgroup, WasmBox, eventually, guest, server::Launch};

/// How often each status and code came.
type Outcomes = BTreeMap<(u16, String), u64>;

/// One overload at a time: they are measured.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A box in a container of 256 MiB.
fn small(container: &TestCgroup) -> Launch {
    WasmBox::launch().within(container).flag("--log-level", "info,invocation=off").function("hello.wat", guest::hello())
}

fn outcome(answer: &Answer) -> (u16, String) {
    let code = if answer.status == 200 { "" } else { answer.header("wasmbox-error") };
    (answer.status, code.to_owned())
}

/// Has `clients` ask for the functions in turns, for `time`. Whoever is refused comes again a little later. Panics if there is no whole answer.
fn overload(server: &WasmBox, clients: usize, time: Duration, functions: &[(&str, u32)]) -> Outcomes {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..clients)
            .map(|client| {
                let over = &over;
                scope.spawn(move || {
                    let mut outcomes = Outcomes::new();
                    let mut turn = client;
                    while !over.load(Ordering::Relaxed) {
                        let (path, mebibytes) = functions[turn % functions.len()];
                        turn += 1;
                        let request = Request::get(path)
                            .header("Memory-Request", mebibytes)
                            .header("Invocation-Timeout", "10000");
                        let answer = server.call(request, "");
                        *outcomes.entry(outcome(&answer)).or_default() += 1;
                        if answer.status == 503 {
                            thread::sleep(Duration::from_millis(100));
                        }
                    }
                    outcomes
                })
            })
            .collect();
        thread::sleep(time);
        over.store(true, Ordering::Relaxed);
        let mut all = Outcomes::new();
        for client in clients {
            for (outcome, number) in client.join().expect("each request gets an answer") {
                *all.entry(outcome).or_default() += number;
            }
        }
        all
    })
}

/// The median of some warm calls.
fn median(server: &WasmBox) -> Duration {
    let mut times: Vec<Duration> = (0..31)
        .map(|_| {
            let started = Instant::now();
            server.get("/hello").ok();
            started.elapsed()
        })
        .collect();
    times.sort();
    times[times.len() / 2]
}

/// As fast as before, in a while and but for what else the machine has to do; and nothing was killed.
fn assert_recovered(server: &WasmBox, container: &TestCgroup, before: Duration) {
    let enough = before * 5 + Duration::from_millis(20);
    eventually(&format!("calls take no more than {enough:?} again"), || (median(server) <= enough).then_some(()));
    server.wait_until_idle();
    assert_eq!(container.oom_kills(), 0, "the kernel killed");
    eventually("guests' memory is given back", || {
        (server.metrics().sum("wasmbox_guest_memory_bytes", &[]) == 0.0).then_some(())
    });
}

fn assert_known(outcomes: &Outcomes, known: &[(u16, &str)]) {
    for (status, code) in outcomes.keys() {
        assert!(known.contains(&(*status, code.as_str())), "{status} {code:?} in {outcomes:?}");
    }
}

const ANSWERS: &[(u16, &str)] =
    &[(200, ""), (503, "queue-full"), (503, "queue-timeout"), (503, "evicted"), (504, "deadline-exceeded")];

#[test]
fn a_minute_at_ten_times_capacity() {
    let _alone = alone();
    let container = TestCgroup::with_memory(256);
    let server = small(&container)
        .function("growing.wat", guest::growing(24, 50))
        .function("filling.wat", guest::filling(24, 0))
        .start();
    let before = median(&server);
    // Eight of 32 MiB fill it.
    let outcomes = overload(&server, 80, Duration::from_secs(60), &[("/growing", 32), ("/filling", 32), ("/hello", 1)]);
    assert_recovered(&server, &container, before);
    eprintln!("{outcomes:?}, {} MiB in use", container.memory_usage() >> 20);
    assert_known(&outcomes, ANSWERS);
    assert!(outcomes[&(200, String::new())] > 100, "{outcomes:?}");
}

/// Four times as much is admitted as there is, and used: those that came first end, some of the others must go.
#[test]
fn overbooked_memory_is_taken_back_from_the_youngest() {
    let _alone = alone();
    let container = TestCgroup::with_memory(256);
    let server = small(&container)
        .function("growing.wat", guest::growing(24, 300))
        .flag("--concurrent-resource-request", 1024)
        .flag("--max-invocations", 100)
        .start();
    let before = median(&server);
    let outcomes = overload(&server, 40, Duration::from_secs(10), &[("/growing", 26)]);
    assert_recovered(&server, &container, before);
    eprintln!("{outcomes:?}, {} MiB in use", container.memory_usage() >> 20);
    assert_known(&outcomes, ANSWERS);
    assert!(outcomes[&(200, String::new())] > 10, "{outcomes:?}");
    let evicted = outcomes.get(&(503, "evicted".into())).copied().unwrap_or(0);
    assert!(evicted > 0, "{outcomes:?}");
    // Whoever waits does not start only to be evicted: without that it is four times as many evictions as answers.
    assert!(evicted < outcomes[&(200, String::new())], "{outcomes:?}");
    assert_eq!(server.metrics().sum("wasmbox_evicted_total", &[]), evicted as f64);
    assert!(server.metrics().sum("wasmbox_memory_growth_waits_total", &[]) > 0.0);
    server.logged(&["evicted", "held_mib="]);
}

/// One instruction that touches much fresh memory cannot be interrupted; and all do it at the same time.
#[test]
fn many_fill_fresh_memory_at_once() {
    let _alone = alone();
    let container = TestCgroup::with_memory(256);
    let server = small(&container)
        .function("filling.wat", guest::filling(40, 20))
        .flag("--concurrent-resource-request", 1024)
        .flag("--max-invocations", 100)
        .start();
    let before = median(&server);
    let outcomes = overload(&server, 24, Duration::from_secs(5), &[("/filling", 41)]);
    assert_recovered(&server, &container, before);
    eprintln!("{outcomes:?}, {} MiB in use", container.memory_usage() >> 20);
    assert_known(&outcomes, ANSWERS);
    assert!(outcomes[&(200, String::new())] > 10, "{outcomes:?}");
}

/// Memory that guests grow to and do not touch is lent to others, but never so much that the box falls over when all is touched at once.
#[test]
fn untouched_memory_may_be_touched_all_at_once() {
    let _alone = alone();
    let container = TestCgroup::with_memory(256);
    let server = small(&container)
        .function("filling.wat", guest::filling(24, 4000))
        .flag("--concurrent-resource-request", 2048)
        .flag("--max-invocations", 100)
        .start();
    let answers: Vec<Answer> = thread::scope(|scope| {
        let call = || {
            let request = Request::get("/filling").header("Memory-Request", "25");
            server.call(request.header("Invocation-Timeout", "10000"), "")
        };
        let calls: Vec<_> = (0..50).map(|_| scope.spawn(call)).collect();
        calls.into_iter().map(|call| call.join().expect("an answer")).collect()
    });
    let mut outcomes = Outcomes::new();
    for answer in &answers {
        *outcomes.entry(outcome(answer)).or_default() += 1;
    }
    eprintln!("{outcomes:?}");
    assert_eq!(container.oom_kills(), 0);
    assert_known(&outcomes, ANSWERS);
    assert!(outcomes[&(200, String::new())] >= 5, "{outcomes:?}");
}

/// What can never fit is told so, rather than waited for: nobody else holds anything.
#[test]
fn who_wants_more_than_there_is_does_not_wait_for_it() {
    let _alone = alone();
    let container = TestCgroup::with_memory(256);
    let server = small(&container).function("filling.wat", guest::filling(240, 0)).start();
    let answer = server.call(Request::get("/filling").header("Memory-Request", "250"), "");
    answer.problem(503, "evicted").names(&["memory"]);
    server.get("/hello").ok();
    assert_eq!(container.oom_kills(), 0);
}

#[test]
fn nothing_starts_while_cores_are_busy() {
    let server = WasmBox::launch()
        .function("busy.wat", guest::busy())
        .function("hello.wat", guest::hello())
        .env("RESOURCE_UTILIZATION_THRESHOLD", "0.1")
        .start();
    server.get("/hello").ok();
    let busy = server.wire("GET /busy HTTP/1.1\r\nHost: box\r\n\r\n");
    server.wait_until_running("busy", 1);
    eventually("nothing starts", || {
        let impatient = server.call(Request::get("/hello").header("Invocation-Timeout", "500"), "");
        (impatient.status == 503).then(|| impatient.problem(503, "queue-timeout"))
    });
    // Other tests take cores, too.
    eventually("the function's share shows", || {
        (server.metrics().sum("wasmbox_cpu_cores_in_use", &[]) > 0.1).then_some(())
    });
    drop(busy);
    server.get("/hello").ok();
}

/// Compiled code that nobody uses goes when memory is short, if it can come back from disk. That takes a minute, in which this test needs
/// nothing: it runs beside the others.
#[test]
fn functions_that_nobody_calls_leave_the_memory() {
    let container = TestCgroup::with_memory(256);
    let launch = |cache: Option<&str>| {
        // A hundredth is always exceeded.
        let launch = small(&container).flag("--gc-utilization-threshold", "0.01").function("other.wat", guest::echo());
        cache.into_iter().fold(launch, |launch, cache| launch.flag("--cache-dir", cache)).start()
    };
    let (with_cache, without) = (launch(None), launch(Some("none")));
    let loaded = |server: &WasmBox| server.metrics().sum("wasmbox_cached_modules", &[]);
    for server in [&without, &with_cache] {
        server.get("/hello").ok();
    }
    without.get("/other").ok();
    let used = Instant::now();
    with_cache.get("/other").ok();
    assert_eq!([&without, &with_cache].map(loaded), [2.0, 2.0]);
    while loaded(&with_cache) > 1.0 {
        assert!(used.elapsed() < Duration::from_secs(120), "it is still there");
        // One of them is used.
        with_cache.get("/hello").ok();
        thread::sleep(Duration::from_millis(500));
    }
    assert!(used.elapsed() > Duration::from_secs(59), "{:?}: too early", used.elapsed());
    let listed = with_cache.admin("/functions").ok();
    assert!(listed.text().contains("hello.wat") && !listed.text().contains("other.wat"), "{}", listed.text());
    let code = with_cache.metrics().sum("wasmbox_cached_module_bytes", &[]);
    assert!(code > 0.0 && code < without.metrics().sum("wasmbox_cached_module_bytes", &[]), "{code} bytes");
    // Nowhere to come back from.
    assert_eq!(loaded(&without), 2.0);

    assert_eq!(with_cache.post("/other", "back").ok().text(), "back");
    let metrics = with_cache.metrics();
    assert_eq!(metrics.sum("wasmbox_compilations_total", &[]), 2.0, "it is not compiled again");
    assert_eq!(metrics.sum("wasmbox_cache_requests_total", &["cache=\"disk\"", "result=\"hit\""]), 1.0);
}

/// The half of a guest's request is resident although it never touches it; without the setting it is not.
#[test]
fn memory_can_be_allocated_ahead() {
    let untouched = r#"(module (memory (export "memory") 1024) (func (export "_start") (loop $again (br $again))))"#;
    for (enabled, expected) in [("true", 20..40), ("false", 0..10)] {
        let server = WasmBox::launch()
            .function("untouched.wat", untouched)
            .function("hello.wat", guest::hello())
            .env("ENABLE_MEM_PRE_ALLOCATION", enabled)
            .env("MEM_PRE_ALLOCATION_RATIO", "0.5")
            .start();
        server.get("/hello").ok();
        server.call(Request::options("/untouched"), "");
        // What compiling has taken is given back in a moment.
        let settled = || {
            let looks = [(); 6].map(|()| {
                thread::sleep(Duration::from_millis(50));
                server.process().resident_bytes()
            });
            looks.iter().all(|bytes| bytes.abs_diff(looks[0]) < 1 << 20).then_some(looks[0])
        };
        let before = eventually("the box's memory has settled", settled);
        let wire = server.wire("GET /untouched HTTP/1.1\r\nHost: box\r\nMemory-Request: 64\r\n\r\n");
        server.wait_until_running("untouched", 1);
        eventually(&format!("{enabled}: {expected:?} MiB more"), || {
            let after = eventually("the box's memory has settled", settled);
            expected.contains(&(after.saturating_sub(before) >> 20)).then_some(())
        });
        drop(wire);
    }
}
