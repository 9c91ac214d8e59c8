//! What guests of one function may occupy of the box to read and write the files that were granted to it: descriptors, and threads.
//!
//! wasmtime opens, reads and writes files on threads for blocking work, which it asks the runtime for whose context the guest runs in. A
//! guest can occupy such a thread for ever: opening a FIFO waits for its other end, and a file system on the network for a server that is
//! gone. So each function that has directories has a runtime of its own, with a few such threads, and nobody else waits for them.

use std::{
    io,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    runtime::{Builder, EnterGuard, Runtime},
    sync::{OwnedSemaphorePermit, Semaphore},
};

use crate::{by_name::ByName, threads::ThreadStart};

/// Of one invocation: each takes a descriptor of the process.
pub const MOST_FILES: u32 = 256;
/// Threads that do the file access of one function's guests, and the same with those that are still occupied for its earlier versions.
const MOST_THREADS: usize = 8;
const MOST_THREADS_EVER: usize = 32;
/// Of all descriptors that guests' files may take, one function's may take one in so many.
const SHARE: usize = 2;
/// Invocations of a function that were ended while its threads were occupied, and whose work may still be queued there.
const MOST_ABANDONED: usize = 64;

/// What all functions together may occupy.
pub struct FileQuotas {
    descriptors: Arc<Semaphore>,
    share: usize,
    /// Threads are started by workers, and inherit what those have.
    thread_start: ThreadStart,
    /// As long as a function is loaded, or one of its threads is occupied.
    by_function: ByName<Quota>,
}

/// What one function's guests occupy, also in threads that an earlier version of the function has left behind.
#[derive(Debug)]
struct Quota {
    descriptors: Arc<Semaphore>,
    threads: AtomicUsize,
}

/// The way of one function's guests to their files.
pub struct FileAccess {
    thread_start: ThreadStart,
    all: Arc<Semaphore>,
    quota: Arc<Quota>,
    /// Made when it is first needed.
    runtime: OnceLock<Runtime>,
    abandoned: Arc<AtomicUsize>,
}

/// An invocation's part of it.
pub struct Files {
    access: Arc<FileAccess>,
    _descriptors: [OwnedSemaphorePermit; 2],
}

/// The function's guests occupy all that they may, or no thread can be started.
#[derive(Debug, thiserror::Error)]
pub enum Occupied {
    #[error("all descriptors for files are taken")]
    Descriptors,
    #[error("all threads for files are occupied")]
    Threads,
    #[error("cannot start threads for files: {0}")]
    Io(io::Error),
}

impl FileQuotas {
    /// With so many descriptors.
    pub fn new(descriptors: usize, thread_start: ThreadStart) -> FileQuotas {
        FileQuotas {
            thread_start,
            descriptors: Arc::new(Semaphore::new(descriptors.min(Semaphore::MAX_PERMITS))),
            // An invocation must fit.
            share: (descriptors / SHARE).clamp(MOST_FILES as usize, Semaphore::MAX_PERMITS),
            by_function: ByName::default(),
        }
    }

    /// For the function `name`.
    pub fn of(&self, name: &Arc<str>) -> Arc<FileAccess> {
        let quota = self
            .by_function
            .of(name, || Quota { descriptors: Arc::new(Semaphore::new(self.share)), threads: AtomicUsize::new(0) });
        Arc::new(FileAccess {
            thread_start: self.thread_start.clone(),
            all: self.descriptors.clone(),
            quota,
            runtime: OnceLock::new(),
            abandoned: Arc::default(),
        })
    }
}

impl FileAccess {
    /// For one invocation.
    ///
    /// # Errors
    /// [`Occupied`].
    pub fn open(self: &Arc<Self>) -> Result<Files, Occupied> {
        if self.abandoned.load(Ordering::Relaxed) >= MOST_ABANDONED {
            return Err(Occupied::Threads);
        }
        let take = |semaphore: &Arc<Semaphore>| semaphore.clone().try_acquire_many_owned(MOST_FILES);
        let own = take(&self.quota.descriptors).map_err(|_| Occupied::Descriptors)?;
        let common = take(&self.all).map_err(|_| Occupied::Descriptors)?;
        if self.runtime.get().is_none() {
            let runtime = self.start()?;
            if let Err(second) = self.runtime.set(runtime) {
                second.shutdown_background();
            }
        }
        Ok(Files { access: self.clone(), _descriptors: [own, common] })
    }

    fn start(&self) -> Result<Runtime, Occupied> {
        // Those that an earlier version has left behind count.
        let living = self.quota.threads.load(Ordering::Acquire);
        let threads = MOST_THREADS_EVER.saturating_sub(living).min(MOST_THREADS);
        if threads == 0 {
            return Err(Occupied::Threads);
        }
        let (started, stopped, thread_start) = (self.quota.clone(), self.quota.clone(), self.thread_start.clone());
        Builder::new_multi_thread()
            // It only waits for timers and sockets of these guests.
            .worker_threads(1)
            .max_blocking_threads(threads)
            .thread_name("files")
            .on_thread_start(move || {
                started.threads.fetch_add(1, Ordering::AcqRel);
                thread_start();
            })
            .on_thread_stop(move || {
                stopped.threads.fetch_sub(1, Ordering::AcqRel);
            })
            .enable_all()
            .build()
            .map_err(Occupied::Io)
    }
}

impl Drop for FileAccess {
    fn drop(&mut self) {
        // A thread that is occupied is left behind.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Files {
    fn runtime(&self) -> &Runtime {
        self.access.runtime.get().expect("it is made before this")
    }

    /// The context in which the guest must run.
    pub fn enter(&self) -> EnterGuard<'_> {
        self.runtime().enter()
    }

    /// The guest was ended before it ended itself: its file access may still be queued, until a thread has come to it.
    pub fn abandon(&self) {
        let abandoned = self.access.abandoned.clone();
        abandoned.fetch_add(1, Ordering::Relaxed);
        drop(self.runtime().spawn_blocking(move || abandoned.fetch_sub(1, Ordering::Relaxed)));
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::mpsc,
        time::{Duration, Instant},
    };

    use super::*;

    /// Occupies a thread of `files` until the sender is dropped.
    fn occupy(files: &Files) -> mpsc::SyncSender<()> {
        let (end, ended) = mpsc::sync_channel::<()>(1);
        let (begin, begun) = mpsc::sync_channel(1);
        drop(files.runtime().spawn_blocking(move || {
            let _ = begin.send(());
            let _ = ended.recv();
        }));
        begun.recv().unwrap();
        end
    }

    #[test]
    fn a_function_occupies_its_own_threads_alone_also_after_it_was_loaded_anew() {
        let quotas = FileQuotas::new(1 << 20, Arc::new(|| ()));
        let [hostile, other]: [Arc<str>; 2] = ["hostile".into(), "other".into()];
        let mut ends = Vec::new();
        while let Ok(files) = quotas.of(&hostile).open() {
            ends.push(occupy(&files));
            assert!(ends.len() <= MOST_THREADS_EVER);
        }
        assert!(ends.len() > MOST_THREADS_EVER / 2, "each version has another worker, which may still be ending");
        drop(occupy(&quotas.of(&other).open().unwrap()));
        drop(ends);
        let give_up = Instant::now() + Duration::from_secs(60);
        while let Err(occupied) = quotas.of(&hostile).open() {
            assert!(Instant::now() < give_up, "{occupied}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn what_waits_for_occupied_threads_is_bounded() {
        let access = FileQuotas::new(1 << 20, Arc::new(|| ())).of(&"f".into());
        let files = access.open().unwrap();
        let ends: Vec<_> = (0..MOST_THREADS).map(|_| occupy(&files)).collect();
        for _ in 0..MOST_ABANDONED {
            access.open().unwrap().abandon();
        }
        assert!(matches!(access.open(), Err(Occupied::Threads)));
        drop(ends);
        let give_up = Instant::now() + Duration::from_secs(60);
        while let Err(occupied) = access.open() {
            assert!(Instant::now() < give_up, "{occupied}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn one_function_does_not_take_all_descriptors() {
        let quotas = FileQuotas::new(4 * MOST_FILES as usize, Arc::new(|| ()));
        let [first, second] = ["first", "second"].map(|name| quotas.of(&name.into()));
        let held = [first.open().unwrap(), first.open().unwrap()];
        assert!(matches!(first.open(), Err(Occupied::Descriptors)));
        let others = [second.open().unwrap(), second.open().unwrap()];
        drop(held);
        assert!(matches!(second.open(), Err(Occupied::Descriptors)), "its share");
        drop(others);
        first.open().unwrap();
    }
}
