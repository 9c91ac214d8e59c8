//! Clients that do at random what clients do, all at once: nobody is left without an end, and nothing is left of anybody.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use http::{Method, Request, Version};
use wasmbox_tests::{
    WasmBox,
    client::{Answer, Broken, Http2, VERSIONS},
    eventually,
    wire::parsed,
};

use super::{compiled, launch, uses};

const CLIENTS: u64 = 6;
const STEPS: u32 = 5;
/// How many times as many as that come, at most, and for how long.
const CASES: u64 = 40;
const TIME: Duration = Duration::from_secs(12);

/// What a client does at random (G. Marsaglia: Xorshift RNGs, 2003).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// Requests of all clients, and those of them whose client left before it had an answer: the box may not have seen these.
#[derive(Default)]
struct Counts {
    sent: AtomicU32,
    left: AtomicU32,
}

/// What has ended its instance, or has come too late, ends any request: with its code, or in the middle of its answer.
fn whole(answer: Result<Answer, Broken>) -> Option<Answer> {
    match answer {
        Ok(answer) if answer.headers.contains_key("wasmbox-error") => {
            let code = answer.header("wasmbox-error");
            assert!(["guest-trap", "deadline-exceeded"].contains(&code), "{answer:?}");
            None
        }
        Ok(answer) => Some(answer),
        Err(broken) => {
            assert!(!broken.hangs, "{broken:?}");
            None
        }
    }
}

fn act(server: &WasmBox, random: &mut Random, counts: &Counts) {
    let version = VERSIONS[usize::try_from(random.below(VERSIONS.len() as u64)).expect("small")];
    let call = |path: &str| server.try_call(Request::get(path).version(version), "");
    counts.sent.fetch_add(1, Ordering::Relaxed);
    match random.below(9) {
        0 => {
            let status = 400 + random.below(50);
            if let Some(answer) = whole(call(&format!("/p3/status?{status}"))) {
                assert_eq!((u64::from(answer.status), answer.text()), (status, "as asked"));
            }
        }
        1 => {
            let body: Vec<u8> = (0..random.below(200_000)).map(|_| random.below(256).to_le_bytes()[0]).collect();
            let answer = server.try_call(Request::post("/p3/copy").version(version), body.clone());
            assert!(whole(answer).is_none_or(|answer| answer.ok().body == body), "another one's body");
        }
        2 => {
            let answer = call("/p3/slowly?3");
            assert!(whole(answer).is_none_or(|answer| answer.ok().text() == "one two three"));
        }
        3 => match call("/p3/error") {
            Ok(answer) if answer.header("wasmbox-error") == "guest-no-response" => {}
            other => assert!(whole(other).is_none(), "an error is no answer"),
        },
        4 => assert!(whole(call("/p3/trap")).is_none(), "a trap is no answer"),
        5 => assert!(whole(call("/p3/sleep")).is_none(), "it does not end"),
        // Reads nothing for a while.
        6 => {
            let head = "GET /p3/write?5000000 HTTP/1.1\r\nHost: box\r\nConnection: close\r\n\r\n";
            let mut wire = server.wire(head);
            thread::sleep(Duration::from_millis(random.below(50)));
            let bytes = wire.rest();
            for answer in parsed(&bytes, &[Method::GET]) {
                assert!(whole(Ok(answer)).is_none_or(|answer| answer.ok().body.len() == 5_000_000));
            }
        }
        _ => {
            counts.left.fetch_add(1, Ordering::Relaxed);
            let meanwhile = Duration::from_millis(random.below(20));
            if version == Version::HTTP_2 {
                let connection = Http2::connect(server.address());
                let path = ["/p3/sleep", "/p3/write?5000000"][usize::from(random.below(2) == 0)];
                connection.reset_all(&[path.into()], || thread::sleep(meanwhile));
            } else {
                let wire = server.wire(match random.below(2) {
                    0 => "POST /p3/copy HTTP/1.1\r\nHost: box\r\nContent-Length: 100\r\n\r\nabc",
                    _ => "GET /p3/write?5000000 HTTP/1.1\r\nHost: box\r\n\r\n",
                });
                thread::sleep(meanwhile);
                wire.reset();
            }
        }
    }
}

#[test]
fn every_request_has_an_end_and_nothing_is_left() {
    let server =
        launch(3, 10).flag("--concurrent-resource-request", 4096).flag("--invocation-timeout", "1500ms").start();
    compiled(&server);
    let (started, counts) = (Instant::now(), Counts::default());
    counts.sent.fetch_add(1, Ordering::Relaxed);
    for case in 1..=CASES {
        if started.elapsed() > TIME {
            break;
        }
        thread::scope(|scope| {
            for client in 0..CLIENTS {
                let (server, counts) = (&server, &counts);
                // Its seed is said if it fails.
                let seed = case * 1_000_003 + client;
                let name = format!("case {case}, client {client}");
                let acts = move || {
                    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
                    (0..STEPS).for_each(|_| act(server, &mut random, counts));
                };
                thread::Builder::new().name(name).spawn_scoped(scope, acts).expect("a thread");
            }
        });
        server.wait_until_idle();
        assert_accounted(&server, &counts);
    }
    eprintln!("{} requests, of which {} were left", counts.sent.into_inner(), counts.left.into_inner());
    for instance in ["fresh", "reused", "joined"] {
        assert!(uses(&server, instance) > 0.0, "{instance}: none");
    }
}

/// Lines, metrics and requests are the same.
fn assert_accounted(server: &WasmBox, counts: &Counts) {
    let [sent, left] = [&counts.sent, &counts.left].map(|count| f64::from(count.load(Ordering::Relaxed)));
    let uses = || ["fresh", "reused", "joined"].iter().map(|instance| uses(server, instance)).sum::<f64>();
    let total = || server.metrics().sum("wasmbox_invocations_total", &[]);
    eventually("each has a line, and is counted", || {
        let log = server.log();
        let lines = || log.lines().filter(|line| line.contains(" invocation: "));
        let with_instance = lines().filter(|line| line.contains(" instance=")).count();
        (lines().count() as f64 == total() && with_instance as f64 == uses()).then_some(())
    });
    let total = total();
    assert!(total <= sent && total >= sent - left, "{total}, of {sent} requests, of which {left} were left");
    let metrics = server.metrics();
    for gauge in ["wasmbox_queued_invocations", "wasmbox_queued_resource_units", "wasmbox_in_flight_invocations"] {
        assert_eq!(metrics.sum(gauge, &[]), 0.0, "{gauge}");
    }
}
