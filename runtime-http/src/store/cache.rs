//! Which functions are held in memory, which are being loaded, and which failed: bookkeeping without clock, lock or task.
//!
//! An entry is valid for one version of its files. While a function is loaded there is one entry for all who want it. What its content made
//! fail stays failed until the file changes; all other failures pass, and are tried again after a while. Over the bounds the least recently
//! used go.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use super::{file::FileVersion, name::ModuleName};

/// A look at a file serves all requests for it that come this soon after. Shorter than a round trip: whoever changes a file and then
/// calls its function gets the change.
const LOOK_SERVES: Duration = Duration::from_micros(200);
/// After how long a failure that may pass is tried again; twice as long after each further one, up to the second value.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(64));

/// Functions (`V`), failures (`E`), and what those wait for who want one that is being loaded (`W`).
#[derive(Debug)]
pub struct Cache<V, E, W> {
    by_file: HashMap<String, Entry<V, E, W>>,
    /// Functions and their files by requested name, as of the last look at their files.
    stat_cache: HashMap<ModuleName, (V, String, Instant)>,
    /// Counts look-ups: the least recently used entry has the smallest number.
    clock: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Entry<V, E, W> {
    version: FileVersion,
    state: State<V, E, W>,
    last_used: u64,
    used_at: Instant,
    /// Failures in a row that may pass, of this version.
    failures: u32,
}

/// What is known of a file.
#[derive(Debug)]
pub enum State<V, E, W> {
    Loading {
        waiting: W,
        number: u64,
    },
    Ready {
        function: V,
        bytes: usize,
    },
    /// Until `retry` comes, or the file changes.
    Failed {
        error: E,
        retry: Option<Instant>,
    },
}

/// What a look-up finds.
#[derive(Debug, PartialEq, Eq)]
pub enum LookUp<V, E, W> {
    Ready(V),
    Failed(E),
    Loading(W),
    /// It has to be loaded: [`Cache::start`].
    Missing,
}

/// How loading ended.
#[derive(Debug)]
pub enum Loaded<V, E> {
    /// Of a version that may be newer than the one that was to be loaded.
    Ready { version: FileVersion, function: V, bytes: usize },
    /// Because of the file's content.
    Invalid(E),
    /// Because of something that may pass.
    Failed(E),
    /// Because the file was changing; whoever comes next looks again.
    Changing,
}

/// One loading, to be finished once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    file: String,
    number: u64,
}

impl Ticket {
    pub fn file(&self) -> &str {
        &self.file
    }
}

impl<V, E, W> Default for Cache<V, E, W> {
    fn default() -> Self {
        Cache { by_file: HashMap::new(), stat_cache: HashMap::new(), clock: 0, bytes: 0 }
    }
}

impl<V: Clone, E: Clone, W: Clone> Cache<V, E, W> {
    /// The function that `name` meant when its file was looked at a moment ago.
    pub fn just_looked_at(&self, name: &ModuleName, now: Instant) -> Option<V> {
        let (function, _, looked) = self.stat_cache.get(name)?;
        (now.saturating_duration_since(*looked) < LOOK_SERVES).then(|| function.clone())
    }

    /// What there is for `name`, whose file has this version now.
    pub fn look_up(&mut self, name: &ModuleName, version: &FileVersion, now: Instant) -> LookUp<V, E, W> {
        self.clock += 1;
        let Some(entry) = self.by_file.get_mut(&version.file).filter(|entry| entry.version == *version) else {
            return LookUp::Missing;
        };
        entry.last_used = self.clock;
        entry.used_at = now;
        match &entry.state {
            State::Ready { function, .. } => {
                let function = function.clone();
                self.stat_cache.insert(name.clone(), (function.clone(), version.file.clone(), now));
                LookUp::Ready(function)
            }
            State::Failed { retry: Some(retry), .. } if *retry <= now => LookUp::Missing,
            State::Failed { error, .. } => LookUp::Failed(error.clone()),
            State::Loading { waiting, .. } => LookUp::Loading(waiting.clone()),
        }
    }

    /// Loading begins; in place of whatever there was for that file.
    pub fn start(&mut self, version: &FileVersion, waiting: W, now: Instant) -> Ticket {
        self.clock += 1;
        let failures = match self.by_file.get(&version.file) {
            Some(entry) if entry.version == *version => entry.failures,
            Some(_) | None => 0,
        };
        let ticket = Ticket { file: version.file.clone(), number: self.clock };
        let state = State::Loading { waiting, number: ticket.number };
        self.insert(Entry { version: version.clone(), state, last_used: self.clock, used_at: now, failures });
        ticket
    }

    /// Loading ended. That of an older version, in whose place another one began, changes nothing.
    pub fn finish(&mut self, ticket: &Ticket, loaded: Loaded<V, E>, now: Instant) {
        let is_its =
            |state: &State<V, E, W>| matches!(state, State::Loading { number, .. } if *number == ticket.number);
        let Some(entry) = self.by_file.get(&ticket.file).filter(|entry| is_its(&entry.state)) else { return };
        let (last_used, used_at, found) = (entry.last_used, entry.used_at, entry.version.clone());
        let failures = entry.failures.saturating_add(1);
        let (version, state, failures) = match loaded {
            Loaded::Ready { version, function, bytes } => (version, State::Ready { function, bytes }, 0),
            Loaded::Invalid(error) => (found, State::Failed { error, retry: None }, 0),
            Loaded::Failed(error) => {
                (found, State::Failed { error, retry: Some(now + retry_after(failures)) }, failures)
            }
            Loaded::Changing => {
                self.remove(&ticket.file);
                return;
            }
        };
        self.insert(Entry { version, state, last_used, used_at, failures });
    }

    fn insert(&mut self, entry: Entry<V, E, W>) {
        self.remove(&entry.version.file);
        if let State::Ready { bytes, .. } = &entry.state {
            self.bytes += bytes;
        }
        self.by_file.insert(entry.version.file.clone(), entry);
    }

    /// Puts `function` in the place of another one of the same version; whether there was one.
    pub fn swap(&mut self, version: &FileVersion, function: V, bytes: usize) -> bool {
        let Some(entry) = self.by_file.get_mut(&version.file).filter(|entry| entry.version == *version) else {
            return false;
        };
        let State::Ready { function: old, bytes: old_bytes } = &mut entry.state else { return false };
        self.bytes = self.bytes - *old_bytes + bytes;
        (*old, *old_bytes) = (function, bytes);
        self.stat_cache.retain(|_, (_, of, _)| *of != version.file);
        true
    }

    /// Lets go of what there is for `file`; whether that was a function.
    pub fn remove(&mut self, file: &str) -> bool {
        match self.by_file.remove(file).map(|entry| entry.state) {
            Some(State::Ready { bytes, .. }) => {
                self.stat_cache.retain(|_, (_, of, _)| of != file);
                self.bytes -= bytes;
                true
            }
            Some(State::Loading { .. } | State::Failed { .. }) | None => false,
        }
    }

    /// Lets go of the least recently used, until there are at most so many bytes and entries. What is being loaded stays, and so does `newest`.
    pub fn make_room(&mut self, bytes: usize, entries: usize, newest: &str) {
        while self.bytes > bytes || self.by_file.len() > entries {
            let oldest = self
                .by_file
                .iter()
                .filter(|(file, entry)| *file != newest && !matches!(entry.state, State::Loading { .. }))
                .min_by_key(|(_, entry)| entry.last_used)
                .map(|(file, _)| file.clone());
            let Some(oldest) = oldest else { break };
            self.remove(&oldest);
        }
    }

    /// Lets go of functions that nobody wanted for longer than `idle`; how many that were.
    pub fn remove_idle(&mut self, idle: Duration, now: Instant) -> usize {
        let is_idle = |entry: &Entry<V, E, W>| {
            matches!(entry.state, State::Ready { .. }) && now.saturating_duration_since(entry.used_at) > idle
        };
        let files: Vec<String> =
            self.by_file.iter().filter(|(_, entry)| is_idle(entry)).map(|(file, _)| file.clone()).collect();
        files.iter().filter(|file| self.remove(file)).count()
    }

    /// Bytes of all functions.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many functions there are.
    pub fn functions(&self) -> usize {
        self.by_file.values().filter(|entry| matches!(entry.state, State::Ready { .. })).count()
    }

    /// What is known of `file`.
    pub fn state(&self, file: &str) -> Option<&State<V, E, W>> {
        self.by_file.get(file).map(|entry| &entry.state)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &State<V, E, W>)> {
        self.by_file.iter().map(|(file, entry)| (file.as_str(), &entry.state))
    }
}

/// How long to wait after so many failures in a row.
fn retry_after(failures: u32) -> Duration {
    let factor = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
    RETRY.0.saturating_mul(factor).min(RETRY.1)
}

#[cfg(test)]
mod tests;
