//! What requests may hold, and what is told of them.

use wasmbox_tests::{Request, eventually};

use super::{Servers, Wasi, fetch, has};

with_both_guests!(
    many_at_once_wait_for_each_other,
    who_waits_for_a_connection_has_the_place_of_one_that_became_idle,
    connections_that_are_not_given_back_are_missed,
    what_a_request_holds_is_the_invocations_memory,
    the_time_is_told,
    refusals_are_one_line_each_and_not_many,
);

fn many_at_once_wait_for_each_other(wasi: Wasi) {
    let servers = Servers::start();
    let server = servers.launch_of(wasi).start();
    for ((_, upstream), url) in servers.all.iter().zip(servers.urls()) {
        let text = fetch(&server, &format!("GET,{url}/slow-head?100,together=60"));
        assert_eq!(text.matches("status=200").count(), 60, "{text}");
        assert!(upstream.connections() <= 16, "{}", upstream.connections());
    }
}

/// A function may have 32 connections. Half of them wait for a response that does not come, the others become idle.
fn who_waits_for_a_connection_has_the_place_of_one_that_became_idle(wasi: Wasi) {
    let servers = Servers::start();
    let server =
        servers.launch_of(wasi).through(["prlimit", "--nofile=1024"]).flag("--outbound-idle-timeout", "10m").start();
    let ((_, upstream), url) = (&servers.all[0], servers.urls().remove(0));
    let asking = |query: &str| format!("GET /http/fetch?GET,{url}/{query} HTTP/1.1\r\nHost: box\r\n\r\n");
    let held = server.wire(asking("slow-head?50000,together=16"));
    eventually("half of them are held", || (upstream.connections() == 16).then_some(()));
    let mut idle = server.wire(asking("slow-head?5000,together=16"));
    // While one is made, it needs two places: to attempt two addresses.
    eventually("all are taken", || (upstream.connections() >= 31).then_some(()));
    assert_eq!(fetch(&server, &format!("GET,{url}/slow-head?1,together=4")).matches("status=200").count(), 4);
    assert_eq!(idle.answer().ok().text().matches("status=200").count(), 16);
    eventually("the others have ended, and the first half is still held", || {
        (server.metrics().sum("wasmbox_in_flight_invocations", &[]) == 1.0).then_some(())
    });
    drop(held);
    server.wait_until_idle();
}

/// Responses that are not read hold all connections that the invocation may have.
fn connections_that_are_not_given_back_are_missed(wasi: Wasi) {
    let servers = Servers::start();
    let server = servers.launch_of(wasi).start();
    let url = &servers.urls()[2];
    let text = fetch(&server, &format!("GET,{url}/bytes?1000000,together=17,keep,connect=5000"));
    assert_eq!(text.matches("kept=200").count(), 16, "{text}");
    has(&text, &["error=", "ConnectionLimitReached"]);
    server.logged(&[
        "outbound request refused",
        "all connections that it may have are in use",
        "read responses to their end",
    ]);
}

fn what_a_request_holds_is_the_invocations_memory(wasi: Wasi) {
    let servers = Servers::start();
    let server = servers.launch_of(wasi).start();
    let url = &servers.urls()[2];
    let request = Request::get(format!("/http/fetch?GET,{url}/slow-head?1000,together=40"));
    let answer = server.call(request.header("Memory-Request", "2Mi"), "").ok();
    let (answered, refused) = ("status=200", "ConnectionLimitReached");
    let [answered, refused] = [answered, refused].map(|what| answer.text().matches(what).count());
    assert!(answered >= 1 && refused >= 20 && answered + refused == 40, "{}", answer.text());
    server.logged(&["outbound request refused", "no memory left", "raise its Memory-Request"]);
    // With more of it there is room for all.
    let text = fetch(&server, &format!("GET,{url}/slow-head?1000,together=40"));
    assert_eq!(text.matches("status=200").count(), 40, "{text}");
}

fn the_time_is_told(wasi: Wasi) {
    let servers = Servers::start();
    let server = servers.launch_of(wasi).start();
    for url in servers.urls() {
        let answer = server.get(&format!("/http/fetch?GET,{url}/slow-head?100,together=3")).ok();
        let timing = answer.header("server-timing");
        let of = |name: &str| {
            let value = timing.split(", ").find_map(|part| part.strip_prefix(&format!("{name};dur=")));
            value.unwrap_or_else(|| panic!("{name} is not in {timing}")).parse::<f64>().expect("milliseconds")
        };
        assert!(of("outbound") >= 99.0 && of("outbound") <= of("exec"), "{timing}");
    }
    assert!(!server.get("/http/request").ok().header("server-timing").contains("outbound"));
    let line = server.logged(&["function=http", "outbound_us="]);
    let (_, told) = line.split_once("outbound_us=").expect("it is there");
    let told: u64 = told.split(' ').next().and_then(|number| number.parse().ok()).expect("microseconds");
    assert!(told >= 99_000, "{line}");
    let metrics = server.metrics();
    let sum = |metric: &str, labels: &[&str]| metrics.sum(metric, labels);
    assert_eq!(sum("wasmbox_outbound_requests_total", &["result=\"answered\""]), 9.0);
    assert_eq!(sum("wasmbox_outbound_duration_seconds_count", &["function=\"http\""]), 9.0);
    assert!(sum("wasmbox_outbound_duration_seconds_sum", &["function=\"http\""]) >= 0.9);
}

fn refusals_are_one_line_each_and_not_many(wasi: Wasi) {
    let servers = Servers::start();
    let server = servers.launch_of(wasi).start();
    let lines = |server: &wasmbox_tests::WasmBox| server.log().matches("outbound request refused").count();
    fetch(&server, "GET,http://10.0.0.1/,times=3");
    server.logged(&["outbound request refused", "10.0.0.1:80", "allowed-outbound-hosts", "--allow-outbound"]);
    eventually("a line for each", || (lines(&server) == 3).then_some(()));
    fetch(&server, "GET,http://10.0.0.1/,times=100");
    server.logged(&["outbound request refused", "further refusals of this invocation are not logged"]);
    // The log of the invocation itself comes after them.
    eventually("its own line", || (server.log().matches("invocation: id=").count() >= 2).then_some(()));
    assert_eq!(lines(&server), 3 + 8);
}
