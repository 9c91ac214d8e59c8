//! A database (redb) for each function: the file `NAME.redb` in the directory.
//!
//! What it does on disk it does on threads of its own: never on those of connections or of guests. Each function has few of these at once. Few
//! databases are open at once, since each has a cache: another one that is not used is closed for one that is.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    ops::Bound,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, TryLockError},
};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, TableError};
use tokio::{
    runtime::{Builder, Runtime},
    sync::Semaphore,
};

use super::{InvocationMemory, KeyvalueError, PAGE_KEYS, Page, Result, entry_bytes, number};
use crate::{by_name::ByName, threads::ThreadStart};

/// Threads that read and write, of all functions, and of one.
const THREADS: usize = 16;
const THREADS_OF_FUNCTION: usize = 2;
/// What each database has in memory of what it has read and of what it is about to write, bytes.
const CACHE: usize = 512 << 10;
/// All caches together have this part of the box's memory, but there are at least as many as threads.
const CACHES_PART: u64 = 32;
const MOST_OPEN: usize = 64;
/// Bytes of keys on one page.
const PAGE_BYTES: usize = 64 << 10;

const VALUES: TableDefinition<&str, &[u8]> = TableDefinition::new("values");
/// `used`: what all entries count for, bytes.
const COUNTS: TableDefinition<&str, u64> = TableDefinition::new("counts");
const USED: &str = "used";

pub struct Embedded {
    databases: Arc<Databases>,
    by_function: ByName<Namespace>,
    quota: u64,
    /// `None` once it is dropped.
    runtime: Option<Runtime>,
}

/// Those that are open.
struct Databases {
    directory: PathBuf,
    most: usize,
    /// The one that was opened last is the last.
    open: Mutex<Vec<Arc<Namespace>>>,
}

/// One function's.
pub struct Namespace {
    name: Arc<str>,
    places: Arc<Semaphore>,
    /// Read by whoever uses it, written by whoever opens or closes it.
    database: RwLock<Option<Database>>,
}

/// Makes it private, if it is not there.
///
/// # Errors
/// If it cannot be made.
pub fn make_directory(directory: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

impl Embedded {
    /// In a directory that is there.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(directory: &Path, quota: u64, memory: u64, thread_start: ThreadStart) -> io::Result<Embedded> {
        let most = usize::try_from(memory / CACHES_PART / CACHE as u64).unwrap_or(MOST_OPEN);
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(THREADS)
            .thread_name("keyvalue")
            .on_thread_start(move || thread_start())
            .build()?;
        let databases = Databases {
            directory: directory.to_owned(),
            // One that is used is never closed.
            most: most.clamp(THREADS + 1, MOST_OPEN),
            open: Mutex::default(),
        };
        Ok(Embedded { databases: Arc::new(databases), by_function: ByName::default(), quota, runtime: Some(runtime) })
    }

    pub fn of(&self, name: &Arc<str>) -> Arc<Namespace> {
        self.by_function.of(name, || Namespace {
            name: name.clone(),
            places: Arc::new(Semaphore::new(THREADS_OF_FUNCTION)),
            database: RwLock::new(None),
        })
    }

    /// On one of its threads, when the function has one.
    async fn run<T: Send + 'static>(
        &self,
        namespace: &Arc<Namespace>,
        work: impl FnOnce(&Database) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let place = namespace.places.clone().acquire_owned().await.expect("the semaphore is never closed");
        let runtime = self.runtime.as_ref().expect("it is there until this is dropped");
        let (databases, namespace) = (self.databases.clone(), namespace.clone());
        let task = runtime.spawn_blocking(move || {
            // It is occupied until here, also when nobody waits any more.
            let _place = place;
            databases.with(&namespace, work)
        });
        // Who panicked has said why.
        task.await.map_err(|_| KeyvalueError::storage("it did not end"))?
    }

    pub async fn get(
        &self,
        namespace: &Arc<Namespace>,
        keys: Vec<String>,
        memory: InvocationMemory,
    ) -> Result<Vec<Option<Vec<u8>>>> {
        self.run(namespace, move |database| get(database, &keys, &memory)).await
    }

    pub async fn set(
        &self,
        namespace: &Arc<Namespace>,
        pairs: BTreeMap<String, Vec<u8>>,
        memory: InvocationMemory,
    ) -> Result<()> {
        let quota = self.quota;
        self.run(namespace, move |database| {
            let _held = memory.hold_copy(&pairs)?;
            change(database, quota, |changes| pairs.iter().try_for_each(|(key, value)| changes.set(key, value)))
        })
        .await
    }

    pub async fn delete(&self, namespace: &Arc<Namespace>, keys: BTreeSet<String>) -> Result<()> {
        // Whoever has too much may delete some.
        self.run(namespace, move |database| {
            change(database, u64::MAX, |changes| keys.iter().try_for_each(|key| changes.delete(key)))
        })
        .await
    }

    pub async fn exists(&self, namespace: &Arc<Namespace>, key: String) -> Result<bool> {
        self.run(namespace, move |database| {
            Ok(match values(database)? {
                Some(values) => values.get(key.as_str()).map_err(KeyvalueError::storage)?.is_some(),
                None => false,
            })
        })
        .await
    }

    pub async fn increment(&self, namespace: &Arc<Namespace>, key: String, delta: u64) -> Result<u64> {
        let quota = self.quota;
        self.run(namespace, move |database| change(database, quota, |changes| changes.increment(&key, delta))).await
    }

    pub async fn list(
        &self,
        namespace: &Arc<Namespace>,
        after: Option<String>,
        memory: InvocationMemory,
    ) -> Result<Page> {
        self.run(namespace, move |database| list(database, after.as_deref(), &memory)).await
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        // What is being written is finished, or undone when it is opened again.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Databases {
    fn open(&self) -> MutexGuard<'_, Vec<Arc<Namespace>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, namespace: &Arc<Namespace>, work: impl FnOnce(&Database) -> Result<T>) -> Result<T> {
        let result = self.with_open(namespace, work);
        if let Err(KeyvalueError::Storage { .. }) = result {
            // After a failure of the disk nothing more is done with an open one. When it is opened anew, what was begun is undone.
            // Under its lock until it is off the list, since somebody may open it again.
            let mut place = namespace.database.write().unwrap_or_else(PoisonError::into_inner);
            *place = None;
            self.open().retain(|open| !Arc::ptr_eq(open, namespace));
        }
        result
    }

    fn with_open<T>(&self, namespace: &Arc<Namespace>, work: impl FnOnce(&Database) -> Result<T>) -> Result<T> {
        loop {
            if let Some(database) = &*namespace.read() {
                return work(database);
            }
            let mut place = namespace.database.write().unwrap_or_else(PoisonError::into_inner);
            if place.is_none() {
                self.make_room();
                let path = self.directory.join(format!("{}.redb", namespace.name));
                let opened = Database::builder().set_cache_size(CACHE).create(&path);
                *place =
                    Some(opened.map_err(|error| KeyvalueError::storage(format_args!("{}: {error}", path.display())))?);
                self.open().push(namespace.clone());
            }
            // Between these somebody may close it.
        }
    }

    /// Closes the one that has been open for longest of those that nobody uses, if there are too many.
    fn make_room(&self) {
        let mut closed = Vec::new();
        let mut open = self.open();
        while open.len() >= self.most {
            let unused = open.iter().position(|namespace| match namespace.database.try_write() {
                Ok(mut database) => {
                    closed.push(database.take());
                    true
                }
                Err(TryLockError::Poisoned(poisoned)) => {
                    closed.push(poisoned.into_inner().take());
                    true
                }
                Err(TryLockError::WouldBlock) => false,
            });
            match unused {
                Some(place) => drop(open.remove(place)),
                None => break,
            }
        }
        drop(open);
        // It writes to the disk, without the lock that all share.
        drop(closed);
    }
}

impl Namespace {
    fn read(&self) -> RwLockReadGuard<'_, Option<Database>> {
        self.database.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `None`: nothing was ever written.
fn values(database: &Database) -> Result<Option<redb::ReadOnlyTable<&'static str, &'static [u8]>>> {
    let transaction = database.begin_read().map_err(KeyvalueError::storage)?;
    match transaction.open_table(VALUES) {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(KeyvalueError::storage(error)),
    }
}

fn get(database: &Database, keys: &[String], memory: &InvocationMemory) -> Result<Vec<Option<Vec<u8>>>> {
    let Some(values) = values(database)? else { return Ok(vec![None; keys.len()]) };
    let value = |key: &String| match values.get(key.as_str()).map_err(KeyvalueError::storage)? {
        Some(value) => memory.copy(value.value()).map(Some),
        None => Ok(None),
    };
    keys.iter().map(value).collect()
}

fn list(database: &Database, after: Option<&str>, memory: &InvocationMemory) -> Result<Page> {
    let (mut keys, mut bytes) = (Vec::new(), 0);
    let Some(values) = values(database)? else { return Ok(Page { keys, has_more: false }) };
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    for entry in values.range::<&str>((from, Bound::Unbounded)).map_err(KeyvalueError::storage)? {
        if keys.len() >= PAGE_KEYS || bytes >= PAGE_BYTES {
            return Ok(Page { keys, has_more: true });
        }
        let (key, _) = entry.map_err(KeyvalueError::storage)?;
        bytes += key.value().len();
        keys.push(memory.text(key.value())?);
    }
    Ok(Page { keys, has_more: false })
}

/// What one transaction changes.
struct Changes<'a> {
    values: redb::Table<'a, &'static str, &'static [u8]>,
    used: u64,
    quota: u64,
}

impl Changes<'_> {
    fn set(&mut self, key: &str, value: &[u8]) -> Result<()> {
        let before = self.values.insert(key, value).map_err(KeyvalueError::storage)?;
        let before = before.map_or(0, |before| entry_bytes(key, before.value().len()));
        self.used = self.used.saturating_sub(before).saturating_add(entry_bytes(key, value.len()));
        if self.used > self.quota { Err(KeyvalueError::Quota { quota: self.quota }) } else { Ok(()) }
    }

    fn delete(&mut self, key: &str) -> Result<()> {
        let before = self.values.remove(key).map_err(KeyvalueError::storage)?;
        let before = before.map_or(0, |before| entry_bytes(key, before.value().len()));
        self.used = self.used.saturating_sub(before);
        Ok(())
    }

    fn increment(&mut self, key: &str, delta: u64) -> Result<u64> {
        let before = match self.values.get(key).map_err(KeyvalueError::storage)? {
            Some(value) => number(value.value()).ok_or(KeyvalueError::NotANumber)?,
            None => 0,
        };
        let sum = before.checked_add(delta).ok_or(KeyvalueError::NotANumber)?;
        self.set(key, sum.to_string().as_bytes())?;
        Ok(sum)
    }
}

/// All of `work`, or nothing of it.
fn change<T>(database: &Database, quota: u64, work: impl FnOnce(&mut Changes<'_>) -> Result<T>) -> Result<T> {
    let transaction = database.begin_write().map_err(KeyvalueError::storage)?;
    let result = {
        let mut counts = transaction.open_table(COUNTS).map_err(KeyvalueError::storage)?;
        let used = counts.get(USED).map_err(KeyvalueError::storage)?.map_or(0, |used| used.value());
        let values = transaction.open_table(VALUES).map_err(KeyvalueError::storage)?;
        let mut changes = Changes { values, used, quota };
        let result = work(&mut changes)?;
        counts.insert(USED, changes.used).map_err(KeyvalueError::storage)?;
        result
    };
    transaction.commit().map_err(KeyvalueError::storage)?;
    Ok(result)
}
