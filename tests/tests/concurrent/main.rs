//! Instances of WASI 0.3 that serve several requests at once, where their function's author asks for it.
//!
//! - [`joining`]: requests that stay in an instance, and those that come to them
//! - [`sharing`]: what requests in one instance share, and what is each one's own; [`ending`]: what ends one of them, and what all
//! - [`bounds`]: bodies and answers that are too long; [`delivery`]: answers that are not read; [`pressure`]: a box that is short of memory
//! - [`sequences`]: all of it at random

mod bounds;
mod delivery;
mod ending;
mod joining;
mod pressure;
mod sequences;
mod sharing;

use http::Request;
use wasmbox_tests::{WasmBox, component, server::Launch};

fn launch(at_once: u32, in_all: u32) -> Launch {
    launch_with(at_once, in_all, 64)
}

/// With so many mebibytes for each instance.
fn launch_with(at_once: u32, in_all: u32, memory: u32) -> Launch {
    WasmBox::launch()
        .function("p3.wasm", component::p3_guest())
        .function("p3.toml", settings(at_once, in_all))
        .flag("--memory-request", memory)
        // Optimised code in the place of baseline code is a new version.
        .flag("--tiers", "off")
}

fn settings(at_once: u32, in_all: u32) -> String {
    format!("[instance]\nreuse = {in_all}\nconcurrent = {at_once}")
}

/// Its function is ready, however long that takes.
fn compiled(server: &WasmBox) {
    server.call(Request::get("/p3/present").header("Invocation-Timeout", "60000"), "").ok();
    // And its instance is kept.
    server.wait_until_idle();
}

/// How many are in the instance that answers, with this one.
fn present(server: &WasmBox, request: Request<()>) -> (String, String) {
    let (head, ()) = request.into_parts();
    let mut builder = Request::get("/p3/present");
    *builder.headers_mut().expect("it is one") = head.headers;
    let answer = server.call(builder, "").ok();
    (answer.text().to_owned(), answer.header("wasmbox-instance").to_owned())
}

/// Who comes now is with nobody.
fn assert_alone(server: &WasmBox, request: Request<()>, why: &str) {
    let (number, instance) = present(server, request);
    assert!(number == "1" && instance != "joined", "{why}: {instance}, with {number}");
}

fn plain() -> Request<()> {
    Request::new(())
}

fn uses(server: &WasmBox, instance: &str) -> f64 {
    server.metrics().sum("wasmbox_instance_uses_total", &[&format!("instance=\"{instance}\"")])
}
