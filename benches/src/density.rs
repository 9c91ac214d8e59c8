//! How much fits into one box: resident memory for each loaded function and each idle worker, and a thousand invocations that
//! sleep at once.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::task::{JoinSet, yield_now};
use tokio::time::sleep_until;

use crate::connection::Connection;
use crate::fixture::{self, Fixture};
use crate::module;
use crate::row::{Row, percentiles};
use crate::target::{Program, Running, Target, WASMBOX_SERVE};

/// The name of the section on the command line, and of the servers' logs.
pub const DENSITY: &str = "density";

/// Memory for each of [`FUNCTION_COUNT`] loaded functions that do not run, and the latency of their first answers.
pub const FUNCTION: &str = "density-function";
/// Memory for each of [`WORKER_COUNT`] workers that ran something and wait.
pub const WORKER: &str = "density-worker";
/// Memory of a box in which [`SLEEPER_COUNT`] invocations sleep at once, and how late they end.
pub const SLEEPING: &str = "density-sleeping";

pub const FUNCTION_COUNT: u32 = 200;
pub const WORKER_COUNT: u32 = 64;
pub const SLEEPER_COUNT: u32 = 1000;

/// How long invocations sleep: longer than it takes to start a thousand.
const NAP: Duration = Duration::from_secs(5);
/// The time over which they are started.
const STARTS: Duration = Duration::from_secs(2);
/// When they all sleep.
const ALL_SLEEP: Duration = Duration::from_secs(4);

/// Their `Memory-Request`: by default a thousand of them would be 200 GB.
const REQUEST: [(&str, &str); 1] = [("memory-request", "1")];

const TARGET: Target =
    Target { name: DENSITY, program: Program::Wasmbox, args: WASMBOX_SERVE, env: &[], ready: "/-/ready", path: "/nap" };

/// The three rows.
///
/// # Errors
///
/// When the box does not start, or an answer is not the expected one.
pub async fn measure(fixture: &Fixture) -> Result<Vec<Row>> {
    let home = fixture.directory(DENSITY)?;
    let functions = fixture.directory("density/functions")?;
    fixture.directory("density/cache")?;
    for index in 0..FUNCTION_COUNT {
        fixture::write(&functions.join(format!("small-{index}.wasm")), &module::small(index)?)?;
    }
    fixture::write(&functions.join("nap.wasm"), &module::nap(NAP)?)?;
    // The first start compiles them all; the second one loads what is measured from the cache.
    loaded(fixture, &home).await.context("compiling")?;
    let rows = [
        loaded(fixture, &home).await.context(FUNCTION)?,
        idle(fixture, &home).await.context(WORKER)?,
        sleeping(fixture, &home).await.context(SLEEPING)?,
    ];
    Ok(rows.into())
}

async fn loaded(fixture: &Fixture, home: &std::path::Path) -> Result<Row> {
    let Running { mut server, port } = TARGET.start(fixture, home)?;
    let mut connection = Connection::when_ready(&mut server, port, TARGET.ready).await?;
    // What the first invocation of all makes is not any function's.
    connection.hello("/small-0").await?;
    let (memory, cpu) = (server.rss_kib()?, server.cpu()?);
    let mut latencies = Vec::new();
    for index in 1..FUNCTION_COUNT {
        latencies.push(connection.hello(&format!("/small-{index}")).await?);
    }
    let count = FUNCTION_COUNT - 1;
    let cpu = server.cpu()?.saturating_sub(cpu) / count;
    row(FUNCTION, 1, latencies, cpu, server.rss_kib()?.saturating_sub(memory) / u64::from(count))
}

async fn idle(fixture: &Fixture, home: &std::path::Path) -> Result<Row> {
    let Running { mut server, port } = TARGET.start(fixture, home)?;
    let mut connection = Connection::when_ready(&mut server, port, TARGET.ready).await?;
    connection.hello("/small-0").await?;
    let (memory, cpu) = (server.rss_kib()?, server.cpu()?);
    // Each naps on a worker of its own. A worker is kept for 10 s.
    let late = nap(port, WORKER_COUNT, Duration::ZERO).await?.join_all().await;
    let late: Vec<Duration> = late.into_iter().collect::<Result<_>>()?;
    let cpu = server.cpu()?.saturating_sub(cpu) / WORKER_COUNT;
    row(WORKER, WORKER_COUNT, late, cpu, server.rss_kib()?.saturating_sub(memory) / u64::from(WORKER_COUNT))
}

async fn sleeping(fixture: &Fixture, home: &std::path::Path) -> Result<Row> {
    let Running { mut server, port } = TARGET.start(fixture, home)?;
    Connection::when_ready(&mut server, port, TARGET.ready).await?;
    let (started, cpu) = (Instant::now(), server.cpu()?);
    let naps = nap(port, SLEEPER_COUNT, STARTS / SLEEPER_COUNT).await?;
    ensure!(started.elapsed() < ALL_SLEEP, "{SLEEPER_COUNT} requests took {:?} to send", started.elapsed());
    sleep_until((started + ALL_SLEEP).into()).await;
    let memory = server.rss_kib()?;
    let late: Vec<Duration> = naps.join_all().await.into_iter().collect::<Result<_>>()?;
    row(SLEEPING, SLEEPER_COUNT, late, server.cpu()?.saturating_sub(cpu) / SLEEPER_COUNT, memory)
}

/// Sends `count` requests, each on a connection of its own and `apart` from the one before; they give how late their answers come.
async fn nap(port: u16, count: u32, apart: Duration) -> Result<JoinSet<Result<Duration>>> {
    let mut naps = JoinSet::new();
    let started = Instant::now();
    for index in 0..count {
        sleep_until((started + apart * index).into()).await;
        let mut connection = Connection::open(port).await?;
        naps.spawn(async move {
            let answer = connection.get(TARGET.path, &REQUEST).await?;
            answer.ok()?;
            Ok(answer.latency.saturating_sub(NAP))
        });
        // It is sent now.
        yield_now().await;
    }
    Ok(naps)
}

/// `cpu` and `memory` are for each.
fn row(name: &'static str, connections: u32, times: Vec<Duration>, cpu: Duration, memory_kib: u64) -> Result<Row> {
    let count = times.len() as f64;
    let sum: Duration = times.iter().sum();
    let (p50_us, p99_us) = percentiles(times).context("no answer")?;
    Ok(Row {
        name,
        connections,
        gap_ms: 0,
        req_per_s: if name == FUNCTION { count / sum.as_secs_f64() } else { 0.0 },
        p50_us,
        p99_us,
        cpu_us: cpu.as_secs_f64() * 1e6,
        rss_kib: memory_kib,
        errors: 0,
        held: None,
    })
}
