//! Enemies of a box, and what they get: their own error. `make attack` runs them, one after another.
//!
//! Each attack is on a box in a memory cgroup of its own, while another customer's `/hello` is called all the time. What holds after
//! each of them is in [`wasmbox_tests::attack`]: the same process, no OOM kill, 99 of 100 of the victim's calls answered right and
//! within a second, and as many of those that ask both ports whether the box lives and is ready, memory below the limit, bounded descriptors and log.
//! That the enemy itself is answered with its code, or finds its connection closed, is in the tests, most of it by
//! [`wasmbox_tests::attacker`].
//!
//! | enemy | module |
//! |---|---|
//! | a function's author, with memory of the host | [`host_memory`], [`handles`] |
//! | with time | [`time`] |
//! | with what a module is | [`modules`] |
//! | with answers | [`framing`] |
//! | with the log | [`log`] |
//! | with requests to others | [`outgoing`] |
//! | with instances that serve several requests at once, and their clients | [`shared`] |
//! | a client of HTTP/1.1, of HTTP/2 | [`http1`], [`http2`], [`connections`], [`budgets`], [`requests`] |
//! | a writer of the functions' volume, or of a preopened directory | [`volume`], [`preopens`] |

mod budgets;
mod connections;
mod framing;
mod handles;
mod host_memory;
mod http1;
mod http2;
mod log;
mod modules;
mod outgoing;
mod preopens;
mod requests;
mod shared;
mod time;
mod volume;

use wasmbox_tests::{Answer, client::Broken};

/// The answer must be an error of the box's, whole, with one of `codes`.
#[track_caller]
fn assert_coded(answer: &Answer, codes: &[&str]) {
    let code = answer.headers.get("wasmbox-error").and_then(|code| code.to_str().ok()).unwrap_or("none");
    assert!(codes.contains(&code), "{code}, not one of {codes:?}: {answer:?}");
    answer.problem(answer.status, code);
}

/// An answer that may be broken off when it has begun; it must not fail to come. Gives it if it is whole.
#[track_caller]
fn begun(answer: Result<Answer, Broken>) -> Option<Answer> {
    answer.map_err(|broken| assert!(!broken.hangs, "{broken:?}")).ok()
}
