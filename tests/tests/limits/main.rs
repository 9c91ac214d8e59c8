//! What a function may use, and what it is told when it wants more.
//!
//! - [`values`]: what headers may say; [`caps`]: how much operators and functions let them ask for
//! - [`memory`], [`deadline`], [`output`], [`stack`]: what is limited

mod caps;
mod deadline;
mod memory;
mod output;
mod stack;
mod values;

use wasmbox_tests::{Request, WasmBox};

fn with_memory(server: &WasmBox, path: &str, request: &str) -> wasmbox_tests::Answer {
    server.call(Request::get(path).header("Memory-Request", request), "")
}
