//! Quotas: functions get them, and no more.

use std::{fs, path::Path, thread, time::Duration};

use wasmbox_tests::{TestCgroup, WasmBox, eventually, guest, patience::in_one_of_three};

use super::{Used, assert_share, burn, call, leaf_number, quiet};

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
    let side_by_side = || {
        thread::scope(|scope| {
            let run = |quota: u32| {
                let server = &server;
                scope.spawn(move || burn(server, &quota.to_string(), Duration::from_secs(5)))
            };
            quotas.map(run).map(|run| run.join().expect("an answer"))
        })
    };
    let is_share = |(quota, used): (&u32, &Used)| used.is_share(f64::from(*quota) / 1000.0);
    let used = in_one_of_three(side_by_side, |used| quotas.iter().zip(used).take(3).all(is_share));
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
    // To write it takes longer than the header tells apart, each time; not to write it, if the thread is kept from running just then.
    let again = in_one_of_three(
        || call(&server, "/hello", "100"),
        |again| {
            [again.number("cgroup-creation-time"), again.number("cgroup-assign-time")] == [0.0, 0.0]
                && again.header("server-timing").contains("cgroup;dur=0.000")
        },
    );
    assert_eq!(again.number("wasmbox-throttled-time-us"), 0.0);
    assert_eq!(throttled_ns(&leaf), 0);

    let usage = || fs::read_to_string(leaf.join("cpuacct.usage")).ok().map(|text| text.trim().parse::<f64>());
    let told = || server.metrics().sum("wasmbox_throttled_seconds_sum", &["function=\"busy\""]);
    let burns = || {
        let (before, throttled_before, told_before) = (usage(), throttled_ns(&leaf), told());
        let used = burn(&server, "100", Duration::from_secs(1));
        assert!((used.throttled - (throttled_ns(&leaf) - throttled_before) as f64 / 1000.0).abs() <= 1.0, "{used:?}");
        match (before, usage()) {
            (Some(Ok(before)), Some(Ok(after))) => {
                let in_leaf = (after - before) / 1000.0;
                assert!((0.9..1.1).contains(&(in_leaf / used.cpu)), "{in_leaf} us in the leaf, {used:?}");
            }
            _ => eprintln!("not checked: cpuacct.usage, since cpuacct is not mounted together with cpu"),
        }
        server.logged(&["invocation:", "function=busy", &format!(" throttled_us={} ", used.throttled)]);
        eventually("the metric says the same", || {
            ((told() - told_before - used.throttled / 1e6).abs() < 1e-3).then_some(())
        });
        used
    };
    in_one_of_three(burns, |used| used.is_share(0.1));

    // The deadline lifted the last quota, so this one is written.
    call(&server, "/hello", "100");
    let metrics = server.metrics();
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
    assert_share(&server, "", Duration::from_secs(1), 0.5);
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
    assert_share(&server, "100", Duration::from_millis(500), 0.1);
    assert_share(&server, "250", Duration::from_millis(500), 0.25);
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
    in_one_of_three(|| burn(&server, "500", Duration::from_secs(2)), |used| used.is_at_most(0.3));
    // Below it the quota still holds.
    let used = || burn(&server, "100", Duration::from_secs(1));
    in_one_of_three(used, |used| used.is_at_most(0.1) && used.throttled > 0.0);
    server.logged(&["WARN", "above the container's own CPU limit"]);
    assert_eq!(server.log().matches("above the container's own CPU limit").count(), 1);
}
