//! `parts`: what each part of a request costs alone, by the CPU clock of one thread; and beside their sum what the whole costs, as the bench
//! has measured it last.
//!
//! - [`meter`]: how a part is measured
//! - [`guest`]: the guest's call by wasmtime alone; [`invocation`]: by the box
//! - [`around`]: what is around it; [`server`]: HTTP
//! - [`cold`]: the first call of a module

#![allow(clippy::print_stdout, reason = "its tables go to stdout")]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

mod around;
mod cold;
mod guest;
mod invocation;
mod meter;
#[allow(dead_code, reason = "of the modules of the bench two are taken")]
#[path = "../../module.rs"]
mod module;
mod server;

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use clap::{Parser, Subcommand};
use serde_json::Value;
use wasmbox::{
    allocator::Allocator,
    config::{Config, Settings},
    logging::{self, LogFormat},
    sandbox::Program,
};
use wasmtime::{Module, Result, component::Component, error::Context};

use self::{
    cold::FIRST_CALL,
    invocation::Sandboxes,
    meter::{Meter, Part},
};

/// As in the box.
#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

/// What each part of a request costs alone; started by `wasmbox-bench`, which knows where the component and its results are.
#[derive(Debug, Parser)]
#[command(name = "parts", version)]
struct Cli {
    /// Batches, of which the median is shown; and starts for the first call
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..))]
    batches: u32,
    /// The trivial `wasi:http` component
    #[arg(long, value_name = "FILE", default_value = "target/bench/guests/wasm32-wasip2/release/hello_http.wasm")]
    component: PathBuf,
    /// What the bench has measured last
    #[arg(long, value_name = "FILE", default_value = "target/bench/results.json")]
    results: PathBuf,
    /// An empty directory for what is written
    #[arg(long, value_name = "DIR", default_value = "target/bench/parts")]
    home: PathBuf,
    #[command(subcommand)]
    command: Option<Inner>,
}

#[derive(Debug, Subcommand)]
enum Inner {
    /// One start, for the first call
    #[command(hide = true)]
    Cold { home: PathBuf },
}

fn main() -> Result<()> {
    // As in the box.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    let cli = Cli::parse();
    if let Some(Inner::Cold { home }) = &cli.command {
        println!("{}", serde_json::to_string(cold::one_start(home)?.as_slice())?);
        return Ok(());
    }
    let functions = cli.home.join("functions");
    fs::create_dir_all(&functions).with_context(|| format!("cannot make {}", functions.display()))?;
    let result = run(&cli, &functions);
    fs::remove_dir_all(&cli.home).with_context(|| format!("cannot remove {}", cli.home.display()))?;
    result
}

#[expect(clippy::disallowed_methods, reason = "nothing is served while it compiles")]
fn run(cli: &Cli, functions: &Path) -> Result<()> {
    let meter = Meter::new(cli.batches)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _context = runtime.enter();
    let sandboxes = Sandboxes::new(Config::new(Settings::default())?)?;
    let engine = sandboxes.engines.plain();
    let hello = module::hello().map_err(wasmtime::Error::msg)?;
    fs::write(functions.join("hello-core.wasm"), &hello)?;
    let component = fs::read(&cli.component).with_context(|| format!("cannot read {}", cli.component.display()))?;
    let (module, component) = (Module::new(engine, hello)?, Component::new(engine, component)?);

    let metrics = sandboxes.metrics.function("hello-core");
    let quiet = around::record(&meter, "metrics alone", &metrics)?;
    let (logged, log_thread) = {
        let _stderr = Stderr::to(&cli.home.join("log"))?;
        let logs = logging::start("info", LogFormat::Text).map_err(wasmtime::Error::msg)?;
        let logged = around::record(&meter, "record: metrics and log line", &metrics)?;
        (logged, around::log_thread(&meter, &logs, &metrics)?)
    };
    let around = [
        server::request(&meter)?,
        around::find(&meter, functions)?,
        around::admit(&meter, &sandboxes)?,
        logged,
        log_thread,
        around::headers(&meter)?,
    ];
    let mut alone = around::system_calls(&meter)?;
    alone.extend([around::clock(&meter)?, quiet]);

    let results = fs::read(&cli.results).ok().and_then(|json| serde_json::from_slice(&json).ok()).unwrap_or_default();
    let programs: [(&str, &str, Program, Vec<Part>); 2] = [
        ("core", "wasmbox-core", sandboxes.toolchain.module(&module)?, guest::core(&meter, &module)?),
        ("wasi:http", "wasmbox-http", sandboxes.toolchain.component(&component)?, guest::http(&meter, &component)?),
    ];
    for (kind, target, program, by_wasmtime) in programs {
        println!("\nA request to a function, {kind}: us of CPU time");
        let invocation = sandboxes.measure(&meter, &program)?;
        let sum = table(around.iter().chain(&invocation), "sum");
        compare(sum, field(&results, target, 16, "cpu_us"), &format!("{target}, 16 connections, hot: cpu_us"));
        println!("  of which, alone");
        table(&by_wasmtime, "the guest's call by wasmtime alone");
        alone.iter().for_each(line);
        if let Some(hyper) = field(&results, "hyper", 16, "cpu_us") {
            println!("  {:<62}{hyper:>9.2}", "hyper, a process with 16 connections, hot: cpu_us");
        }
    }
    println!("\nThe first call of a module of 1 MB in the cache, {} starts: us of CPU time", cli.batches);
    let parts = cold::measure(&cli.home, cli.batches)?;
    let sum = table(&parts[..FIRST_CALL], "sum");
    compare(sum, field(&results, "wasmbox-cold", 1, "cpu_us"), "wasmbox-cold: cpu_us");
    compare(sum, field(&results, "wasmbox-cold", 1, "p50_us"), "wasmbox-cold: p50_us, which is no CPU time");
    println!("  beside it");
    parts[FIRST_CALL..].iter().for_each(line);
    Ok(())
}

/// Lines, and their sum.
fn table<'a>(parts: impl IntoIterator<Item = &'a Part>, sum: &str) -> f64 {
    let mut total = 0.0;
    for part in parts {
        line(part);
        total += part.median_us;
    }
    println!("  {sum:<62}{total:>9.2}");
    total
}

fn line(part: &Part) {
    let Part { name, median_us, least_us, greatest_us } = part;
    println!("  {name:<62}{median_us:>9.2}   ({least_us:.2} to {greatest_us:.2})");
}

/// What of the whole the parts do not explain.
fn compare(sum: f64, whole: Option<f64>, name: &str) {
    match whole {
        Some(whole) => println!("  {name:<62}{whole:>9.2}   unexplained: {:.2}", whole - sum),
        None => {
            println!("  {name:<62} not measured: wasmbox-bench --only parts,wasmbox-core,wasmbox-http,wasmbox-cold")
        }
    }
}

/// A figure of the bench's results, of a target that was not given time to rest.
fn field(results: &Value, name: &str, connections: u64, field: &str) -> Option<f64> {
    let is_it = |row: &&Value| row["name"] == name && row["connections"] == connections && row["gap_ms"] == 0;
    results.as_array()?.iter().find(is_it)?[field].as_f64()
}

/// Standard error in a file, where a log can be written to, until this is dropped.
struct Stderr(rustix::fd::OwnedFd);

impl Stderr {
    fn to(path: &Path) -> Result<Stderr> {
        let before = rustix::io::dup(rustix::stdio::stderr())?;
        let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        rustix::stdio::dup2_stderr(&file)?;
        Ok(Stderr(before))
    }
}

impl Drop for Stderr {
    fn drop(&mut self) {
        // Without it errors are lost, of which there is none if this fails only.
        let _ = rustix::stdio::dup2_stderr(&self.0);
    }
}
