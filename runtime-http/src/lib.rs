//! WasmBox, the box: serves WebAssembly functions on HTTP, each invocation sandboxed and limited.

pub mod admin;
pub mod admission;
pub mod api;
pub mod boot;
pub mod cgroup;
pub mod cli;
pub mod compile;
pub mod config;
pub mod container;
pub mod engine;
pub mod epoch;
pub mod io;
pub mod limits;
pub mod logging;
pub mod memory;
pub mod metrics;
pub mod record;
pub mod run;
pub mod sampler;
pub mod sandbox;
pub mod serve;
pub mod server;
pub mod store;
pub mod worker;
