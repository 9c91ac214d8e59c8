//! Room on disk for compiled code: how much there is, and which files go first when there is none.

use std::{
    collections::BinaryHeap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use super::ENDING;

/// Keeps the files of a directory within a number of bytes. To look at all of them takes time and memory for each, so it is done once for
/// many files that are written; others may write there meanwhile, a 64th of the limit each.
pub(super) struct Room {
    /// The most bytes of all files.
    limit: u64,
    /// Bytes that may be written before the directory is looked at again.
    left: Mutex<u64>,
}

impl Room {
    pub fn new(limit: u64) -> Room {
        Room { limit, left: Mutex::new(0) }
    }

    /// Makes room for a file of so many bytes: removes those used longest ago, and then a 16th more than it takes. Mapped files stay usable until
    /// they are unmapped.
    ///
    /// # Errors
    /// If the directory cannot be read, or a file in it cannot be removed.
    pub fn take(&self, directory: &Path, bytes: u64) -> io::Result<()> {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(rest) = left.checked_sub(bytes) {
            *left = rest;
            return Ok(());
        }
        *left = 0;
        let mut total = bytes;
        for file in Stored::all(directory)? {
            total += file?.size;
        }
        if total > self.limit {
            let wanted = total - (self.limit - self.limit / 16);
            for file in oldest(directory, wanted)? {
                match fs::remove_file(&file.path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => total = total.saturating_sub(file.size),
                }
            }
        }
        *left = self.limit.saturating_sub(total).min(self.limit / 64);
        Ok(())
    }
}

/// A file of compiled code; the time of its last use comes first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Stored {
    used: SystemTime,
    size: u64,
    path: PathBuf,
}

impl Stored {
    /// Those in a directory. Which are removed meanwhile are left out.
    fn all(directory: &Path) -> io::Result<impl Iterator<Item = io::Result<Stored>>> {
        Ok(fs::read_dir(directory)?.filter_map(|entry| {
            let path = match entry {
                Ok(entry) => entry.path(),
                Err(error) => return Some(Err(error)),
            };
            let metadata = path.extension().is_some_and(|ending| ending == ENDING).then(|| fs::symlink_metadata(&path));
            let metadata = metadata?.ok()?;
            Some(metadata.modified().map(|used| Stored { used, size: metadata.len(), path }))
        }))
    }
}

/// Files that have together so many bytes, as far as there are: of all the ones used longest ago, and no more of them than it takes.
fn oldest(directory: &Path, wanted: u64) -> io::Result<BinaryHeap<Stored>> {
    let mut files = BinaryHeap::new();
    let mut bytes = 0;
    for file in Stored::all(directory)? {
        let file = file?;
        bytes += file.size;
        files.push(file);
        // The one used last goes, if the others are enough.
        while let Some(newest) = files.peek()
            && bytes - newest.size >= wanted
        {
            bytes -= newest.size;
            files.pop();
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs::File, time::Duration};

    use proptest::prelude::*;

    use super::*;

    fn names(directory: &Path) -> BTreeSet<usize> {
        let number = |path: PathBuf| path.file_stem().unwrap().to_str().unwrap().parse().unwrap();
        Stored::all(directory).unwrap().map(|file| number(file.unwrap().path)).collect()
    }

    proptest! {
        /// The limit holds whatever is written, what goes was used before what stays, and what is no code stays.
        #[test]
        fn never_more_than_the_limit_and_the_oldest_go(sizes in prop::collection::vec(0_u64..300, 1..60), limit in 300_u64..3000) {
            let directory = std::env::temp_dir().join(format!("wasmbox-room-{}", std::process::id()));
            // Of a run that failed.
            let _ = fs::remove_dir_all(&directory);
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join("key"), "no code").unwrap();
            let room = Room::new(limit);
            for (number, size) in sizes.iter().enumerate() {
                room.take(&directory, *size).unwrap();
                let file = File::create(directory.join(format!("{number}.{ENDING}"))).unwrap();
                file.set_len(*size).unwrap();
                file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(number as u64)).unwrap();
                let there = names(&directory);
                let first = *there.first().unwrap();
                prop_assert!(there.iter().copied().eq(first..=number), "{there:?}");
                let total: u64 = sizes[first..=number].iter().sum();
                prop_assert!(total <= limit);
                // No more than it takes.
                let before: u64 = sizes[first.saturating_sub(1)..=number].iter().sum();
                prop_assert!(first == 0 || before > limit - limit / 16, "{before} of {limit}");
            }
            prop_assert!(directory.join("key").exists());
            fs::remove_dir_all(directory).unwrap();
        }
    }
}
