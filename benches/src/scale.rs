//! What a box holds when there is much of everything: ten thousand functions that are called now and then, and twenty thousand connections that do nothing. What a
//! thousand invocations hold that sleep at once is in [`crate::density`].

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::task::JoinSet;

use crate::connection::Connection;
use crate::fixture::{self, Fixture};
use crate::module;
use crate::process::Server;
use crate::row::{Held, Row, percentiles};
use crate::target::{Program, Running, Target};
use crate::tool;

/// The name of the section on the command line, and of the servers' logs.
pub const SCALE: &str = "scale";

/// [`CALL_COUNT`] calls of [`FUNCTION_COUNT`] functions.
pub const FUNCTIONS: &str = "scale-functions";
/// Up to [`CONNECTION_COUNT`] connections that have had an answer each; the latencies of calls on one more.
pub const CONNECTIONS: &str = "scale-connections";

pub const FUNCTION_COUNT: u32 = 10_000;
pub const CALL_COUNT: u32 = 40_000;
pub const CONNECTION_COUNT: u32 = 20_000;

/// Connections on which functions are called.
const CALLERS: u32 = 16;
/// Connections are opened so many at a time.
const AT_ONCE: u32 = 64;
/// Calls on the further connection.
const LATER_CALLS: u32 = 1000;
/// Descriptors that are asked for, and those that are not for connections.
const DESCRIPTORS: u64 = 65_536;
const OTHER_DESCRIPTORS: u64 = 4000;

const ENVIRONMENT: &[(&str, &str)] = &[
    // As a box has it in a container with 1 GiB of memory: a quarter.
    ("MODULE_MEMORY", "256Mi"),
    ("MAX_CONNECTIONS", "21000"),
    ("IDLE_TIMEOUT", "10m"),
];

const TARGET: Target = Target {
    name: SCALE,
    program: Program::Wasmbox,
    args: crate::target::WASMBOX_SERVE,
    env: ENVIRONMENT,
    ready: "/-/ready",
    path: "/small-0",
};

/// The rows.
///
/// # Errors
///
/// When the box does not start, or an answer is not the expected one.
pub async fn measure(fixture: &Fixture) -> Result<Vec<Row>> {
    let connections = connections()?;
    let home = fixture.directory(SCALE)?;
    let functions = fixture.directory("scale/functions")?;
    let cache = fixture.directory("scale/cache")?;
    for index in 0..FUNCTION_COUNT {
        fixture::write(&functions.join(format!("small-{index}.wasm")), &module::small(index)?)?;
    }
    eprintln!("{SCALE}: compiling {FUNCTION_COUNT} modules");
    let mut compile = std::process::Command::new(fixture.program(Program::Wasmbox));
    compile.arg("compile").arg("--functions-dir").arg(functions).arg("--cache-dir").arg(cache);
    tool::run(compile).await?;
    Ok(vec![
        called(fixture, &home).await.context(FUNCTIONS)?,
        connected(fixture, &home, connections).await.context(CONNECTIONS)?,
    ])
}

/// Raises the limit of descriptors for this process, and the box, which inherits it; how many connections both can have then, up to [`CONNECTION_COUNT`].
fn connections() -> Result<u32> {
    let now = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: Some(DESCRIPTORS), maximum: now.maximum.map(|maximum| maximum.max(DESCRIPTORS)) };
    // To raise the maximum takes a right.
    setrlimit(Resource::Nofile, wanted)
        .or_else(|_| setrlimit(Resource::Nofile, Rlimit { current: now.maximum, ..now }))
        .context("cannot raise RLIMIT_NOFILE")?;
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    Ok(u32::try_from(descriptors.saturating_sub(OTHER_DESCRIPTORS)).unwrap_or(u32::MAX).min(CONNECTION_COUNT))
}

/// Functions are called as often as words are used: the n-th most popular one 1/n times as often as the first (Zipf).
async fn called(fixture: &Fixture, home: &Path) -> Result<Row> {
    let Running { mut server, port } = TARGET.start(fixture, home)?;
    Connection::when_ready(&mut server, port, TARGET.ready).await?.hello(TARGET.path).await?;
    let cpu = server.cpu()?;
    let started = Instant::now();
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let mut connection = Connection::open(port).await?;
        let mut popularity = Popularity::new(FUNCTION_COUNT, caller);
        callers.spawn(async move {
            let mut latencies = Vec::new();
            for _ in 0..CALL_COUNT / CALLERS {
                latencies.push(connection.hello(&format!("/small-{}", popularity.next())).await?);
            }
            Ok(latencies)
        });
    }
    let latencies: Vec<Vec<Duration>> = callers.join_all().await.into_iter().collect::<Result<_>>()?;
    let cpu = server.cpu()?.saturating_sub(cpu) / CALL_COUNT;
    row(FUNCTIONS, CALLERS, latencies.concat(), started.elapsed(), cpu, &server)
}

async fn connected(fixture: &Fixture, home: &Path, count: u32) -> Result<Row> {
    let Running { mut server, port } = TARGET.start(fixture, home)?;
    let mut further = Connection::when_ready(&mut server, port, TARGET.ready).await?;
    further.hello(TARGET.path).await?;
    let mut idle = Vec::new();
    while idle.len() < count as usize {
        let mut opening = JoinSet::new();
        for _ in 0..AT_ONCE.min(count - u32::try_from(idle.len())?) {
            opening.spawn(async move {
                let mut connection = Connection::open(port).await?;
                connection.hello(TARGET.path).await?;
                Ok(connection)
            });
        }
        idle.extend(opening.join_all().await.into_iter().collect::<Result<Vec<_>>>()?);
    }
    let (cpu, started) = (server.cpu()?, Instant::now());
    let mut latencies = Vec::new();
    for _ in 0..LATER_CALLS {
        latencies.push(further.hello(TARGET.path).await?);
    }
    let cpu = server.cpu()?.saturating_sub(cpu) / LATER_CALLS;
    let row = row(CONNECTIONS, count, latencies, started.elapsed(), cpu, &server)?;
    let held = row.held.as_ref().context("it was looked at")?;
    ensure!(held.descriptors > u64::from(count), "only {} descriptors are open", held.descriptors);
    Ok(row)
}

fn row(
    name: &'static str,
    connections: u32,
    latencies: Vec<Duration>,
    took: Duration,
    cpu: Duration,
    server: &Server,
) -> Result<Row> {
    let answers = latencies.len() as f64;
    let (p50_us, p99_us) = percentiles(latencies).context("no answer")?;
    Ok(Row {
        name,
        connections,
        gap_ms: 0,
        req_per_s: answers / took.as_secs_f64(),
        p50_us,
        p99_us,
        cpu_us: cpu.as_secs_f64() * 1e6,
        rss_kib: server.rss_kib()?,
        errors: 0,
        held: Some(Held { descriptors: server.descriptors()?, mappings: server.mappings()? }),
    })
}

/// Draws numbers below a bound, the n-th with a weight of 1/n; the same ones for the same seed.
struct Popularity {
    /// Of each, with all before it.
    weights: Vec<f64>,
    state: u64,
}

impl Popularity {
    fn new(count: u32, seed: u32) -> Popularity {
        let mut sum = 0.0;
        let weights = (1..=count)
            .map(|rank| {
                sum += 1.0 / f64::from(rank);
                sum
            })
            .collect();
        Popularity { weights, state: u64::from(seed) + 1 }
    }

    fn next(&mut self) -> usize {
        // SplitMix64.
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        let share = (bits >> 11) as f64 / (1_u64 << 53) as f64;
        let sum = self.weights.last().copied().unwrap_or_default();
        self.weights.partition_point(|weight| *weight < share * sum).min(self.weights.len().saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_drawn_as_often_as_it_should() {
        let mut popularity = Popularity::new(100, 7);
        let mut counts = [0_u32; 100];
        for _ in 0..100_000 {
            counts[popularity.next()] += 1;
        }
        let harmonic: f64 = (1..=100).map(|rank| 1.0 / f64::from(rank)).sum();
        for (rank, count) in counts.iter().enumerate().take(5) {
            let expected = 100_000.0 / harmonic / (rank as f64 + 1.0);
            assert!((f64::from(*count) / expected - 1.0).abs() < 0.05, "{rank}: {count}, {expected}");
        }
        assert!(counts.iter().all(|count| *count > 0));
    }
}
