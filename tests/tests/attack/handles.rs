//! Authors who take handles, and give none back: each stands for memory of the host's, a timer, a socket.

use wasmbox_tests::{Attack, attack::together, component::http_guest};

use crate::{
    assert_coded,
    host_memory::{CROWDED, REFUSED, call},
};

/// What a guest says when it gets no more, thousands of times.
const LOG: u64 = 32 << 20;

fn taken(what: &str) {
    let path = format!("/http/hostile?{what}");
    Attack::within(1024).function("http.wasm", http_guest()).log_bytes(LOG).run(|server| {
        together(8, |_| assert_coded(&call(server, &path), &[REFUSED, CROWDED].concat()));
    });
}

#[test]
fn empty_fields() {
    taken("empty-fields");
}

#[test]
fn requests_that_are_never_sent() {
    taken("outgoing-requests");
}

#[test]
fn responses_that_are_never_set() {
    taken("outgoing-responses");
}

#[test]
fn timers_for_tomorrow() {
    taken("pollables");
}

#[test]
fn waiting_for_thousands_of_timers() {
    taken("poll,5000");
}

#[test]
fn waiting_for_one_timer_a_hundred_thousand_times() {
    taken("poll-one,100000");
}

#[test]
fn tcp_sockets() {
    taken("tcp-sockets");
}

#[test]
fn udp_sockets() {
    taken("udp-sockets");
}
