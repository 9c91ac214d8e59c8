//! Reports of the CPU utilization to a queue-proxy.

use std::net::TcpListener;

use rustix::process::Signal;
use wasmbox_tests::{
    WasmBox,
    cgroup::TestCgroup,
    eventually, guest,
    queue_proxy::{Peer, QueueProxy},
    server::Launch,
};

fn launch(port: u16) -> Launch {
    WasmBox::launch()
        .function("busy.wat", guest::busy())
        .function("hello.wat", guest::hello())
        // As the original's manifests write it.
        .env("QP_HOST", "ws://127.0.0.1")
        .env("QP_PORT", port)
        .env("REPORTING_PERIOD_MS", 20)
        .env("METRICS_COLLECTION_WINDOW", 5)
        .env("RETRY_DELAY_SEC", 1)
}

fn connected(server: &WasmBox) -> bool {
    server.metrics().sum("wasmbox_reporter_connected", &[]) == 1.0
}

fn wait_for_reports(queue_proxy: &QueueProxy, number: usize) -> Vec<f64> {
    eventually(&format!("{number} reports"), || Some(queue_proxy.reports()).filter(|reports| reports.len() >= number))
}

#[test]
fn a_busy_guest_is_reported() {
    let queue_proxy = QueueProxy::start(0, Peer::Reads);
    // What else the machine does is not in it.
    let cgroup = TestCgroup::new(&["cpu", "cpuacct"]);
    let mut server = launch(queue_proxy.port()).flag("--drain-timeout", "40s").within(&cgroup).start();
    let latest = |number: usize| {
        let before = queue_proxy.reports().len();
        let reports = wait_for_reports(&queue_proxy, before + number);
        reports[before..].to_vec()
    };
    let idle = latest(20);
    assert!(idle.iter().all(|cores| cores.is_finite() && *cores >= 0.0), "{idle:?}");
    let busy = server.wire("GET /busy HTTP/1.1\r\nHost: box\r\nCpu-Quota: 1000\r\n\r\n");
    server.wait_until_running("busy", 1);
    // On a machine with much else to do, it takes a while until the guest gets so much.
    eventually("a busy core", || latest(5).iter().any(|cores| *cores > 0.5).then_some(()));
    assert!(idle.iter().any(|cores| *cores < 0.25), "an idle box: {idle:?}");
    assert!(connected(&server));
    assert!(server.metrics().sum("wasmbox_reports_total", &[]) >= 25.0);
    assert_eq!(queue_proxy.paths(), ["/"]);
    // It reports while it drains, and says goodbye.
    server.signal(Signal::TERM);
    server.logged(&["draining"]);
    latest(2);
    drop(busy);
    assert_eq!(server.wait().code(), Some(0));
    eventually("a goodbye", || (queue_proxy.goodbyes() == 1).then_some(()));
    drop(server);
}

#[test]
fn it_comes_back_to_a_peer_that_died_and_returned() {
    let mut queue_proxy = QueueProxy::start(0, Peer::Reads);
    let port = queue_proxy.port();
    let server = launch(port).start();
    for _ in 0..2 {
        wait_for_reports(&queue_proxy, 3);
        drop(queue_proxy);
        eventually("the loss is noticed", || (!connected(&server)).then_some(()));
        server.get("/hello").ok();
        queue_proxy = QueueProxy::start(port, Peer::Reads);
    }
    wait_for_reports(&queue_proxy, 3);
    assert!(connected(&server));
    assert_eq!(server.log().matches("reporting CPU utilization to the queue-proxy").count(), 3, "{}", server.log());
    assert_eq!(server.log().matches("no queue-proxy").count(), 2, "{}", server.log());
}

#[test]
fn where_nobody_listens_one_line_says_so() {
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = free.local_addr().expect("a bound socket").port();
    drop(free);
    let server = launch(port).env("LOG_LEVEL", "debug").start();
    // Debug lines count the tries: the first is said aloud, the further ones are not.
    let line = server.logged(&["INFO", "no queue-proxy", "refused", "QP_HOST=none", &port.to_string()]);
    server.logged(&["DEBUG", "no queue-proxy", "failures=2"]);
    server.get("/hello").ok();
    assert!(!connected(&server));
    let aloud = |log: &str| log.lines().filter(|line| line.contains("queue-proxy") && !line.contains("DEBUG")).count();
    assert_eq!(aloud(&server.log()), 1, "{line}");
    // Nor does it hold up the end, while it waits for its next try.
    drop(server);
    let server = WasmBox::launch().env("QP_HOST", "none").env("LOG_LEVEL", "debug").start();
    server.get("/-/ready").ok();
    assert!(!server.log().contains("queue-proxy"), "{}", server.log());
}

/// It blocks nothing and fills no memory: it is given up, and tried anew.
#[test]
fn a_peer_that_stops_reading() {
    let queue_proxy = QueueProxy::start(0, Peer::Stops);
    let mut server = launch(queue_proxy.port()).env("REPORTING_PERIOD_MS", 10).start();
    server.logged(&["no queue-proxy: it has not read for"]);
    server.get("/hello").ok();
    eventually("a second connection", || (queue_proxy.connections() >= 2).then_some(()));
    // The end does not wait for it either, beyond the time for a goodbye.
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
    // Something that accepts, and does not even speak.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let server = launch(silent.local_addr().expect("a bound socket").port()).start();
    server.logged(&["no queue-proxy: no answer within"]);
}

#[test]
fn what_the_peer_sends_is_ignored_within_bounds() {
    let queue_proxy = QueueProxy::start(0, Peer::Talks);
    let server = launch(queue_proxy.port()).start();
    eventually("an answer to the ping", || (queue_proxy.pongs() >= 1).then_some(()));
    // After that it sent a mebibyte.
    server.logged(&["no queue-proxy:", "too long"]);
    eventually("another connection", || (queue_proxy.connections() >= 2).then_some(()));
    // Something that speaks HTTP, but no WebSocket: the box itself.
    let other = WasmBox::launch().function("hello.wat", guest::hello()).start();
    let server = launch(other.address().port()).start();
    server.logged(&["no queue-proxy: HTTP error: 501"]);
}
