//! The shim beside containerd's for runc: what each pod's shim keeps in memory, how long a pod takes until it is up, and much at once. Both
//! run under the same containerd, from the same image, in the same run; rounds of each kind alternate.

mod guard;
mod load;
mod node;
mod spread;

use std::{process::ExitCode, time::Duration};

use clap::{Parser, ValueEnum};
use wasmbox_tests::Version;

use self::{
    load::{BOTH, Loads},
    node::{Kind, Node},
    spread::{Spread, median},
};

/// Goals, to runc's shim: the time of execs at once, and tasks a second.
const EXECS_AT_MOST: f64 = 1.0;
const TASKS_AT_LEAST: f64 = 1.3;

/// Memory, start time and load of the shim, beside containerd's for runc. Needs root, and what tests/install-debian.sh and `make static` give.
#[derive(Debug, Parser)]
struct Arguments {
    /// Parts alone
    #[arg(long, value_delimiter = ',', default_value = "memory,start,execs,tasks")]
    only: Vec<Part>,
    /// Under which containerd: 1.7, 2.1 or 2.3, which needs Go
    #[arg(long, default_value = "2.1", value_parser = version)]
    containerd: Version,
    /// How often a pod of each kind is started
    #[arg(long, default_value_t = 40)]
    rounds: usize,
    /// How many pods of each kind run at once while memory is read
    #[arg(long, default_value_t = 10)]
    pods: usize,
    /// How many execs run at once in one container
    #[arg(long, default_value_t = 100)]
    execs: usize,
    /// How often they do
    #[arg(long, default_value_t = 7)]
    exec_rounds: usize,
    /// How many short tasks run in each round
    #[arg(long, default_value_t = 96)]
    tasks: usize,
    /// How many rounds of tasks each shim has, by so many clients at once: 8, and 24
    #[arg(long, default_value_t = 5)]
    task_rounds: usize,
    /// This process is the one that measures: the other clears up
    #[arg(long, hide = true)]
    measure: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    Memory,
    Start,
    Execs,
    Tasks,
}

fn version(name: &str) -> Result<Version, String> {
    match name {
        // While its shim for runc starts an exec, it takes note of 32 ends of processes, and waits a second for each one more.
        "1.6" => {
            Err("its shim for runc takes a second for each process that ends while many execs start: 1.7, 2.1 or 2.3"
                .into())
        }
        "1.7" => Ok(Version::V1_7),
        "2.1" => Ok(Version::V2_1),
        "2.3" => Ok(Version::V2_3),
        _ => Err("1.7, 2.1 or 2.3".into()),
    }
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let Arguments { rounds, pods, execs, exec_rounds, tasks, task_rounds, .. } = arguments;
    let all = [rounds, pods, execs, exec_rounds, tasks, task_rounds];
    anyhow::ensure!(!all.contains(&0), "every number: at least 1");
    if !arguments.measure {
        return guard::run();
    }
    let node = Node::new(arguments.containerd);
    for part in [Part::Memory, Part::Start, Part::Execs, Part::Tasks] {
        match part {
            part if !arguments.only.contains(&part) => {}
            Part::Memory => memory(&node, pods)?,
            Part::Start => start(&node, rounds),
            Part::Execs => at_once(&node, execs, exec_rounds),
            Part::Tasks => [8, 24].into_iter().for_each(|clients| by_clients(&node, clients, tasks, task_rounds)),
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[allow(clippy::print_stdout)]
fn memory(node: &Node, pods: usize) -> anyhow::Result<()> {
    println!("{pods} pods of each kind at once; medians over the shims, KiB, and to runc's shim\n");
    println!("{:<36} {:>7} {:>12} {:>12} {:>12}", "", "threads", "RSS", "Pss", "private");
    let mut first = None;
    for kind in Kind::ALL {
        let memory = node.memory(kind, pods)?;
        let base = *first.get_or_insert(memory);
        let cell = |value: u64, base: u64| format!("{value} {:.2}", value as f64 / base.max(1) as f64);
        println!(
            "{:<36} {:>7} {:>12} {:>12} {:>12}",
            kind.title(),
            memory.threads,
            cell(memory.rss, base.rss),
            cell(memory.pss, base.pss),
            cell(memory.private, base.private)
        );
    }
    Ok(())
}

/// The time until a pod is up.
#[allow(clippy::print_stdout)]
fn start(node: &Node, rounds: usize) {
    println!("\nFrom the first call to a running container, {rounds} rounds, ms, and to runc's shim\n");
    println!("{:<36} {:>7} {:>12} {:>12}", "", "least", "median", "p90");
    let mut first = None;
    for (kind, mut times) in Kind::ALL.into_iter().zip(node.times(rounds)) {
        times.sort();
        let base = *first.get_or_insert(median(times.clone()));
        let middle = median(times.clone());
        println!(
            "{:<36} {:>7.0} {:>12} {:>12.0}",
            kind.title(),
            ms(times[0]),
            format!("{:.0} {:.2}", ms(middle), ms(middle) / ms(base)),
            ms(times[times.len() * 9 / 10])
        );
    }
}

#[allow(clippy::print_stdout)]
fn at_once(node: &Node, execs: usize, rounds: usize) {
    println!(
        "\n{execs} execs at once in one container, {rounds} rounds: ms until all have ended, median (least to greatest)\n"
    );
    let loads = load::execs(node, execs, rounds);
    show(&loads, ms, 0);
    let ratio = loads.ratio(1, ms).median;
    println!("goal: at most {EXECS_AT_MOST:.1}, and 0 lost: {}", reached(ratio <= EXECS_AT_MOST && loads.lost[1] == 0));
}

#[allow(clippy::print_stdout)]
fn by_clients(node: &Node, clients: usize, tasks: usize, rounds: usize) {
    println!("\n{tasks} tasks by {clients} clients, {rounds} rounds: tasks a second, median (least to greatest)\n");
    let loads = load::tasks(node, clients, tasks, rounds);
    let rate = |time: Duration| tasks as f64 / time.as_secs_f64();
    show(&loads, rate, 1);
    let ratio = loads.ratio(1, rate).median;
    println!(
        "goal: at least {TASKS_AT_LEAST:.1}, and 0 lost: {}",
        reached(ratio >= TASKS_AT_LEAST && loads.lost[1] == 0)
    );
}

#[allow(clippy::print_stdout)]
fn show(loads: &Loads, of: impl Fn(Duration) -> f64, digits: usize) {
    println!("{:<36} {:>24} {:>24} {:>6}", "", "", "to runc's shim", "lost");
    for (index, kind) in BOTH.into_iter().enumerate() {
        let ratio = if index == 0 { String::new() } else { Spread::text(loads.ratio(index, &of), 2) };
        let figure = loads.figure(index, &of).text(digits);
        println!("{:<36} {figure:>24} {ratio:>24} {:>6}", kind.title(), loads.lost[index]);
    }
}

fn reached(is_reached: bool) -> &'static str {
    if is_reached { "reached" } else { "not reached" }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
