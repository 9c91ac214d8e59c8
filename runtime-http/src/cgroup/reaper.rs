//! Removes leaves that their threads have left, off the path of invocations: right after, the kernel may still find them busy.

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use prometheus::Histogram;
use rustix::io::Errno;
use wasmbox_cgroup::{LeafError, Root};

/// When this many leaves wait, whoever leaves one removes it on its own thread.
const MOST_WAITING: usize = 1024;
/// How long a leaf may be found busy before it is given up; the next start removes it.
const PATIENCE: Duration = Duration::from_secs(5);
/// The time between two attempts.
const PAUSE: Duration = Duration::from_millis(5);

/// The thread; dropping it removes all that waits, and joins.
#[derive(Debug)]
pub struct Reaper {
    root: Arc<Root>,
    leaves: Option<SyncSender<String>>,
    thread: Option<JoinHandle<()>>,
}

impl Reaper {
    /// Each removal's time is observed in `removal`, seconds.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(root: Arc<Root>, removal: Histogram) -> std::io::Result<Reaper> {
        let (sender, receiver) = sync_channel(MOST_WAITING);
        let thread = {
            let root = root.clone();
            thread::Builder::new().name("cgroup-reaper".into()).spawn(move || reap(&root, &receiver, &removal))?
        };
        Ok(Reaper { root, leaves: Some(sender), thread: Some(thread) })
    }

    /// Removes the leaf `name`, soon.
    pub fn remove(&self, name: String) {
        let sender = self.leaves.as_ref().expect("it is taken only when this is dropped");
        match sender.try_send(name) {
            Ok(()) => {}
            Err(TrySendError::Full(name) | TrySendError::Disconnected(name)) => {
                report(self.root.remove_patiently(&name));
            }
        }
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        self.leaves = None;
        if let Some(thread) = self.thread.take() {
            // A panic there was reported by the panic hook.
            let _ = thread.join();
        }
    }
}

fn reap(root: &Root, leaves: &Receiver<String>, removal: &Histogram) {
    // At most MOST_WAITING: then no more are taken, and whoever leaves one removes it on its own thread.
    let mut busy: Vec<(String, Instant)> = Vec::new();
    // Whether that was the last try.
    let try_once = |name: &str, since: Instant| {
        let started = Instant::now();
        match root.remove(name) {
            Err(LeafError { errno: Errno::BUSY, .. }) if since.elapsed() < PATIENCE => false,
            result => {
                removal.observe(started.elapsed().as_secs_f64());
                report(result);
                true
            }
        }
    };
    let mut open = true;
    while open || !busy.is_empty() {
        let next = if busy.len() >= MOST_WAITING {
            thread::sleep(PAUSE);
            Err(RecvTimeoutError::Timeout)
        } else if !busy.is_empty() {
            leaves.recv_timeout(PAUSE)
        } else {
            leaves.recv().map_err(|_| RecvTimeoutError::Disconnected)
        };
        match next {
            // Mostly it can be removed at once; those that could not are tried again in each pause.
            Ok(name) => {
                let since = Instant::now();
                if !try_once(&name, since) {
                    busy.push((name, since));
                }
                continue;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                if !open {
                    thread::sleep(PAUSE);
                }
                open = false;
            }
        }
        busy.retain(|(name, since)| !try_once(name, *since));
    }
}

fn report(result: Result<(), LeafError>) {
    if let Err(error) = result {
        tracing::warn!("{error}; it is left to the next start");
    }
}
