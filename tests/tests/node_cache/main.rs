//! The node's cache and its compile service: boxes in mount namespaces of their own, as in containers, and a socket behind which each
//! connection gets a process, as from the shim. They take root.
//!
//! - [`node`]: a cache, and a socket with the service behind it
//! - [`boxes`]: who is served; [`service`]: what it does with modules, good and bad; [`faults`]: without it; [`cache`]: what is kept

mod boxes;
mod cache;
mod faults;
mod node;
mod service;

use wasmbox_tests::{WasmBox, metrics::Metrics};

/// The user of boxes that are not root's.
const USER: u32 = 1000;
/// Takes long enough to compile to look at it meanwhile.
const LARGE: usize = 3 << 20;

fn compilations(metrics: &Metrics, result: &str) -> f64 {
    metrics.sum("wasmbox_compilations_total", &[&format!("result=\"{result}\"")])
}

/// (compiled by the service, compiled by the box, found in the node's cache)
fn counts(server: &WasmBox) -> (f64, f64, f64) {
    let metrics = server.metrics();
    let found = metrics.sum("wasmbox_cache_requests_total", &["cache=\"node\"", "result=\"hit\""]);
    (compilations(&metrics, "node"), compilations(&metrics, "ok"), found)
}
