//! The shim beside containerd's for runc: what each pod's shim keeps in memory, how long a pod takes until it is up, and much at once. Both
//! run under the same containerd, from the same image, in the same run; rounds of each kind alternate.

mod load;

use std::{
    fs,
    time::{Duration, Instant},
};

use clap::Parser;
use wasmbox_tests::{
    Containerd, Image, Version,
    cri::{ContainerConfig, Cri, Id, Pod, RunPodSandbox},
};

/// Memory and start time of the shim, beside containerd's for runc. Needs root, and what tests/install-debian.sh and `make static` give.
#[derive(Debug, Parser)]
struct Arguments {
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
    #[arg(long, default_value_t = 5)]
    exec_rounds: usize,
    /// How many short tasks run in each turn
    #[arg(long, default_value_t = 96)]
    tasks: usize,
    /// How many turns each shim has, by so many clients at once: 8, and 24
    #[arg(long, default_value_t = 3)]
    turns: usize,
}

/// A pod with one container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// By runc's shim.
    Runc,
    /// An ordinary container, by the shim under test.
    Ordinary,
    /// A WasmBox, by the shim under test.
    Box,
}

impl Kind {
    const ALL: [Kind; 3] = [Kind::Runc, Kind::Ordinary, Kind::Box];

    fn title(self) -> &'static str {
        match self {
            Kind::Runc => "runc's shim, ordinary container",
            Kind::Ordinary => "WasmBox's shim, ordinary container",
            Kind::Box => "WasmBox's shim, box",
        }
    }

    fn handler(self) -> &'static str {
        match self {
            Kind::Runc => "runc",
            Kind::Ordinary | Kind::Box => "wasmbox",
        }
    }

    fn shim(self) -> &'static str {
        match self {
            Kind::Runc => "containerd-shim-runc-v2",
            Kind::Ordinary | Kind::Box => "containerd-shim-wasmbox-v1",
        }
    }

    fn words(self) -> &'static [&'static str] {
        match self {
            Kind::Runc | Kind::Ordinary => &["/bin/sleep", "100000"],
            Kind::Box => &["wasmbox", "serve", "--functions-dir", "/tmp"],
        }
    }
}

/// What one shim has in memory, in KiB.
#[derive(Debug, Clone, Copy)]
struct Memory {
    rss: u64,
    pss: u64,
    private: u64,
    threads: u64,
}

impl Memory {
    fn of(pid: u32) -> anyhow::Result<Memory> {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let field = |text: &str, name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
        };
        Ok(Memory {
            rss: field(&rollup, "Rss"),
            pss: field(&rollup, "Pss"),
            private: field(&rollup, "Private_Clean") + field(&rollup, "Private_Dirty"),
            threads: field(&status, "Threads"),
        })
    }
}

fn median<T: PartialOrd + Copy>(mut values: Vec<T>) -> T {
    values.sort_by(|a, b| a.partial_cmp(b).expect("comparable"));
    values[values.len() / 2]
}

struct Node {
    cri: Cri,
    containerd: Containerd,
    image: Image,
}

impl Node {
    fn new() -> Node {
        let containerd = Containerd::start(Version::V1_6);
        let image = Image::busybox();
        containerd.import(&image);
        containerd.import(&Image::pause());
        Node { cri: Cri::of(&containerd), containerd, image }
    }

    /// Starts a pod, and says how long that took.
    fn up(&self, kind: Kind, name: &str) -> (Pod, Duration) {
        let config = self.cri.sandbox(name);
        let begin = Instant::now();
        let request = RunPodSandbox { config: Some(config.clone()), runtime_handler: kind.handler().into() };
        let Id { id } = self.cri.call("RunPodSandbox", request).expect("the sandbox runs");
        let pod = Pod { id, config };
        self.cri.start(&pod, ContainerConfig::new("one", self.image.name(), kind.words()));
        (pod, begin.elapsed())
    }

    fn shims(&self, kind: Kind) -> Vec<u32> {
        let processes = self.containerd.node().processes().into_iter();
        processes.filter(|(_, words)| words.contains(kind.shim())).map(|(pid, _)| pid).collect()
    }

    fn memory(&self, kind: Kind, pods: usize) -> anyhow::Result<Memory> {
        let up: Vec<_> = (0..pods).map(|number| self.up(kind, &format!("memory-{number}")).0).collect();
        // Threads that idle end, and a collector of garbage has had its turn.
        std::thread::sleep(Duration::from_secs(12));
        let all = self.shims(kind).into_iter().map(Memory::of).collect::<anyhow::Result<Vec<_>>>()?;
        anyhow::ensure!(all.len() == pods, "{} shims of {pods} pods", all.len());
        for pod in &up {
            self.cri.remove(pod);
        }
        let field = |field: fn(&Memory) -> u64| median(all.iter().map(field).collect());
        Ok(Memory {
            rss: field(|memory| memory.rss),
            pss: field(|memory| memory.pss),
            private: field(|memory| memory.private),
            threads: field(|memory| memory.threads),
        })
    }

    fn times(&self, rounds: usize) -> [Vec<Duration>; 3] {
        let mut times = [const { Vec::new() }; 3];
        for round in 0..=rounds {
            for turn in 0..Kind::ALL.len() {
                // Each comes first as often as the others.
                let index = (round + turn) % Kind::ALL.len();
                let (pod, time) = self.up(Kind::ALL[index], &format!("time-{round}-{turn}"));
                self.cri.remove(&pod);
                // The first round fills the kernel's caches.
                if round > 0 {
                    times[index].push(time);
                }
            }
        }
        times
    }
}

#[allow(clippy::print_stdout)]
fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let Arguments { rounds, pods, execs, exec_rounds, tasks, turns } = arguments;
    let all = [rounds, pods, execs, exec_rounds, tasks, turns];
    anyhow::ensure!(!all.contains(&0), "every number: at least 1");
    let node = Node::new();
    started(&node, rounds, pods)?;
    loaded(&node, &arguments);
    Ok(())
}

/// Execs and tasks at once: seconds, and of tasks a second; to runc's shim, where less and where more is better.
#[allow(clippy::print_stdout)]
fn loaded(node: &Node, arguments: &Arguments) {
    let both = [Kind::Runc, Kind::Ordinary];
    println!(
        "\n{} execs at once, median of {} rounds, ms, and to runc's shim\n",
        arguments.execs, arguments.exec_rounds
    );
    println!("{:<36} {:>14} {:>6}", "", "until all end", "lost");
    let mut first = None;
    for kind in both {
        let load = load::execs(node, kind, arguments.execs, arguments.exec_rounds);
        let time = load.time.as_secs_f64() * 1000.0;
        let base = *first.get_or_insert(time);
        println!("{:<36} {:>14} {:>6}", kind.title(), format!("{time:.0} {:.2}", time / base), load.lost);
    }
    for clients in [8, 24] {
        println!(
            "\n{} tasks by {clients} clients, median of {} turns, a second, and to runc's shim\n",
            arguments.tasks, arguments.turns
        );
        println!("{:<36} {:>14} {:>6}", "", "a second", "lost");
        let mut loads = both.map(|_| Vec::new());
        for _ in 0..arguments.turns {
            for (kind, loads) in both.into_iter().zip(&mut loads) {
                loads.push(load::tasks(node, kind, clients, arguments.tasks));
            }
        }
        let mut first = None;
        for (kind, loads) in both.into_iter().zip(loads) {
            let rate = |load: &load::Load| arguments.tasks as f64 / load.time.as_secs_f64();
            let rate = median(loads.iter().map(rate).collect());
            let base = *first.get_or_insert(rate);
            let lost: usize = loads.iter().map(|load| load.lost).sum();
            println!("{:<36} {:>14} {lost:>6}", kind.title(), format!("{rate:.1} {:.2}", rate / base));
        }
    }
}

/// Memory, and the time until a pod is up.
#[allow(clippy::print_stdout)]
fn started(node: &Node, rounds: usize, pods: usize) -> anyhow::Result<()> {
    println!("{} pods of each kind at once; medians over the shims, KiB, and to runc's shim\n", pods);
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
    println!("\nFrom the first call to a running container, {} rounds, ms, and to runc's shim\n", rounds);
    println!("{:<36} {:>7} {:>12} {:>12}", "", "least", "median", "p90");
    let mut first = None;
    for (kind, mut times) in Kind::ALL.into_iter().zip(node.times(rounds)) {
        times.sort();
        let base = *first.get_or_insert(median(times.clone()));
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        let middle = median(times.clone());
        println!(
            "{:<36} {:>7.0} {:>12} {:>12.0}",
            kind.title(),
            ms(times[0]),
            format!("{:.0} {:.2}", ms(middle), ms(middle) / ms(base)),
            ms(times[times.len() * 9 / 10])
        );
    }
    Ok(())
}
