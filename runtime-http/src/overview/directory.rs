//! The functions that lie in the functions directory, also those that nobody has called.
//!
//! Others write to that directory, and it may be far away. So it is read on a thread of its own, once in a few seconds while somebody looks, and up
//! to a number of entries; who asks gets what was found last.

use std::{
    io,
    sync::{
        Arc,
        mpsc::{Receiver, TryRecvError, sync_channel},
    },
    time::{Duration, Instant},
};

use tokio::runtime::Handle;

use super::DirectoryState;
use crate::store::file::FunctionsDir;

/// One entry is looked at for so many bytes of memory: their names, of 128 bytes at most, take a hundredth of it.
const ENTRY_PART: u64 = 16 << 10;
/// Those of ten thousand functions with settings, twice.
const MOST_ENTRIES: usize = 40_000;
/// What was found serves for so long.
const SERVES: Duration = Duration::from_secs(5);

type Stems = io::Result<(Vec<Arc<str>>, bool)>;

/// What is known of it.
pub struct Directory {
    files: FunctionsDir,
    names: Vec<Arc<str>>,
    state: DirectoryState,
    /// When it was read last.
    read: Option<Instant>,
    /// It is being read.
    reading: Option<Receiver<Stems>>,
}

impl Directory {
    pub fn new(files: FunctionsDir) -> Directory {
        Directory { files, names: Vec::new(), state: DirectoryState::Unknown, read: None, reading: None }
    }

    /// The functions' names, some of them twice.
    pub fn names(&self) -> &[Arc<str>] {
        &self.names
    }

    pub fn state(&self) -> DirectoryState {
        self.state
    }

    /// Takes what was found meanwhile, and has the directory read again if that is a while ago. Does not wait. `memory`: that the box has, bytes.
    pub fn look(&mut self, runtime: &Handle, memory: u64) {
        if let Some(reading) = &self.reading {
            let stems = match reading.try_recv() {
                Ok(stems) => stems,
                Err(TryRecvError::Empty) => {
                    if self.read.is_none_or(|read| read.elapsed() >= 3 * SERVES) {
                        self.state = DirectoryState::Unknown;
                    }
                    return;
                }
                Err(TryRecvError::Disconnected) => Err(io::Error::other("the reader has ended")),
            };
            (self.names, self.state) = match stems {
                Ok((names, true)) => (names, DirectoryState::Whole),
                Ok((names, false)) => (names, DirectoryState::Cut),
                Err(_) => (Vec::new(), DirectoryState::Unknown),
            };
            (self.read, self.reading) = (Some(Instant::now()), None);
        }
        if self.read.is_none_or(|read| read.elapsed() >= SERVES) {
            let (sender, receiver) = sync_channel(1);
            let files = self.files.clone();
            let most = usize::try_from(memory / ENTRY_PART).unwrap_or(MOST_ENTRIES).min(MOST_ENTRIES);
            // Nobody waits for it: a network file system may keep it for as long as it likes.
            runtime.spawn_blocking(move || {
                let _ = sender.send(files.stems(most));
            });
            self.reading = Some(receiver);
        }
    }
}
