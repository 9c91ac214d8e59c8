//! Compiling is never in the box: what a module may cost, and what the process that compiles may do. Without the node's service; with it see
//! `node_cache`. In one step, which is the one that takes long; for two see `tiers.rs`.
//!
//! - [`process`]: what the process can reach, and how it ends; [`costs`]: time, memory and processes
//! - [`modules`]: what is refused before it is compiled, and what is said of it

mod costs;
mod modules;
mod process;

use std::time::{Duration, Instant};

use wasmbox_tests::{Answer, Request, WasmBox, process::Process, server::Launch};

/// Takes seconds to compile.
const LARGE: usize = 6 << 20;

fn one_step() -> Launch {
    WasmBox::launch().flag("--tiers", "off")
}

/// The processes that compile for `server` now.
fn compilers(server: &WasmBox) -> Vec<Process> {
    server.process().children()
}

/// The answer when compiling has ended, on a busy machine too.
fn patient(server: &WasmBox, path: &str) -> Answer {
    let give_up = Instant::now() + Duration::from_secs(300);
    loop {
        let answer = server.call(Request::get(path).header("Invocation-Timeout", "20s"), "");
        if !(answer.status == 503 && answer.text().contains("still being compiled")) || Instant::now() > give_up {
            return answer;
        }
    }
}

fn compilations(server: &WasmBox, result: &str) -> f64 {
    server.metrics().sum("wasmbox_compilations_total", &[&format!("result=\"{result}\"")])
}
