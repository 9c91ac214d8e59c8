//! A container's cgroup, and cgroups below.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process,
};

use rustix::io::Errno;
use wasmbox_tests::eventually;

const ROOT: &str = "/sys/fs/cgroup";

/// A cgroup. It is removed when dropped: nothing may be in it then.
pub struct Cgroup(PathBuf);

/// The test's own process is in the cgroup, and what it starts begins there, until this is dropped.
pub struct Entered;

impl Cgroup {
    /// A cgroup of a name of its own, below the root's.
    ///
    /// # Panics
    /// If there is one already.
    pub fn container(name: &str) -> Cgroup {
        Cgroup::new(Path::new(ROOT).join(name))
    }

    pub fn child(&self, name: &str) -> Cgroup {
        Cgroup::new(self.0.join(name))
    }

    /// A child that takes threads.
    pub fn leaf(&self, name: &str) -> Cgroup {
        let leaf = self.child(name);
        leaf.write("cgroup.type", "threaded").expect("a new cgroup can be threaded");
        leaf
    }

    fn new(path: PathBuf) -> Cgroup {
        fs::create_dir(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Cgroup(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// As /proc/PID/cgroup names it.
    pub fn name(&self) -> String {
        format!("0::{}", self.0.display().to_string().strip_prefix(ROOT).expect("all cgroups are below"))
    }

    /// # Errors
    /// The kernel's.
    pub fn write(&self, file: &str, value: &str) -> Result<(), Errno> {
        fs::write(self.0.join(file), value).map_err(|error| errno(&error))
    }

    /// # Errors
    /// The kernel's.
    pub fn read(&self, file: &str) -> Result<String, Errno> {
        fs::read_to_string(self.0.join(file)).map(|text| text.trim_end().to_owned()).map_err(|error| errno(&error))
    }

    /// # Panics
    /// If `cpu.stat` has no such value.
    pub fn cpu_stat(&self, name: &str) -> u64 {
        cpu_stat(&self.0, name)
    }

    /// Moves the test's process here.
    #[must_use]
    pub fn enter(&self) -> Entered {
        self.write("cgroup.procs", &process::id().to_string()).expect("a process may be moved");
        Entered
    }

    /// All cgroups below.
    pub fn below(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut left = vec![self.0.clone()];
        while let Some(directory) = left.pop() {
            // It may be gone by now.
            for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    left.push(entry.path());
                    found.push(entry.path());
                }
            }
        }
        found
    }
}

/// A value of a cgroup's `cpu.stat`.
///
/// # Panics
/// If it is not there.
pub fn cpu_stat(cgroup: &Path, name: &str) -> u64 {
    let stat = fs::read_to_string(cgroup.join("cpu.stat")).expect("each cgroup has it");
    let value = stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("{name} in {stat}")).parse().expect("a number")
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).expect("an error of the kernel's")
}

impl Drop for Entered {
    fn drop(&mut self) {
        fs::write(Path::new(ROOT).join("cgroup.procs"), process::id().to_string()).expect("a process may be moved");
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = fs::remove_dir(&self.0);
            return;
        }
        // A thread that has ended is counted a little longer.
        eventually(&format!("{} can be removed", self.0.display()), || fs::remove_dir(&self.0).ok());
    }
}
