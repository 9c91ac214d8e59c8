//! The way of lines into the rings: without a lock, and without waiting.
//!
//! Whoever logs may be stopped by its CPU quota anywhere. So it touches no runtime, whose queues have locks: see [`drain`](crate::drain).

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::Thread,
    time::SystemTime,
};

use super::line::{Entry, LINE_BYTES, Line};
use crate::{
    drain::{Drain, Taken},
    invocation::InvocationId,
};

/// One function has at most this part of the queue.
const SHARE: usize = 4;
/// The most lines of the queue, if they are as short as can be.
const MOST_LINES: usize = 4096;
/// Lines that are moved at once.
const BATCH: usize = 256;

/// For all functions.
#[derive(Clone)]
pub struct LogSender {
    lines: SyncSender<Queued>,
    queue: Arc<Queue>,
    collector: Thread,
}

/// For one function.
pub struct FunctionLog {
    sender: LogSender,
    function: Arc<str>,
    waiting: Arc<Waiting>,
    /// Since the last line that there was room for.
    lost: AtomicU64,
}

/// What both sides know of the queue.
pub(super) struct Queue {
    waiting: Waiting,
    most: Bounds,
    drain: Drain,
}

/// Takes lines out.
pub(super) struct Collector {
    lines: Receiver<Queued>,
    queue: Arc<Queue>,
}

pub(super) struct Queued {
    line: Line,
    /// Of its function.
    waiting: Arc<Waiting>,
}

#[derive(Debug, Clone, Copy)]
struct Bounds {
    bytes: usize,
    lines: usize,
}

/// What is in the queue: of all functions, or of one.
#[derive(Default)]
struct Waiting {
    bytes: AtomicUsize,
    lines: AtomicUsize,
}

impl Waiting {
    fn begin(&self, bytes: usize, most: Bounds) -> bool {
        let sum = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let number = self.lines.fetch_add(1, Ordering::Relaxed) + 1;
        let is_room = sum <= most.bytes && number <= most.lines;
        if !is_room {
            self.end(bytes);
        }
        is_room
    }

    fn end(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.lines.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Bounds {
    fn share(self) -> Bounds {
        Bounds { bytes: self.bytes / SHARE, lines: self.lines / SHARE }
    }
}

/// A queue of so many bytes. Its other end is the collector's, whose thread a sender must know.
pub(super) fn queue(most: usize) -> (SyncSender<Queued>, Collector) {
    let most = Bounds { bytes: most, lines: (most / LINE_BYTES).clamp(SHARE, MOST_LINES) };
    let (sender, lines) = sync_channel(most.lines);
    let queue = Arc::new(Queue { waiting: Waiting::default(), most, drain: Drain::default() });
    (sender, Collector { lines, queue })
}

impl LogSender {
    pub(super) fn new(lines: SyncSender<Queued>, queue: Arc<Queue>, collector: Thread) -> LogSender {
        LogSender { lines, queue, collector }
    }

    pub fn of(&self, function: Arc<str>) -> Arc<FunctionLog> {
        let (waiting, lost) = (Arc::default(), AtomicU64::new(0));
        Arc::new(FunctionLog { sender: self.clone(), function, waiting, lost })
    }
}

impl FunctionLog {
    /// What there is no room for is counted.
    pub fn push(&self, id: InvocationId, entry: Entry) {
        let LogSender { lines, queue, collector } = &self.sender;
        let lost = self.lost.swap(0, Ordering::Relaxed);
        let line = Line { function: self.function.clone(), at: SystemTime::now(), id, lost, entry };
        if self.enqueue(line, lines, queue) {
            if queue.drain.must_wake() {
                collector.unpark();
            }
        } else {
            self.lost.fetch_add(lost + 1, Ordering::Relaxed);
        }
    }

    fn enqueue(&self, line: Line, lines: &SyncSender<Queued>, queue: &Queue) -> bool {
        let bytes = line.bytes();
        if !self.waiting.begin(bytes, queue.most.share()) {
            return false;
        }
        if !queue.waiting.begin(bytes, queue.most) {
            self.waiting.end(bytes);
            return false;
        }
        // As long as nobody blocks in receiving, sending takes no lock.
        let is_sent = lines.try_send(Queued { line, waiting: self.waiting.clone() }).is_ok();
        if !is_sent {
            queue.waiting.end(bytes);
            self.waiting.end(bytes);
        }
        is_sent
    }
}

impl Queue {
    /// What is in it is still taken out.
    pub(super) fn close(&self) {
        self.drain.close();
    }
}

impl Collector {
    pub(super) fn queue(&self) -> Arc<Queue> {
        self.queue.clone()
    }

    /// Lines that are there, some of them.
    fn take(&self) -> Vec<Line> {
        let take = |Queued { line, waiting }: Queued| {
            // What a guest's thread has allocated is charged to its invocation until it is freed: what stays is the box's own.
            let copied = line.copied();
            let bytes = line.bytes();
            drop(line);
            waiting.end(bytes);
            self.queue.waiting.end(bytes);
            copied
        };
        self.lines.try_iter().take(BATCH).map(take).collect()
    }

    /// Gives lines to `to` until the queue is closed and empty.
    pub(super) fn run(&self, mut to: impl FnMut(Vec<Line>)) {
        self.queue.drain.run(|| {
            let lines = self.take();
            let taken = match lines.len() {
                0 => return Taken::Nothing,
                BATCH.. => Taken::Some,
                _ => Taken::All,
            };
            to(lines);
            taken
        });
    }
}

#[cfg(test)]
mod tests {
    use std::{thread, time::Duration};

    use super::*;

    fn stderr(text: &str) -> Entry {
        Entry::Stderr(text.into())
    }

    #[test]
    fn one_function_leaves_room_for_its_neighbours() {
        for text in ["y".to_owned(), "x".repeat(8000)] {
            let (lines, collector) = queue(256 << 10);
            let sender = LogSender::new(lines, collector.queue(), thread::current());
            let (storm, quiet) = (sender.of("storm".into()), sender.of("quiet".into()));
            for _ in 0..10_000 {
                storm.push(InvocationId::next(), stderr(&text));
            }
            quiet.push(InvocationId::next(), stderr("here"));
            let mut taken = Vec::new();
            collector.queue.close();
            collector.run(|lines| taken.extend(lines));
            let bytes: usize = taken.iter().filter(|line| &*line.function == "storm").map(Line::bytes).sum();
            assert!(bytes > (32 << 10) && bytes <= (64 << 10), "{bytes} bytes");
            assert_eq!(taken.iter().filter(|line| &*line.function == "quiet" && line.lost == 0).count(), 1);
            // All of it is given back, and what was lost is told.
            storm.push(InvocationId::next(), stderr("after"));
            let after = collector.take();
            assert_eq!(after[0].lost + taken.len() as u64 - 1, 10_000);
            let left =
                |waiting: &Waiting| [&waiting.bytes, &waiting.lines].map(|number| number.load(Ordering::Relaxed));
            assert_eq!([left(&storm.waiting), left(&quiet.waiting), left(&collector.queue.waiting)], [[0, 0]; 3]);
        }
    }

    #[test]
    fn a_collector_that_sleeps_is_woken_by_each_first_line() {
        let (lines, collector) = queue(256 << 10);
        let queue = collector.queue();
        let (seen, taken) = sync_channel(1000);
        let thread =
            thread::spawn(move || collector.run(|lines| lines.into_iter().for_each(|_| seen.send(()).unwrap())));
        let log = LogSender::new(lines, queue.clone(), thread.thread().clone()).of("f".into());
        for _ in 0..100 {
            log.push(InvocationId::next(), stderr("line"));
            taken.recv_timeout(Duration::from_secs(10)).expect("the line");
        }
        queue.close();
        thread.thread().unpark();
        thread.join().unwrap();
    }
}
