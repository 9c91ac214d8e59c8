//! Much at once: execs in one container, and short tasks one after the other by several clients. Both shims take turns.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use wasmbox_tests::cri::ContainerConfig;

use crate::{Kind, Node, median};

/// Lines that each short task writes.
const LINES: usize = 2000;

/// What came of a load.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    pub time: Duration,
    /// Execs or tasks whose output or exit code was not whole.
    pub lost: usize,
}

/// So many execs at once in one container, in `rounds`: the median of the times until all have ended.
pub fn execs(node: &Node, kind: Kind, execs: usize, rounds: usize) -> Load {
    let (pod, _) = node.up(kind, "execs");
    let words = ["/bin/sh", "-c", "echo out; echo err >&2; exit 3"];
    let container = node.cri.start(&pod, ContainerConfig::new("sleeps", node.image.name(), &["/bin/sleep", "100000"]));
    let lost = AtomicUsize::new(0);
    let round = || {
        let begin = Instant::now();
        thread::scope(|scope| {
            for _ in 0..execs {
                scope.spawn(|| {
                    let ran = node.cri.exec(&container, &words);
                    if !ran.is_ok_and(|ran| ran == (3, "out\n".into(), "err\n".into())) {
                        lost.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        begin.elapsed()
    };
    // The first fills the kernel's caches.
    let times = (0..=rounds).map(|_| round()).skip(1).collect();
    node.cri.remove(&pod);
    Load { time: median(times), lost: lost.into_inner() }
}

/// So many clients that each run one short task after the other (`ctr run --rm`), until there were `tasks`.
pub fn tasks(node: &Node, kind: Kind, clients: usize, tasks: usize) -> Load {
    let runtime = match kind {
        Kind::Runc => "io.containerd.runc.v2",
        Kind::Ordinary | Kind::Box => "io.containerd.wasmbox.v1",
    };
    let script = format!("/bin/busybox seq {LINES}");
    let output: String = (1..=LINES).map(|number| format!("{number}\n")).collect();
    let (next, lost) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let begin = Instant::now();
    thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= tasks {
                        return;
                    }
                    let id = format!("task-{number}");
                    let words = ["run", "--rm", "--runtime", runtime, node.image.name(), &id, "/bin/sh", "-c", &script];
                    let ran = node.containerd.ctr(&words);
                    if ran.code != 0 || ran.stdout != output {
                        lost.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    Load { time: begin.elapsed(), lost: lost.into_inner() }
}
