//! The cold start: the first answer of a module of 1 MB, whose machine code is in the box's cache on disk, after a start
//! of the box; against its later answers.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::connection::Connection;
use crate::fixture::{self, Fixture};
use crate::row::{Row, median};
use crate::target::{Program, Running, Target, WASMBOX_SERVE};
use crate::{module, tool};

/// The name of the first answer's row.
pub const COLD: &str = "wasmbox-cold";

/// The name of the later answers' row.
pub const WARM: &str = "wasmbox-warm";

/// Later answers of each start.
const WARM_ANSWERS: u32 = 50;

const TARGET: Target =
    Target { name: COLD, program: Program::Wasmbox, args: WASMBOX_SERVE, env: &[], ready: "/-/ready", path: "/large" };

/// Fills a cache with `wasmbox compile`, then starts the box `starts` times, and gives the rows [`COLD`] and [`WARM`].
///
/// # Errors
///
/// When the box does not compile, start, or answer `hello`.
pub async fn measure(fixture: &Fixture, starts: u32) -> Result<[Row; 2]> {
    let home = fixture.directory("cold")?;
    let functions = fixture.directory("cold/functions")?;
    let cache = fixture.directory("cold/cache")?;
    fixture::write(&functions.join("large.wasm"), &module::large()?)?;
    let mut compile = Command::new(fixture.program(Program::Wasmbox));
    compile.arg("compile").arg("--functions-dir").arg(functions);
    compile.arg("--cache-dir").arg(cache);
    tool::run(compile).await?;

    let mut cold = Vec::new();
    let mut warm = Vec::new();
    for start in 1..=starts {
        let [first, later] = one_start(fixture, &home).await.context("target wasmbox-cold")?;
        eprintln!(
            "start {start} of {starts}: first answer of a 1 MB module {} us, later ones {} us",
            first.p50_us, later.p50_us
        );
        cold.push(first);
        warm.push(later);
    }
    let worst = cold.iter().map(|row| row.p99_us).max();
    let mut cold = Row::of_rounds(&cold).context("no start was asked for")?;
    cold.p99_us = worst.context("no start was asked for")?;
    let warm = Row::of_rounds(&warm).context("no start was asked for")?;
    Ok([cold, warm])
}

/// Starts the box, and asks on one connection, which has seen it ready: what is cold is the function, not the connection.
async fn one_start(fixture: &Fixture, home: &Path) -> Result<[Row; 2]> {
    let Running { mut server, port } = TARGET.start(fixture, home)?;
    let mut connection = Connection::when_ready(&mut server, port, TARGET.ready).await?;

    let before = server.cpu()?;
    let first = connection.hello(TARGET.path).await?;
    let cpu = server.cpu()?.saturating_sub(before);
    let cold = row(COLD, &[first], cpu, server.rss_kib()?)?;

    let before = server.cpu()?;
    let mut later = Vec::new();
    for _ in 0..WARM_ANSWERS {
        later.push(connection.hello(TARGET.path).await?);
    }
    let cpu = server.cpu()?.saturating_sub(before) / WARM_ANSWERS;
    let warm = row(WARM, &later, cpu, server.rss_kib()?)?;
    Ok([cold, warm])
}

/// `cpu` is for each answer.
fn row(name: &'static str, latencies: &[Duration], cpu: Duration, rss_kib: u64) -> Result<Row> {
    let p50 = median(latencies.iter().copied()).context("no answer")?;
    let worst = latencies.iter().copied().max().context("no answer")?;
    Ok(Row {
        name,
        connections: 1,
        gap_ms: 0,
        req_per_s: 1.0 / p50.as_secs_f64(),
        p50_us: micros(p50),
        p99_us: micros(worst),
        cpu_us: cpu.as_secs_f64() * 1e6,
        rss_kib,
        errors: 0,
        held: None,
    })
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).expect("a latency is below 500,000 years")
}
