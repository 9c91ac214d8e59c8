//! What a spent budget costs the next invocation in the same cgroup, and that writing the quota again prevents it.
//!
//! No box takes part: a thread of the bench's own does in a cgroup what a worker does, with and without the refill that the box
//! makes after an invocation.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::time::{ClockId, clock_gettime};

use crate::row::{Row, percentiles};

/// The next invocation finds what is left of the budget.
pub const CARRIED: &str = "carry-over-without-refill";
/// The quota was written again before.
pub const REFILLED: &str = "carry-over-with-refill";

/// 250m, with the box's default period.
const PERIOD_US: u32 = 100_000;
const QUOTA_US: u32 = 25_000;
/// The CPU time of the first invocation, which spends one budget and most of another, and of the next, which needs less than one.
const SPENT: Duration = Duration::from_millis(43);
const NEXT: Duration = Duration::from_millis(15);
const ATTEMPTS: u32 = 100;

/// The two rows: how much longer than its CPU time the next invocation took. None, with the reason on stderr, where no cgroup
/// can be made.
///
/// # Errors
///
/// When the thread cannot be started.
pub fn measure(pairs: u32) -> Result<Vec<Row>> {
    let cgroup = match Cgroup::make() {
        Ok(cgroup) => cgroup,
        Err(error) => {
            eprintln!("What is carried over is not measured: {error:#}");
            return Ok(Vec::new());
        }
    };
    let measured = thread::scope(|scope| scope.spawn(|| pairs_in(&cgroup, pairs)).join());
    measured.map_err(|_| anyhow::anyhow!("the measuring thread panicked"))?
}

fn pairs_in(cgroup: &Cgroup, pairs: u32) -> Result<Vec<Row>> {
    fs::write(cgroup.0.join("tasks"), "0").context("joining the cgroup")?;
    let mut waits = [Vec::new(), Vec::new()];
    for _ in 0..pairs {
        for (refill, waits) in [false, true].into_iter().zip(&mut waits) {
            spend(cgroup)?;
            if refill {
                cgroup.write_quota()?;
            }
            let before = cgroup.throttled()?;
            use_cpu(NEXT);
            waits.push(cgroup.throttled()?.saturating_sub(before));
        }
    }
    let rows = [CARRIED, REFILLED].into_iter().zip(waits).map(|(name, waits)| {
        let (p50_us, p99_us) = percentiles(waits).context("no pair was asked for")?;
        let cpu_us = NEXT.as_secs_f64() * 1e6;
        Ok(Row {
            name,
            connections: 1,
            gap_ms: 0,
            req_per_s: 0.0,
            p50_us,
            p99_us,
            cpu_us,
            rss_kib: 0,
            errors: 0,
            held: None,
        })
    });
    rows.collect()
}

/// The first invocation. On a busy machine it may take so long that its budget lasts: then it is another one's turn.
fn spend(cgroup: &Cgroup) -> Result<()> {
    for _ in 0..ATTEMPTS {
        // A whole budget, whatever was before.
        cgroup.write_quota()?;
        let before = cgroup.throttled()?;
        use_cpu(SPENT);
        if cgroup.throttled()? > before {
            return Ok(());
        }
    }
    bail!("the machine is too busy to use up a budget of {QUOTA_US} us in {PERIOD_US} us")
}

/// A v1 cgroup with the quota, removed when dropped.
struct Cgroup(PathBuf);

impl Cgroup {
    fn make() -> Result<Self> {
        let parent = Path::new("/sys/fs/cgroup/cpu");
        ensure!(parent.join("tasks").exists(), "it takes a cgroup v1 hierarchy at {}", parent.display());
        let path = parent.join(format!("bench-{}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        let cgroup = Self(path);
        fs::write(cgroup.0.join("cpu.cfs_period_us"), PERIOD_US.to_string()).context("setting the period")?;
        // So that what else runs here takes little.
        fs::write(cgroup.0.join("cpu.shares"), "262144").context("setting the weight")?;
        cgroup.write_quota()?;
        Ok(cgroup)
    }

    fn write_quota(&self) -> Result<()> {
        fs::write(self.0.join("cpu.cfs_quota_us"), QUOTA_US.to_string()).context("setting the quota")
    }

    fn throttled(&self) -> Result<Duration> {
        let stat = fs::read_to_string(self.0.join("cpu.stat")).context("reading cpu.stat")?;
        let line = stat.lines().find_map(|line| line.strip_prefix("throttled_time "));
        Ok(Duration::from_nanos(line.context("no throttled_time in cpu.stat")?.parse()?))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // The kernel lets go of a thread that has ended a little late.
        for _ in 0..200 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
        eprintln!("cannot remove {}", self.0.display());
    }
}

fn use_cpu(time: Duration) {
    let now = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs().try_into().unwrap_or(0))
    };
    let until = now() + time;
    while now() < until {}
}
