//! CPU limits in effect: what functions get, what is carried over to the next one, and that nothing is left behind.
//!
//! Each server runs in a cgroup of its test's own. No figure here is a speed: a busy machine gives functions less than their quota, never
//! more, and what the machine withheld is told apart from what the quota withheld, by the time for which the kernel says that it did.
//!
//! - [`quota`]: what a quota is, and which one holds; [`budget`]: from one invocation to the next; [`neighbours`]: what others notice of it
//! - [`leaves`]: the cgroups of workers, from their making to their end

mod budget;
mod leaves;
mod neighbours;
mod quota;

use std::{
    fs,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use wasmbox_tests::{Answer, Request, WasmBox, eventually, guest, patience::in_one_of_three};

/// Tests that use whole cores take turns.
fn quiet() -> MutexGuard<'static, ()> {
    static QUIET: Mutex<()> = Mutex::new(());
    QUIET.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The default period, and the longest time between two looks of the kernel, microseconds.
const PERIOD: f64 = 100_000.0;
const TICK: f64 = 10_000.0;

/// What an invocation used, microseconds.
#[derive(Debug, Clone, Copy)]
struct Used {
    cpu: f64,
    throttled: f64,
    wall: f64,
}

impl Used {
    fn of(answer: &Answer) -> Used {
        Used {
            cpu: answer.number("wasmbox-cpu-time-us"),
            throttled: answer.number("wasmbox-throttled-time-us"),
            wall: answer.number("execution-time") * 1000.0,
        }
    }

    /// It used no more than `cores` of a core.
    fn is_at_most(self, cores: f64) -> bool {
        // One budget more than there are whole periods; and the kernel looks at each tick, and takes back what was too much.
        self.cpu <= 1.05 * cores * (self.wall + PERIOD) + TICK
    }

    /// It used up `cores` of a core, within a tenth, and no more. The quota stopped it for no longer than what it had used entitled the kernel to; the
    /// rest of the time it ran, or waited for a core.
    fn is_share(self, cores: f64) -> bool {
        self.is_at_most(cores) && self.throttled > 0.0 && self.cpu >= 0.9 * cores * (self.cpu + self.throttled)
    }
}

/// A loop of `time` gets `cores`, its quota, in one of three runs: a machine whose cores are taken away for a moment ends periods late, and gives
/// less; or what was taken away counts as used.
#[track_caller]
fn assert_share(server: &WasmBox, quota: &str, time: Duration, cores: f64) {
    in_one_of_three(|| burn(server, quota, time), |used| used.is_share(cores));
}

fn call(server: &WasmBox, path: &str, quota: &str) -> Answer {
    server.call(Request::get(path).header("Cpu-Quota", quota), "").ok()
}

/// Runs `busy` until its deadline.
fn burn(server: &WasmBox, quota: &str, time: Duration) -> Used {
    let request = || {
        let request = Request::get("/busy").header("Invocation-Timeout", time.as_millis().to_string());
        if quota.is_empty() { request } else { request.header("Cpu-Quota", quota) }
    };
    eventually("a worker that is not late in telling what was used", || {
        let answer = server.call(request(), "");
        answer.problem(504, "deadline-exceeded");
        answer.headers.contains_key("wasmbox-cpu-time-us").then(|| Used::of(&answer))
    })
}

/// How far to count so that it takes `time` of CPU here.
fn count_of(server: &WasmBox, time: Duration) -> u64 {
    const TRIED: u64 = 10_000_000;
    server.put("tried.wat", guest::counting(TRIED));
    let shortest = (0..5).map(|_| Used::of(&call(server, "/tried", "1000")).cpu).fold(f64::INFINITY, f64::min);
    (TRIED as f64 * time.as_micros() as f64 / shortest) as u64
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn leaf_number(leaf: &Path, file: &str) -> i64 {
    fs::read_to_string(leaf.join(file)).expect("the leaf is there").trim().parse().expect("a number")
}
