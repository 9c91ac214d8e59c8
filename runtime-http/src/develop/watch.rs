//! Waits for changes of a project's sources.

use std::{
    collections::BTreeSet,
    mem,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::{sync::Notify, time::sleep_until};

/// So long nothing may happen until a change counts: editors write several files, and some of them twice.
const QUIET: Duration = Duration::from_millis(100);
/// Where it never is quiet, a change counts after that long.
const LONGEST: Duration = Duration::from_secs(1);

/// What is watched, and what it stands for.
#[derive(Debug, Clone)]
pub struct Watched<T> {
    /// A file, or a directory with all that is in it.
    pub path: PathBuf,
    pub subject: T,
}

#[derive(Debug, thiserror::Error)]
#[error("{path} cannot be watched: {source}")]
pub struct WatchError {
    path: PathBuf,
    source: notify::Error,
}

/// The subjects that have changed since they were last asked for.
pub struct Changes<T> {
    state: Arc<State<T>>,
    /// Replaced when other things are to be watched. Dropped, it watches no more.
    watcher: Option<RecommendedWatcher>,
}

struct State<T> {
    /// Locked for the moment of adding or taking.
    pending: Mutex<Pending<T>>,
    added: Notify,
}

/// What has changed, and since when: whoever waits may be interrupted, and does not begin anew then.
struct Pending<T> {
    subjects: BTreeSet<T>,
    first: Instant,
    last: Instant,
}

impl<T> Pending<T> {
    fn nothing() -> Pending<T> {
        Pending { subjects: BTreeSet::new(), first: Instant::now(), last: Instant::now() }
    }

    /// When it counts.
    fn due(&self) -> Option<Instant> {
        (!self.subjects.is_empty()).then(|| (self.last + QUIET).min(self.first + LONGEST))
    }
}

impl<T: Clone + Ord + Send + 'static> Default for Changes<T> {
    fn default() -> Self {
        let state = State { pending: Mutex::new(Pending::nothing()), added: Notify::new() };
        Changes { state: Arc::new(state), watcher: None }
    }
}

impl<T: Clone + Ord + Send + 'static> Changes<T> {
    /// From now on watches these, and nothing else. What has changed before is not forgotten.
    ///
    /// # Errors
    /// [`WatchError`], if one is not there, for instance; the others are watched.
    pub fn watch(&mut self, watched: Vec<Watched<T>>) -> Result<(), WatchError> {
        let roots: Vec<(PathBuf, RecursiveMode)> = watched.iter().map(|watched| root(&watched.path)).collect();
        let state = self.state.clone();
        let concerned = move |event: notify::Result<Event>| {
            let Ok(event) = event else { return };
            // That somebody reads it is no change.
            if matches!(event.kind, EventKind::Access(_)) {
                return;
            }
            let is_lost = event.need_rescan();
            let is_within =
                |watched: &&Watched<T>| is_lost || event.paths.iter().any(|path| is_of(path, &watched.path));
            state.add(watched.iter().filter(is_within).map(|watched| watched.subject.clone()));
        };
        let failed = |path: &Path, source| WatchError { path: path.to_owned(), source };
        let mut watcher = notify::recommended_watcher(concerned).map_err(|source| failed(Path::new("."), source))?;
        let mut result = Ok(());
        for (root, mode) in roots {
            let one = watcher.watch(&root, mode).map_err(|source| failed(&root, source));
            result = result.and(one);
        }
        // Only now the earlier one ends, so that nothing is missed between the two.
        self.watcher = Some(watcher);
        result
    }

    /// Waits for changes, and until there are no more for a moment; may be given up and called again.
    pub async fn next(&self) -> BTreeSet<T> {
        loop {
            let due = self.state.pending().due();
            match due {
                Some(due) if due <= Instant::now() => {
                    return mem::replace(&mut *self.state.pending(), Pending::nothing()).subjects;
                }
                Some(due) => sleep_until(due.into()).await,
                None => self.state.added.notified().await,
            }
        }
    }
}

impl<T: Ord> State<T> {
    fn pending(&self) -> MutexGuard<'_, Pending<T>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, subjects: impl Iterator<Item = T>) {
        let mut changed = subjects.peekable();
        if changed.peek().is_some() {
            let mut pending = self.pending();
            pending.last = Instant::now();
            if pending.subjects.is_empty() {
                pending.first = pending.last;
            }
            pending.subjects.extend(changed);
            drop(pending);
            self.added.notify_one();
        }
    }
}

/// What is to be watched for `path`: for a file its directory, since editors put another file in its place.
fn root(path: &Path) -> (PathBuf, RecursiveMode) {
    match path.parent() {
        Some(parent) if path.is_file() => (parent.to_owned(), RecursiveMode::NonRecursive),
        _ => (path.to_owned(), RecursiveMode::Recursive),
    }
}

/// Whether `changed` is what is watched, or in it; what editors keep beside it is not.
fn is_of(changed: &Path, watched: &Path) -> bool {
    let Ok(below) = changed.strip_prefix(watched) else { return false };
    let name = below.file_name().unwrap_or_default().to_string_lossy();
    !name.starts_with('.') && !name.ends_with('~')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_count_when_it_is_quiet_or_has_lasted() {
        let mut pending: Pending<u8> = Pending::nothing();
        assert_eq!(pending.due(), None);
        pending.subjects.insert(1);
        assert_eq!(pending.due(), Some(pending.last + QUIET));
        pending.last = pending.first + 10 * LONGEST;
        assert_eq!(pending.due(), Some(pending.first + LONGEST));
    }

    #[test]
    fn what_belongs_to_what_is_watched() {
        for (changed, is_it) in [
            ("/p/src", true),
            ("/p/src/main.rs", true),
            ("/p/src/a/b.rs", true),
            ("/p/src/.main.rs.swp", false),
            ("/p/src/main.rs~", false),
            ("/p/srcs", false),
            ("/p", false),
        ] {
            assert_eq!(is_of(Path::new(changed), Path::new("/p/src")), is_it, "{changed}");
        }
        assert!(is_of(Path::new("/p/Cargo.toml"), Path::new("/p/Cargo.toml")));
    }
}
