//! What CPU isolation costs: the same function without cgroups, with a cgroup for each worker, and with a fresh one for each
//! invocation, as the original WasmBox made them.
//!
//! Hot, `wrk` counts answers per second. After 50 ms of idle time a client of the bench's own reads `Server-Timing`. The usual
//! invocation has the same quota as the one before it, its function's default, and a pinned worker writes nothing; with another one
//! each time it writes every time. A fresh cgroup costs the same either way.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::sleep;

use crate::connection::Connection;
use crate::fixture::Fixture;
use crate::load::Load;
use crate::report;
use crate::row::{Row, percentiles};
use crate::target::{Program, Running, Target, WASMBOX_SERVE};

/// What is compared hot; the middle one is the box's default.
const MODES: [Target; 3] = [
    target(NONE, &[("ENABLE_CGROUPS", "false"), ("INLINE", "off")]),
    target(PINNED, &[("ENABLE_CGROUPS", "true"), ("INLINE", "off")]),
    target(FRESH, &[("ENABLE_CGROUPS", "true"), ("CGROUP_MODE", "fresh")]),
];

/// What is compared after idle time.
const IDLE: [Idle; 4] = [
    Idle { latency: NONE, cgroup: None, mode: &MODES[0], quotas: SAME },
    Idle { latency: PINNED, cgroup: Some(PINNED_TIME), mode: &MODES[1], quotas: SAME },
    Idle { latency: CHANGING, cgroup: Some(CHANGING_TIME), mode: &MODES[1], quotas: &["500", "250"] },
    Idle { latency: FRESH, cgroup: Some(FRESH_TIME), mode: &MODES[2], quotas: SAME },
];

/// The name of the section on the command line.
pub const ISOLATION: &str = "isolation";

/// The names of the rows.
pub const NONE: &str = "wasmbox-core-none";
pub const PINNED: &str = "wasmbox-core-pinned";
pub const CHANGING: &str = "wasmbox-core-pinned-changing";
pub const FRESH: &str = "wasmbox-core-fresh";
/// The time for the cgroup alone, in rows of their own.
pub const PINNED_TIME: &str = "cgroup-time-pinned";
pub const CHANGING_TIME: &str = "cgroup-time-pinned-changing";
pub const FRESH_TIME: &str = "cgroup-time-fresh";

/// The idle time before each invocation, in milliseconds.
pub const IDLE_MS: u32 = 50;

/// The hot load's connections.
const CONNECTIONS: u32 = 16;

/// The box's default, in millicores.
const SAME: &[&str] = &["500"];

/// One way to run the box, and to call it after idle time.
#[derive(Debug)]
struct Idle {
    /// The names of its rows: latencies, and the cgroup's part of them.
    latency: &'static str,
    cgroup: Option<&'static str>,
    mode: &'static Target,
    /// Of one invocation after the other, in turns; in millicores.
    quotas: &'static [&'static str],
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
    let Running { mut server, port } = pinned.start(fixture, fixture.home())?;
    if let Err(error) = Connection::when_ready(&mut server, port, pinned.ready).await {
        eprintln!("The cost of CPU isolation is not measured: {error:#}");
        return Ok(Vec::new());
    }
    drop(server);
    let mut hot: [Vec<Row>; 3] = Default::default();
    let mut idle: [Vec<Sample>; 4] = Default::default();
    for round in 1..=rounds {
        for (mode, hot) in MODES.iter().zip(&mut hot) {
            let row = mode.measure(fixture, Load { connections: CONNECTIONS, gap_ms: 0 }, seconds).await?;
            eprintln!("round {round} of {rounds}: {}", report::progress(&row));
            hot.push(row);
        }
        for (way, samples) in IDLE.iter().zip(&mut idle) {
            samples.extend(way.measure(fixture, seconds).await.with_context(|| format!("target {}", way.latency))?);
        }
        eprintln!("round {round} of {rounds}: after {IDLE_MS} ms of idle time");
    }
    let mut rows: Vec<Row> = hot.iter().filter_map(|rounds| Row::of_rounds(rounds)).collect();
    let ways = || IDLE.iter().zip(&idle);
    rows.extend(ways().filter_map(|(way, samples)| idle_row(way.latency, samples, |sample| sample.latency)));
    rows.extend(ways().filter_map(|(way, samples)| idle_row(way.cgroup?, samples, |sample| sample.cgroup)));
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

impl Idle {
    async fn measure(&self, fixture: &Fixture, seconds: u32) -> Result<Vec<Sample>> {
        let Running { mut server, port } = self.mode.start(fixture, fixture.home())?;
        let mut connection = Connection::when_ready(&mut server, port, self.mode.ready).await?;
        connection.hello(self.mode.path).await?;
        let before = server.cpu()?;
        let count = (seconds * 1000 / IDLE_MS).max(1);
        let mut measured = Vec::new();
        for quota in self.quotas.iter().cycle().take(count as usize) {
            sleep(Duration::from_millis(IDLE_MS.into())).await;
            let answer = connection.get(self.mode.path, &[("cpu-quota", quota)]).await?;
            answer.ok()?;
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
        held: None,
    })
}
