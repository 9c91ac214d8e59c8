//! Much at once: execs in one container, and short tasks one after the other by several clients. Both shims take turns.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use wasmbox_tests::cri::ContainerConfig;

use crate::{
    node::{Kind, Node},
    spread::{Spread, in_turns},
};

/// Whom it is about, and whom that is compared with.
pub const BOTH: [Kind; 2] = [Kind::Runc, Kind::Ordinary];
/// Lines that each short task writes.
const LINES: usize = 2000;

/// What came of a load in all of its rounds, of each of [`BOTH`].
pub struct Loads {
    times: [Vec<Duration>; 2],
    /// Execs or tasks whose output or exit code was not whole, also in the first round, which fills the kernel's caches and is not timed.
    pub lost: [usize; 2],
}

impl Loads {
    /// `load` is told by an index whose it is, of [`BOTH`].
    fn of(rounds: usize, mut load: impl FnMut(usize) -> (Duration, usize)) -> Loads {
        let mut lost = [0; 2];
        let times = in_turns(rounds, |index| {
            let (time, lost_now) = load(index);
            lost[index] += lost_now;
            time
        });
        Loads { times, lost }
    }

    /// A figure of one's rounds.
    pub fn figure(&self, index: usize, of: impl Fn(Duration) -> f64) -> Spread {
        Spread::of(self.times[index].iter().copied().map(of))
    }

    /// The figure of each round to that of runc's shim in the same round.
    pub fn ratio(&self, index: usize, of: impl Fn(Duration) -> f64) -> Spread {
        let pairs = self.times[index].iter().zip(&self.times[0]);
        Spread::of(pairs.map(|(&time, &base)| of(time) / of(base)))
    }
}

/// So many execs at once in one container: the times until all have ended.
pub fn execs(node: &Node, execs: usize, rounds: usize) -> Loads {
    let words = ["/bin/sh", "-c", "echo out; echo err >&2; exit 3"];
    let targets = BOTH.map(|kind| {
        let (pod, _) = node.up(kind, kind.runtime());
        let config = ContainerConfig::new("sleeps", node.image.name(), &["/bin/sleep", "100000"]);
        let container = node.cri.start(&pod, config);
        (pod, container)
    });
    let loads = Loads::of(rounds, |index| {
        let (kind, (_, container)) = (BOTH[index], &targets[index]);
        let lost = AtomicUsize::new(0);
        let begin = Instant::now();
        thread::scope(|scope| {
            for _ in 0..execs {
                scope.spawn(|| {
                    let ran = node.cri.exec(container, &words);
                    if !ran.as_ref().is_ok_and(|ran| *ran == (3, "out\n".into(), "err\n".into())) {
                        eprintln!("lost, by {}: {ran:?}", kind.title());
                        lost.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        (begin.elapsed(), lost.into_inner())
    });
    targets.iter().for_each(|(pod, _)| node.cri.remove(pod));
    loads
}

/// So many clients that each run one short task after the other (`ctr run --rm`): the times until there were `tasks`.
pub fn tasks(node: &Node, clients: usize, tasks: usize, rounds: usize) -> Loads {
    let script = format!("/bin/busybox seq {LINES}");
    let output: String = (1..=LINES).map(|number| format!("{number}\n")).collect();
    // Each has a name of its own, should another not have gone.
    let next = AtomicUsize::new(0);
    Loads::of(rounds, |index| {
        let kind = BOTH[index];
        let (end, lost) = (next.load(Ordering::Relaxed) + tasks, AtomicUsize::new(0));
        let begin = Instant::now();
        thread::scope(|scope| {
            for _ in 0..clients {
                scope.spawn(|| {
                    while let Ok(number) = next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |number| {
                        (number < end).then_some(number + 1)
                    }) {
                        let id = format!("task-{clients}-{number}");
                        let words = [
                            "run",
                            "--rm",
                            "--runtime",
                            kind.runtime(),
                            node.image.name(),
                            &id,
                            "/bin/sh",
                            "-c",
                            &script,
                        ];
                        let ran = node.containerd.ctr(&words);
                        if ran.code != 0 || ran.stdout != output {
                            let (code, bytes, error) = (ran.code, ran.stdout.len(), ran.stderr.trim());
                            eprintln!("lost, by {}: {id}: code {code}, {bytes} bytes, {error}", kind.title());
                            lost.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        (begin.elapsed(), lost.into_inner())
    })
}
