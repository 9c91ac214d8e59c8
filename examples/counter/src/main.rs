//! Counts its calls in what the box keeps for it, says so in the box's log, and greets as it is configured.
//!
//!     cargo build --release --target wasm32-wasip2 -p counter
//!     wasmbox serve --keyvalue-dir /srv/kept    # settings: functions/counter.toml
//!     curl localhost:8095/counter

use bindings::wasi::config::store as config;
use bindings::wasi::keyvalue::{atomics, store};
use bindings::wasi::logging::logging::{Level, log};

mod bindings {
    wit_bindgen::generate!({ path: "wit", generate_all });
}

fn main() -> Result<(), store::Error> {
    let greeting = config::get("greeting").ok().flatten().unwrap_or_else(|| "Hello".to_owned());
    let bucket = store::open("default")?;
    let visit = atomics::increment(&bucket, "visits", 1)?;
    log(Level::Info, "visits", &format!("visit {visit}"));
    println!("{greeting}! You are visitor {visit}.");
    Ok(())
}
