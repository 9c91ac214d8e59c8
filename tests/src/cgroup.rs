//! Cgroups of a test's own, in the v1 hierarchies of this host: with limits of a container's, and looked into from outside.

use std::{
    fs,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use crate::{eventually, process::Process};

/// How leaves' names begin.
const LEAF: &str = "wasmbox-";

/// A cgroup below the test's own, in one or more hierarchies. Dropping it checks that no leaf is left in it, and removes it.
pub struct TestCgroup {
    /// The controller of each hierarchy, and the cgroup's directory there.
    places: Vec<(&'static str, PathBuf)>,
}

impl TestCgroup {
    /// One in the cpu hierarchy alone.
    ///
    /// # Panics
    /// Saying what is missing: it takes root, and cgroup v1 hierarchies that can be written.
    pub fn cpu() -> TestCgroup {
        TestCgroup::new(&["cpu"])
    }

    /// # Panics
    /// Saying what is missing: it takes root, and cgroup v1 hierarchies that can be written.
    pub fn new(controllers: &[&'static str]) -> TestCgroup {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        assert!(rustix::process::geteuid().is_root(), "tests of cgroups make some: run them as root");
        let mut places = Vec::new();
        for controller in controllers {
            let own = own(controller).unwrap_or_else(|missing| panic!("{missing}; tests of cgroups need it"));
            let path = own.join(format!("test-{}-{number}", process::id()));
            fs::create_dir(&path).unwrap_or_else(|error| {
                panic!(
                    "cannot make the cgroup {}: {error}; tests of cgroups need a writable v1 hierarchy",
                    path.display()
                )
            });
            places.push((*controller, path));
        }
        let cgroup = TestCgroup { places };
        if controllers.contains(&"cpu") {
            // So that what else runs on this machine, and is in no cgroup of high weight, changes little.
            cgroup.set("cpu", "cpu.shares", 262_144);
        }
        cgroup
    }

    /// With a container's memory limit.
    ///
    /// # Panics
    /// Saying what is missing: it takes root, and cgroup v1 hierarchies that can be written.
    pub fn with_memory(mebibytes: u64) -> TestCgroup {
        let cgroup = TestCgroup::new(&["cpu", "memory"]);
        cgroup.set("memory", "memory.limit_in_bytes", mebibytes << 20);
        cgroup
    }

    /// Processes that the kernel killed in it for want of memory.
    ///
    /// # Panics
    /// If the kernel does not tell.
    pub fn oom_kills(&self) -> u64 {
        let text = fs::read_to_string(self.path("memory").join("memory.oom_control")).expect("the cgroup is there");
        let value = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        value.and_then(|value| value.trim().parse().ok()).expect("the kernel counts OOM kills, since Linux 4.13")
    }

    /// What is charged to it now, page cache included; bytes.
    ///
    /// # Panics
    /// If the kernel does not tell.
    pub fn memory_usage(&self) -> u64 {
        let text = fs::read_to_string(self.path("memory").join("memory.usage_in_bytes")).expect("the cgroup is there");
        text.trim().parse().expect("a number of bytes")
    }

    /// Its directory in the hierarchy of `controller`.
    ///
    /// # Panics
    /// If it was not made there.
    pub fn path(&self, controller: &str) -> &Path {
        let place = self.places.iter().find(|(name, _)| *name == controller);
        &place.expect("the test made it in this hierarchy").1
    }

    /// Writes one of its files.
    ///
    /// # Panics
    /// If the kernel refuses.
    pub fn set(&self, controller: &str, file: &str, value: impl ToString) {
        let path = self.path(controller).join(file);
        fs::write(&path, value.to_string()).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    /// The leaves that are in it now.
    ///
    /// # Panics
    /// If its directory cannot be read.
    pub fn leaves(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path("cpu")).expect("the cgroup is there");
        let paths = entries.map(|entry| entry.expect("the cgroup is there").path());
        paths.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(LEAF))).collect()
    }

    /// Waits for the one leaf.
    pub fn leaf(&self) -> PathBuf {
        eventually("one leaf", || self.leaves().pop().filter(|_| self.leaves().len() == 1))
    }

    /// What puts the thread that calls it into the cgroup.
    pub fn join_here(&self) -> impl Fn() + Send + use<> {
        let files: Vec<_> = self.places.iter().map(|(_, path)| path.join("tasks")).collect();
        move || {
            for file in &files {
                // cgroups(7): 0 is the thread that writes.
                fs::write(file, "0").unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            }
        }
    }

    /// A command line that puts itself into the cgroup, and becomes the one that is appended to it.
    pub fn enter(&self) -> Vec<String> {
        let join: Vec<_> =
            self.places.iter().map(|(_, path)| format!("echo $$ > {}/cgroup.procs && ", path.display())).collect();
        ["sh".into(), "-c".into(), format!("{}exec \"$@\"", join.concat()), "sh".into()].into()
    }
}

impl Drop for TestCgroup {
    fn drop(&mut self) {
        if thread::panicking() {
            for leaf in self.leaves() {
                let _ = fs::remove_dir(leaf);
            }
            for (_, path) in &self.places {
                let _ = fs::remove_dir(path);
            }
            return;
        }
        for (_, path) in &self.places {
            let entries = fs::read_dir(path).expect("the cgroup is there").flatten();
            let left: Vec<_> = entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
            assert!(left.is_empty(), "{left:?} are left");
            // The kernel lets go of a process that has ended a little late.
            eventually("the test's cgroup is empty", || fs::remove_dir(path).ok());
        }
    }
}

/// The leaves of a server that was started in the test's own cgroup.
pub fn leaves_of(server: Process) -> Vec<PathBuf> {
    // Where there is no v1 hierarchy, none of its leaves is in it.
    let entries = own("cpu").ok().and_then(|own| fs::read_dir(own).ok()).into_iter().flatten().flatten();
    let name = format!("{LEAF}{}-", server.0);
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&name)).map(|entry| entry.path()).collect()
}

/// Where the v1 hierarchy of `controller` is mounted.
///
/// # Panics
/// If it is not.
pub fn mount_point(controller: &str) -> PathBuf {
    mount(controller).unwrap_or_else(|missing| panic!("{missing}")).1
}

/// Root and mount point of a v1 hierarchy: proc_pid_mountinfo(5).
fn mount(controller: &str) -> Result<(PathBuf, PathBuf), String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("/proc is mounted");
    let found = mounts.lines().find_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let (kind, options) = filesystem.split_once(' ')?;
        let options = options.rsplit(' ').next()?;
        let mut fields = mount.split(' ').skip(3).map(PathBuf::from);
        let is_its = kind == "cgroup" && options.split(',').any(|option| option == controller);
        Some((fields.next()?, fields.next()?)).filter(|_| is_its)
    });
    found.ok_or_else(|| format!("no cgroup v1 hierarchy of the controller {controller} is mounted"))
}

/// The test's own cgroup; or what is missing.
fn own(controller: &str) -> Result<PathBuf, String> {
    let (root, mount_point) = mount(controller)?;
    let groups = fs::read_to_string("/proc/self/cgroup").expect("/proc is mounted");
    let group = groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let is_its = fields.next()?.split(',').any(|name| name == controller);
        fields.next().filter(|_| is_its)
    });
    let group = group.ok_or_else(|| format!("/proc/self/cgroup does not name the controller {controller}"))?;
    let below = Path::new(group).strip_prefix(&root).map_err(|_| {
        format!("the test's own cgroup {group} of {controller} is not below {}, which is mounted", root.display())
    })?;
    Ok(mount_point.join(below))
}
