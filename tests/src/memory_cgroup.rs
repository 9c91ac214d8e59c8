//! A container's memory limit, made for one test: a memory cgroup of its own, below that of the test.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

/// Dropping it asserts that no process is left in it, and removes it.
#[derive(Debug)]
pub struct MemoryCgroup {
    path: PathBuf,
    is_v2: bool,
}

impl MemoryCgroup {
    /// A cgroup of `mebibytes`.
    ///
    /// # Panics
    /// If there can be none here: it takes root, and a memory hierarchy that can be written.
    pub fn new(mebibytes: u64) -> MemoryCgroup {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let (own, is_v2) = own();
        // On v2 a cgroup with processes can have no children with a memory limit: it is made beside.
        let place = if is_v2 { own.parent().unwrap_or(&own).to_owned() } else { own };
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = place.join(format!("wasmbox-test-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap_or_else(|error| {
            panic!("this test needs a memory cgroup of its own, and {}: {error}", path.display())
        });
        let cgroup = MemoryCgroup { path, is_v2 };
        cgroup.write(if is_v2 { "memory.max" } else { "memory.limit_in_bytes" }, mebibytes << 20);
        cgroup
    }

    fn write(&self, file: &str, value: u64) {
        let path = self.path.join(file);
        fs::write(&path, value.to_string()).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    fn read(&self, file: &str) -> String {
        let path = self.path.join(file);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// The file that a process joins it by.
    pub fn procs(&self) -> PathBuf {
        self.path.join("cgroup.procs")
    }

    /// Processes that the kernel killed in it for want of memory.
    ///
    /// # Panics
    /// If the kernel does not tell.
    pub fn oom_kills(&self) -> u64 {
        let text = self.read(if self.is_v2 { "memory.events" } else { "memory.oom_control" });
        let value = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        value.and_then(|value| value.trim().parse().ok()).expect("the kernel counts OOM kills, since Linux 4.13")
    }

    /// What is charged to it now, page cache included; bytes.
    ///
    /// # Panics
    /// If the kernel does not tell.
    pub fn usage(&self) -> u64 {
        let text = self.read(if self.is_v2 { "memory.current" } else { "memory.usage_in_bytes" });
        text.trim().parse().expect("a number of bytes")
    }
}

impl Drop for MemoryCgroup {
    fn drop(&mut self) {
        let left = || fs::read_to_string(self.procs()).unwrap_or_default();
        if !thread::panicking() {
            assert_eq!(left(), "", "processes are left in {}", self.path.display());
        }
        // The kernel lets go of a process a little after its end.
        for _ in 0..100 {
            if fs::remove_dir(&self.path).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        eprintln!("{} cannot be removed; in it: {:?}", self.path.display(), left());
    }
}

/// The memory cgroup of this process, and whether it is of version 2; by cgroups(7).
fn own() -> (PathBuf, bool) {
    let groups = fs::read_to_string("/proc/self/cgroup").expect("/proc/self/cgroup");
    let path_of = |controllers: &str| {
        groups.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (names, path) = rest.split_once(':')?;
            (names == controllers).then(|| path.trim_start_matches('/').to_owned())
        })
    };
    match path_of("memory") {
        Some(path) => (Path::new("/sys/fs/cgroup/memory").join(path), false),
        None => (Path::new("/sys/fs/cgroup").join(path_of("").expect("a cgroup of version 2")), true),
    }
}
