//! Directories that are gone when the test is.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

/// A directory, removed with all that is in it when dropped.
pub struct TempDir(PathBuf);

impl Default for TempDir {
    fn default() -> Self {
        Self::new()
    }
}

impl TempDir {
    /// # Panics
    /// If it cannot be made.
    pub fn new() -> TempDir {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("{}{number}", prefix(process::id())));
        // One of an earlier process of this number that was killed.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).expect("a directory for temporary files");
        // As the server sees it, also where the temporary directory is a symlink.
        TempDir(path.canonicalize().expect("the directory was just made"))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let removed = fs::remove_dir_all(&self.0);
        if !thread::panicking() {
            removed.expect("the test's directory can be removed");
        }
    }
}

/// Removes those that were another process's, which was killed.
///
/// # Panics
/// If one of them cannot be removed.
pub fn sweep(process: u32) {
    let prefix = prefix(process);
    for entry in fs::read_dir(env::temp_dir()).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(&prefix)) {
            fs::remove_dir_all(entry.path()).expect("what is left of a process that has ended can be removed");
        }
    }
}

/// What names of a process's directories begin with.
fn prefix(process: u32) -> String {
    format!("wasmbox-test-{process}-")
}
