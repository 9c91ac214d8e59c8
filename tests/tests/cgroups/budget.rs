//! What an invocation leaves of its budget to the next one.

use std::time::{Duration, Instant};

use wasmbox_tests::{TestCgroup, WasmBox, eventually, guest, patience::in_one_of_three};

use super::{PERIOD, Used, burn, call, count_of, median, quiet};

/// An invocation that used more than its budget leaves the next one on the same worker a whole one.
#[test]
fn nothing_is_carried_over() {
    let _quiet = quiet();
    let cgroup = TestCgroup::cpu();
    let server =
        WasmBox::launch().function("busy.wat", guest::busy()).flag("--max-invocations", 1).within(&cgroup).start();
    // At 250m the budget is 25 ms in 100 ms. The first uses one and most of another, so that 7 ms would be left to the second.
    // How fast the core is changes: so it is found again when it seems to have.
    let measure = || {
        let count = count_of(&server, Duration::from_millis(1));
        for (name, milliseconds) in [("spends", 43), ("follows", 15)] {
            server.put(&format!("{name}.wat"), guest::counting(count * milliseconds));
            call(&server, &format!("/{name}"), "1000");
        }
    };
    measure();
    // A core that is as slow as two a moment ago lets it use up a budget of its own, which says nothing.
    let follow = || Some(Used::of(&call(&server, "/follows", "250"))).filter(|used| used.cpu < 20_000.0);
    let pair = || {
        let spent = Used::of(&call(&server, "/spends", "250")).throttled;
        // If the machine was too busy for it to use its budget up, this pair says nothing.
        let followed = follow().map(|used| used.throttled).filter(|_| spent > 0.0);
        if followed.is_none() {
            measure();
        }
        followed
    };
    let follower: Vec<f64> = (0..15).map(|_| eventually("the budget was used up", pair)).collect();
    assert_eq!(median(follower.clone()), 0.0, "throttled for {follower:?} us");
    // Nor is it after one that was stopped while it was throttled.
    let stopped = || {
        burn(&server, "250", Duration::from_millis(60));
        let followed = follow().map(|used| used.throttled);
        if followed.is_none() {
            measure();
        }
        followed
    };
    let follower: Vec<f64> = (0..9).map(|_| eventually("the core is as fast as it was", stopped)).collect();
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
    let calls = || {
        let (begun, mut used) = (Instant::now(), Vec::new());
        while begun.elapsed() < Duration::from_secs(4) {
            used.push(Used::of(&call(&server, "/short", "100")));
        }
        let sum = |of: fn(&Used) -> f64| used.iter().map(of).sum();
        Used {
            cpu: sum(|used| used.cpu),
            throttled: sum(|used| used.throttled),
            wall: begun.elapsed().as_secs_f64() * 1e6,
        }
    };
    in_one_of_three(calls, |Used { cpu, throttled, wall }| {
        // A whole budget at the beginning. Without a limit it would be as much as there is.
        let is_limited = *cpu <= 1.15 * 0.1 * (wall + PERIOD);
        // It is kept from running for no longer than what it has used is worth.
        is_limited && *throttled > 0.0 && *cpu >= 0.85 * 0.1 * (cpu + throttled)
    });
    let metrics = server.metrics();
    assert!(
        metrics.sum("wasmbox_slices_total", &["end=\"done\""]) > 0.0,
        "none of them ran on its connection's thread"
    );
}
