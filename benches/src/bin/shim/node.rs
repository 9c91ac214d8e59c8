//! A node with one containerd, its pods by either shim, and what each pod's shim keeps in memory.

use std::{
    fs,
    time::{Duration, Instant},
};

use wasmbox_tests::{
    Containerd, Image, Version,
    cri::{ContainerConfig, Cri, Id, Pod, RunPodSandbox},
};

use crate::spread::{in_turns, median};

/// A pod with one container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// By runc's shim.
    Runc,
    /// An ordinary container, by the shim under test.
    Ordinary,
    /// A WasmBox, by the shim under test.
    Box,
}

impl Kind {
    pub const ALL: [Kind; 3] = [Kind::Runc, Kind::Ordinary, Kind::Box];

    pub fn title(self) -> &'static str {
        match self {
            Kind::Runc => "runc's shim, ordinary container",
            Kind::Ordinary => "WasmBox's shim, ordinary container",
            Kind::Box => "WasmBox's shim, box",
        }
    }

    /// As `ctr` names it.
    pub fn runtime(self) -> &'static str {
        match self {
            Kind::Runc => "io.containerd.runc.v2",
            Kind::Ordinary | Kind::Box => "io.containerd.wasmbox.v1",
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
pub struct Memory {
    pub rss: u64,
    pub pss: u64,
    pub private: u64,
    pub threads: u64,
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

pub struct Node {
    pub cri: Cri,
    pub containerd: Containerd,
    pub image: Image,
}

impl Node {
    pub fn new(version: Version) -> Node {
        let containerd = Containerd::start(version);
        let image = Image::busybox();
        containerd.import(&image);
        containerd.import(&Image::pause());
        Node { cri: Cri::of(&containerd), containerd, image }
    }

    /// Starts a pod, and says how long that took.
    pub fn up(&self, kind: Kind, name: &str) -> (Pod, Duration) {
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

    pub fn memory(&self, kind: Kind, pods: usize) -> anyhow::Result<Memory> {
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

    pub fn times(&self, rounds: usize) -> [Vec<Duration>; 3] {
        let mut names = (0..).map(|number| format!("time-{number}"));
        in_turns(rounds, |index| {
            let (pod, time) = self.up(Kind::ALL[index], &names.next().expect("there is always another"));
            self.cri.remove(&pod);
            time
        })
    }
}
