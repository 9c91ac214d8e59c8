//! The threads that serve connections, each with an event loop of its own: a connection stays on one thread, and what belongs to it is
//! woken there, without a search for a thread that has time. Guests run here for a slice, and no file is read.

use std::{
    io,
    sync::atomic::{AtomicUsize, Ordering},
    thread::{self, JoinHandle},
};

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

/// The threads; dropping them ends their loops, with all that is left in them, and joins them.
pub struct IoThreads {
    loops: Vec<Handle>,
    threads: Vec<JoinHandle<()>>,
    next: AtomicUsize,
    end: CancellationToken,
}

impl IoThreads {
    /// Starts `number` threads, at least one.
    ///
    /// # Errors
    /// If an event loop or a thread cannot be made.
    pub fn start(number: usize) -> io::Result<IoThreads> {
        let mut threads = IoThreads {
            loops: Vec::new(),
            threads: Vec::new(),
            next: AtomicUsize::new(0),
            end: CancellationToken::new(),
        };
        for index in 0..number.max(1) {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            threads.loops.push(runtime.handle().clone());
            let end = threads.end.clone();
            let name = format!("io-{index}");
            threads.threads.push(thread::Builder::new().name(name).spawn(move || runtime.block_on(end.cancelled()))?);
        }
        Ok(threads)
    }

    /// The loop for the next connection: each in turn.
    pub fn next(&self) -> &Handle {
        &self.loops[self.next.fetch_add(1, Ordering::Relaxed) % self.loops.len()]
    }
}

impl Drop for IoThreads {
    fn drop(&mut self) {
        self.end.cancel();
        for thread in self.threads.drain(..) {
            // A panic there was reported by the panic hook.
            let _ = thread.join();
        }
    }
}
