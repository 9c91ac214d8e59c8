//! What CPU isolation costs: the same function without cgroups, with a cgroup for each worker, and with a fresh one for each
//! invocation, as the original WasmBox made them.
//!
//! Hot, `wrk` counts answers per second. After 50 ms of idle time each invocation has another quota than the one before, so
//! that a pinned worker writes it each time; a client of the bench's own reads `Server-Timing`.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::sleep;

use crate::connection::Connection;
use crate::fixture::Fixture;
use crate::load::Load;
use crate::report;
use crate::row::{Row, percentiles};
use crate::target::{Program, Running, Target, WASMBOX_SERVE};

/// What is compared; the middle one is the box's default.
pub const MODES: [Mode; 3] = [
    Mode { target: target(NONE, &[("ENABLE_CGROUPS", "false")]), cgroup_time: None },
    Mode { target: target(PINNED, &[("ENABLE_CGROUPS", "true")]), cgroup_time: Some(PINNED_TIME) },
    Mode {
        target: target(FRESH, &[("ENABLE_CGROUPS", "true"), ("CGROUP_MODE", "fresh")]),
        cgroup_time: Some(FRESH_TIME),
    },
];

/// The name of the section on the command line.
pub const ISOLATION: &str = "isolation";

/// The names of the rows.
pub const NONE: &str = "wasmbox-core-none";
pub const PINNED: &str = "wasmbox-core-pinned";
pub const FRESH: &str = "wasmbox-core-fresh";
/// The time for the cgroup alone, in rows of their own.
pub const PINNED_TIME: &str = "cgroup-time-pinned";
pub const FRESH_TIME: &str = "cgroup-time-fresh";

/// The idle time before each invocation, in milliseconds.
pub const IDLE_MS: u32 = 50;

/// The hot load's connections.
const CONNECTIONS: u32 = 16;

/// The quotas that alternate, in millicores.
const QUOTAS: [&str; 2] = ["500", "250"];

/// One way to run the box.
#[derive(Debug)]
pub struct Mode {
    target: Target,
    /// The name of its row of cgroup times.
    cgroup_time: Option<&'static str>,
}

const fn target(name: &'static str, env: &'static [(&'static str, &'static str)]) -> Target {
    Target { name, program: Program::Wasmbox, args: WASMBOX_SERVE, env, ready: "/-/ready", path: "/hello-core" }
}

/// The rows of all modes, which take turns. None, with the reason on stderr, where the box can have no cgroups.
///
/// # Errors
///
/// When the box does not start or answer `hello`.
pub async fn measure(fixture: &Fixture, rounds: u32, seconds: u32) -> Result<Vec<Row>> {
    let [_, pinned, _] = &MODES;
    let Running { mut server, port } = pinned.target.start(fixture, fixture.home())?;
    if let Err(error) = Connection::when_ready(&mut server, port, pinned.target.ready).await {
        eprintln!("The cost of CPU isolation is not measured: {error:#}");
        return Ok(Vec::new());
    }
    drop(server);
    let mut hot: [Vec<Row>; 3] = Default::default();
    let mut idle: [Vec<Sample>; 3] = Default::default();
    for round in 1..=rounds {
        for (mode, hot) in MODES.iter().zip(&mut hot) {
            let row = mode.target.measure(fixture, Load { connections: CONNECTIONS, gap_ms: 0 }, seconds).await?;
            eprintln!("round {round} of {rounds}: {}", report::progress(&row));
            hot.push(row);
        }
        for (mode, idle) in MODES.iter().zip(&mut idle) {
            idle.extend(
                mode.after_idle(fixture, seconds).await.with_context(|| format!("target {}", mode.target.name))?,
            );
        }
        eprintln!("round {round} of {rounds}: after {IDLE_MS} ms of idle time");
    }
    let mut rows: Vec<Row> = hot.iter().filter_map(|rounds| Row::of_rounds(rounds)).collect();
    rows.extend(
        MODES
            .iter()
            .zip(&idle)
            .filter_map(|(mode, samples)| idle_row(mode.target.name, samples, |sample| sample.latency)),
    );
    rows.extend(
        MODES
            .iter()
            .zip(&idle)
            .filter_map(|(mode, samples)| idle_row(mode.cgroup_time?, samples, |sample| sample.cgroup)),
    );
    Ok(rows)
}

/// One invocation after idle time.
#[derive(Clone, Copy, Debug)]
struct Sample {
    latency: Duration,
    cgroup: Duration,
    /// Of the server, for each of these.
    cpu: Duration,
    rss_kib: u64,
}

impl Mode {
    async fn after_idle(&self, fixture: &Fixture, seconds: u32) -> Result<Vec<Sample>> {
        let Running { mut server, port } = self.target.start(fixture, fixture.home())?;
        let mut connection = Connection::when_ready(&mut server, port, self.target.ready).await?;
        connection.hello(self.target.path).await?;
        let before = server.cpu()?;
        let count = (seconds * 1000 / IDLE_MS).max(1);
        let mut measured = Vec::new();
        for quota in QUOTAS.iter().cycle().take(count as usize) {
            sleep(Duration::from_millis(IDLE_MS.into())).await;
            let answer = connection.get(self.target.path, &[("cpu-quota", quota)]).await?;
            measured.push((answer.latency, answer.timing("cgroup").unwrap_or_default()));
        }
        let cpu = server.cpu()?.saturating_sub(before) / count;
        let rss_kib = server.rss_kib()?;
        Ok(measured.into_iter().map(|(latency, cgroup)| Sample { latency, cgroup, cpu, rss_kib }).collect())
    }
}

/// Percentiles of all rounds' samples together: there are few in each.
fn idle_row(name: &'static str, samples: &[Sample], time: fn(&Sample) -> Duration) -> Option<Row> {
    let (p50, p99) = percentiles(samples.iter().map(time).collect())?;
    let cpu: Duration = samples.iter().map(|sample| sample.cpu).sum();
    Some(Row {
        name,
        connections: 1,
        gap_ms: IDLE_MS,
        req_per_s: 1e6 / (f64::from(IDLE_MS) * 1000.0 + p50 as f64),
        p50_us: p50,
        p99_us: p99,
        cpu_us: cpu.as_secs_f64() * 1e6 / samples.len() as f64,
        rss_kib: samples.last()?.rss_kib,
        errors: 0,
    })
}
