//! A container, as far as cgroups go: what the runtime makes of it, and what the one process in it may do.

use std::{fs, os::unix::fs::chown, path::PathBuf, process::Command};

use wasmbox_tests::{WasmBox, server::Launch};

use crate::cgroup::Cgroup;

/// Where a container finds the cgroup that it may divide.
pub const DELEGATED: &str = "/run/wasmbox/cgroup";

/// What the runtime does between the container's cgroup and its process, with the words: cgroup, user, program, arguments.
/// The container sees its own cgroup read-only as /sys/fs/cgroup, and the delegated one below, if there is one, writable.
const RUNTIME: &str = r#"
set -e
cgroup=$1; user=$2; program=$3; shift 3
mkdir -p /run/wasmbox/cgroup
if [ -d "$cgroup/box" ]; then
    mount --bind "$cgroup/box" /run/wasmbox/cgroup
    mount -o remount,bind,nosuid,nodev,noexec /run/wasmbox/cgroup
fi
touch /run/wasmbox/program
mount --bind "$program" /run/wasmbox/program
umount /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -o remount,bind,ro /sys/fs/cgroup
mount -o remount,bind,ro /
exec setpriv --reuid "$user" --regid "$user" --clear-groups --inh-caps=-all --bounding-set=-all --no-new-privs \
    /run/wasmbox/program "$@"
"#;

/// A container's cgroup, which is removed when this is dropped, and the user that its process runs as.
pub struct Container {
    // The child goes first.
    delegated: Option<Cgroup>,
    cgroup: Cgroup,
    user: Option<u32>,
}

impl Container {
    /// No container but a host, where root may write everything.
    pub fn host(name: &str) -> Container {
        Container { delegated: None, cgroup: Cgroup::container(name), user: None }
    }

    /// Its process may divide nothing.
    pub fn closed(name: &str, user: u32) -> Container {
        Container { delegated: None, cgroup: Cgroup::container(name), user: Some(user) }
    }

    /// Its process may divide the cgroup that is bound at [`DELEGATED`], as the shim makes it.
    pub fn delegated(name: &str, user: u32) -> Container {
        let cgroup = Cgroup::container(name);
        let delegated = cgroup.leaf("box");
        for divided in [&cgroup, &delegated] {
            divided.write("cgroup.subtree_control", "+cpu").expect("the CPU is divided");
        }
        if user != 0 {
            let entries = fs::read_dir(delegated.path()).expect("a directory");
            let files = entries.map(|entry| entry.expect("an entry").path());
            // The kernel asks for the right to write the common ancestor's processes, too.
            for path in files.chain([delegated.path().to_owned(), cgroup.path().join("cgroup.procs")]) {
                chown(path, Some(user), Some(user)).expect("root may give files away");
            }
        }
        Container { delegated: Some(delegated), cgroup, user: Some(user) }
    }

    pub fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// What becomes the container's process; program and arguments are to be appended.
    fn runtime(&self) -> Vec<String> {
        let Some(user) = self.user else { return Vec::new() };
        let cgroup = self.cgroup.path().display().to_string();
        let words = ["/usr/bin/unshare", "--mount", "--cgroup", "--propagation", "private", "/bin/sh", "-c", RUNTIME];
        words.map(str::to_owned).into_iter().chain(["runtime".into(), cgroup, user.to_string()]).collect()
    }

    /// Runs a shell's script in it; gives what it prints.
    ///
    /// # Panics
    /// If it fails.
    pub fn sh(&self, script: &str) -> String {
        let runtime = self.runtime();
        let entered = self.cgroup.enter();
        let output = Command::new(&runtime[0]).args(&runtime[1..]).args(["/bin/sh", "-c", script]).output();
        drop(entered);
        let output = output.expect("unshare, of the package util-linux, runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// Prepares a box for this container.
    #[must_use]
    pub fn prepare(&self, launch: Launch) -> Launch {
        for path in [launch.directory().to_owned(), launch.functions(), launch.cache()] {
            chown(path, self.user, self.user).expect("root may give files away");
        }
        launch.through(self.runtime())
    }

    /// Starts a box in it.
    pub fn start(&self, launch: Launch) -> WasmBox {
        let _entered = self.cgroup.enter();
        self.prepare(launch).start()
    }

    /// Starts a box again that was in it.
    pub fn restart(&self, server: WasmBox) -> WasmBox {
        let _entered = self.cgroup.enter();
        server.stop().start()
    }

    /// The cgroups that the box has made.
    pub fn leaves(&self) -> Vec<PathBuf> {
        let mut leaves = self.cgroup.below();
        leaves.retain(|path| self.delegated.as_ref().is_none_or(|delegated| path != delegated.path()));
        leaves
    }
}
