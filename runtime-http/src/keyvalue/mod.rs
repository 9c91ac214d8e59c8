//! What functions keep from one invocation to the next: keys and values, below a directory of the operator's or in Redis.
//!
//! Each function has a namespace of its own, by its name, and a quota of bytes. Nobody else's is ever opened for it. It knows nothing of guests: what
//! is read is charged to [`InvocationMemory`] before it is held.
//!
//! - [`embedded`]: a database for each function, below a directory; [`redis`]: a server that several boxes may share
//! - [`place`]: which of them the operator names
//! - [`invocation_memory`]: room for what is read; [`error`]: why not

pub mod embedded;
pub mod error;
pub mod invocation_memory;
pub mod place;
pub mod redis;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use self::{
    embedded::Embedded,
    place::{KeyvalueConfig, KeyvaluePlace},
    redis::Redis,
};
pub use self::{embedded::make_directory, error::KeyvalueError, invocation_memory::InvocationMemory};
use crate::{metrics::KeyvalueMetrics, threads::ThreadStart};

/// The largest key and the largest value, bytes.
pub const MOST_KEY: usize = 1 << 10;
pub const MOST_VALUE: usize = 512 << 10;
/// The most keys of one call.
pub const MOST_BATCH: usize = 1000;
/// The most keys of one page.
const PAGE_KEYS: usize = 256;
/// What an entry counts for beside its key and value, bytes.
const ENTRY_BYTES: u64 = 64;
/// The log says at most so often that a store fails: guests can make it fail at will.
const SAY_EACH_SECONDS: u64 = 10;

type Result<T> = std::result::Result<T, KeyvalueError>;

/// The store of all functions.
pub struct Keyvalue {
    backend: Backend,
    metrics: KeyvalueMetrics,
    began: Instant,
    /// Seconds since then, plus one; 0: nothing was said yet.
    said: AtomicU64,
}

enum Backend {
    Embedded(Embedded),
    Redis(Redis),
}

/// Some keys of a function, in order.
#[derive(Debug, PartialEq, Eq)]
pub struct Page {
    pub keys: Vec<String>,
    /// There are more after the last one.
    pub has_more: bool,
}

/// One function's part of it.
#[derive(Clone)]
pub struct FunctionStore {
    store: Arc<Keyvalue>,
    namespace: Namespace,
}

#[derive(Clone)]
enum Namespace {
    Embedded(Arc<embedded::Namespace>),
    Redis(Arc<redis::Namespace>),
}

/// What an entry takes of its function's quota.
fn entry_bytes(key: &str, value: usize) -> u64 {
    key.len() as u64 + value as u64 + ENTRY_BYTES
}

impl Keyvalue {
    /// `None`: the operator names no place. `memory`: what the box has, bytes.
    ///
    /// # Errors
    /// If the directory cannot be used, or threads cannot be started.
    pub fn start(
        config: &KeyvalueConfig,
        memory: u64,
        metrics: KeyvalueMetrics,
        thread_start: ThreadStart,
    ) -> io::Result<Option<Arc<Keyvalue>>> {
        let quota = config.quota.bytes();
        let backend = match &config.place {
            None => return Ok(None),
            Some(KeyvaluePlace::Directory(path)) => {
                Backend::Embedded(Embedded::start(path, quota, memory, thread_start)?)
            }
            Some(KeyvaluePlace::Redis(url)) => Backend::Redis(Redis::start(url, quota, thread_start)?),
        };
        Ok(Some(Arc::new(Keyvalue { backend, metrics, began: Instant::now(), said: AtomicU64::new(0) })))
    }

    /// For the function `name`.
    pub fn of(self: &Arc<Self>, name: &Arc<str>) -> FunctionStore {
        let namespace = match &self.backend {
            Backend::Embedded(embedded) => Namespace::Embedded(embedded.of(name)),
            Backend::Redis(redis) => Namespace::Redis(redis.of(name)),
        };
        FunctionStore { store: self.clone(), namespace }
    }

    fn name(&self) -> &'static str {
        match self.backend {
            Backend::Embedded(_) => "embedded",
            Backend::Redis(_) => "redis",
        }
    }

    /// What is not allowed is counted here, since it goes no further.
    fn allowed(&self, result: Result<()>) -> Result<()> {
        if result.is_ok() { result } else { self.counted(result) }
    }

    fn counted<T>(&self, result: Result<T>) -> Result<T> {
        self.metrics.operations.with_label_values(&[self.name()]).inc();
        if let Err(error) = &result {
            self.metrics.errors.with_label_values(&[self.name()]).inc();
            if let KeyvalueError::Storage { reason } = error {
                self.say(reason);
            }
        }
        result
    }

    fn say(&self, reason: &str) {
        let now = self.began.elapsed().as_secs() + 1;
        let may = |said: u64| (said == 0 || now >= said + SAY_EACH_SECONDS).then_some(now);
        if self.said.fetch_update(Ordering::Relaxed, Ordering::Relaxed, may).is_ok() {
            tracing::warn!(backend = self.name(), "the store of functions' values fails: {reason}");
        }
    }
}

/// Has the backend of a namespace do something.
macro_rules! ask {
    ($self:ident, $method:ident($($argument:expr),*)) => {{
        let result = match (&$self.store.backend, &$self.namespace) {
            (Backend::Embedded(embedded), Namespace::Embedded(namespace)) => embedded.$method(namespace, $($argument),*).await,
            (Backend::Redis(redis), Namespace::Redis(namespace)) => redis.$method(namespace, $($argument),*).await,
            (Backend::Embedded(_), Namespace::Redis(_)) | (Backend::Redis(_), Namespace::Embedded(_)) => {
                unreachable!("a namespace is its store's")
            }
        };
        $self.store.counted(result)
    }};
}

impl FunctionStore {
    /// The values of `keys`, in their order.
    ///
    /// # Errors
    /// [`KeyvalueError`].
    pub async fn get(&self, keys: Vec<String>, memory: InvocationMemory) -> Result<Vec<Option<Vec<u8>>>> {
        self.store.allowed(check_keys(&keys))?;
        ask!(self, get(keys, memory))
    }

    /// All or none of `pairs`; of several for one key the last one.
    ///
    /// # Errors
    /// [`KeyvalueError`].
    pub async fn set(&self, pairs: Vec<(String, Vec<u8>)>, memory: InvocationMemory) -> Result<()> {
        self.store.allowed(check_pairs(&pairs))?;
        let pairs: BTreeMap<String, Vec<u8>> = pairs.into_iter().collect();
        ask!(self, set(pairs, memory))
    }

    /// # Errors
    /// [`KeyvalueError`].
    pub async fn delete(&self, keys: Vec<String>) -> Result<()> {
        self.store.allowed(check_keys(&keys))?;
        let keys: BTreeSet<String> = keys.into_iter().collect();
        ask!(self, delete(keys))
    }

    /// # Errors
    /// [`KeyvalueError`].
    pub async fn exists(&self, key: String) -> Result<bool> {
        self.store.allowed(check_key(&key))?;
        ask!(self, exists(key))
    }

    /// Adds to a number in decimal, which is 0 if there is none; gives the sum.
    ///
    /// # Errors
    /// [`KeyvalueError`].
    pub async fn increment(&self, key: String, delta: u64) -> Result<u64> {
        self.store.allowed(check_key(&key))?;
        ask!(self, increment(key, delta))
    }

    /// The keys after `after`.
    ///
    /// # Errors
    /// [`KeyvalueError`].
    pub async fn list(&self, after: Option<String>, memory: InvocationMemory) -> Result<Page> {
        ask!(self, list(after, memory))
    }
}

fn check_pairs(pairs: &[(String, Vec<u8>)]) -> Result<()> {
    if pairs.len() > MOST_BATCH {
        return Err(KeyvalueError::Batch { count: pairs.len() });
    }
    for (key, value) in pairs {
        check_key(key)?;
        if value.len() > MOST_VALUE {
            return Err(KeyvalueError::Value { bytes: value.len() });
        }
    }
    Ok(())
}

fn check_keys(keys: &[String]) -> Result<()> {
    if keys.len() > MOST_BATCH {
        return Err(KeyvalueError::Batch { count: keys.len() });
    }
    keys.iter().try_for_each(|key| check_key(key))
}

fn check_key(key: &str) -> Result<()> {
    if (1..=MOST_KEY).contains(&key.len()) { Ok(()) } else { Err(KeyvalueError::Key { bytes: key.len() }) }
}

/// A value that is a number.
fn number(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}
