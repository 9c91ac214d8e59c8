//! Readiness by memory utilization, and its explanation.

use http::Method;
use wasmbox_tests::{Answer, Request, WasmBox, guest, server::Launch};

/// With a threshold that any process passes.
fn full() -> Launch {
    WasmBox::launch().function("hello.wat", guest::hello()).env("READINESS_UTILIZATION_TRESHOLD", "0.000001")
}

/// The value of a line of the explanation.
fn explained<'a>(answer: &'a Answer, name: &str) -> &'a str {
    let line = answer.text().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    line.unwrap_or_else(|| panic!("{name} is not in {}", answer.text()))
}

fn word(answer: &Answer) -> &str {
    answer.text().lines().next().unwrap_or_default()
}

#[test]
fn a_box_with_room_is_ready_and_says_why() {
    let server = WasmBox::launch().start();
    for answer in [server.get("/-/ready"), server.admin("/ready")] {
        assert_eq!((answer.status, word(&answer)), (200, "ready"));
        assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
        let utilization: f64 = explained(&answer, "memory-utilization").parse().expect("a number");
        assert!((0.0..=0.9).contains(&utilization), "{utilization}");
        assert!(explained(&answer, "probes-averaged").ends_with(" of 5"));
        assert_eq!(explained(&answer, "threshold"), "0.9");
        assert_eq!(explained(&answer, "ready-above-threshold"), "0 %");
        assert_eq!(explained(&answer, "draining"), "no");
    }
}

#[test]
fn a_full_box_is_not_ready_but_lives_and_serves() {
    let server = full().env("READINESS_WINDOW", 3).start();
    for answer in [server.get("/-/ready"), server.admin("/ready"), server.get("/-/ready")] {
        assert_eq!((answer.status, word(&answer)), (503, "unready"), "{}", answer.text());
        assert!(explained(&answer, "memory-utilization").parse::<f64>().is_ok());
        assert!(explained(&answer, "probes-averaged").ends_with(" of 3"));
        assert_eq!(explained(&answer, "threshold"), "0.000001");
    }
    let head = server.call(Request::builder().method(Method::HEAD).uri("/-/ready"), "");
    assert_eq!((head.status, head.text()), (503, ""));
    server.get("/-/live").ok();
    server.admin("/live").ok();
    // Callers that come all the same are served: to refuse is admission's business.
    server.get("/hello").ok();
}

/// The share that stays ready, under the original's names and the right ones.
#[test]
fn a_share_of_the_probes_stays_ready() {
    let ready = |server: &WasmBox| (0..300).filter(|_| server.admin("/ready").status == 200).count();
    let server = full().env("READINESS_RAND_TRESHOLD", 50).start();
    let some = ready(&server);
    assert!((50..250).contains(&some), "{some} of 300");
    assert_eq!(explained(&server.admin("/ready"), "ready-above-threshold"), "50 %");
    let server = full().env("READINESS_RAND_THRESHOLD", 100).start();
    assert_eq!(ready(&server), 300);
    for (name, value, part) in [
        ("READINESS_UTILIZATION_TRESHOLD", "90", "from 0 to 1"),
        ("READINESS_UTILIZATION_THRESHOLD", "NaN", "from 0 to 1"),
        ("READINESS_RAND_TRESHOLD", "101", "0 to 100"),
        ("READINESS_WINDOW", "0", "1 to 1000"),
    ] {
        let said = WasmBox::launch().env(name, value).refusal();
        assert!(said.contains(value) && said.contains(part), "{said}");
    }
}
