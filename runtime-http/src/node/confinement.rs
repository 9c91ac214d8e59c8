//! What the process that compiles is kept from. A module may be made to exploit the compiler; what it could then reach is this process.
//!
//! | it has no | because of |
//! |---|---|
//! | files | a mount namespace in which there is nothing but an empty, read-only directory; no descriptors but the standard streams |
//! | network, System V objects, host name, cgroups | namespaces |
//! | other processes | a pid namespace, and a user of its own: no other process has that number |
//! | rights | no capabilities, and `no_new_privs` |
//! | memory, CPU time, processes, open files, output without end | limits of the process |
//!
//! What is left: reading the module, writing code, computing. A user of its own is as good as a user namespace here, and is there on nodes
//! that forbid those.

#![allow(unsafe_code, reason = "unshare(2) and close_range(2) change what other code could depend on")]

use std::{fs, io};

use rustix::{
    fs::Mode,
    mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount},
    process::{
        Gid, Resource, Rlimit, Signal, Uid, chdir, pivot_root, set_parent_process_death_signal, setpriority_process,
        setrlimit, umask,
    },
    thread::{
        UnshareFlags, set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid, unshare_unsafe,
    },
};

/// The numbers from here on belong to nobody: above those of containers, below those that are reserved (systemd, "Users, Groups, UIDs and
/// GIDs on systemd systems"). Process numbers are below 2^22.
const FIRST_USER: u32 = 0x7000_0000;
/// Any directory that each system has; nothing of it is seen.
const PLACE: &str = "/proc";
/// As for compile threads in a box.
const NICE: i32 = 10;

/// What the process may use.
#[derive(Debug, Clone, Copy)]
pub struct Allowance {
    /// Bytes of private memory. Not address space, of which the engine reserves much.
    pub memory: u64,
    pub cpu_seconds: u64,
    /// Bytes of code.
    pub output: u64,
}

#[derive(Debug, thiserror::Error)]
#[error("{step}: {source}")]
pub struct ConfinementError {
    step: &'static str,
    source: io::Error,
}

fn failed<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> ConfinementError {
    move |source| ConfinementError { step, source: source.into() }
}

/// For the process that starts it: ends with its own parent, is the first to go when memory is short, and its children see no processes
/// but themselves.
///
/// # Errors
/// [`ConfinementError`], without root's rights for one.
pub fn prepare() -> Result<(), ConfinementError> {
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(failed("prctl(PR_SET_PDEATHSIG)"))?;
    // Where it cannot be said, it is not worth failing.
    let _ = fs::write("/proc/self/oom_score_adj", "1000");
    let _ = setpriority_process(None, NICE);
    // SAFETY: it changes where children are made, and nothing of this process.
    unsafe { unshare_unsafe(UnshareFlags::NEWPID) }.map_err(failed("a pid namespace"))
}

/// The user of a child of the process `parent`.
pub fn user_of_child(parent: u32) -> u32 {
    FIRST_USER + parent
}

/// Confines this process, before it has threads, before it has opened anything, and before it has read anything that others wrote. There
/// is no way back.
///
/// # Errors
/// [`ConfinementError`]; the process must end then.
pub fn enter(user: u32, allowance: Allowance) -> Result<(), ConfinementError> {
    // What whoever started all this has left open is not for it.
    // SAFETY: the caller has opened nothing, so nobody owns a descriptor but the standard streams.
    if unsafe { libc::close_range(3, libc::c_uint::MAX, 0) } != 0 {
        return Err(ConfinementError { step: "close_range", source: io::Error::last_os_error() });
    }
    let namespaces = UnshareFlags::NEWNS
        | UnshareFlags::NEWNET
        | UnshareFlags::NEWIPC
        | UnshareFlags::NEWUTS
        | UnshareFlags::NEWCGROUP;
    // SAFETY: file descriptors stay shared with nobody; what these flags change is what is wanted.
    unsafe { unshare_unsafe(namespaces) }.map_err(failed("namespaces"))?;
    empty_root().map_err(failed("an empty root directory"))?;
    let threads = 64;
    for (resource, limit) in [
        (Resource::Data, allowance.memory),
        (Resource::Cpu, allowance.cpu_seconds),
        (Resource::Fsize, allowance.output),
        (Resource::Nproc, threads),
        (Resource::Nofile, 16),
        (Resource::Memlock, 0),
        (Resource::Stack, 8 << 20),
        (Resource::Core, 0),
    ] {
        let limit = Rlimit { current: Some(limit), maximum: Some(limit) };
        setrlimit(resource, limit).map_err(failed("limits"))?;
    }
    let (user, group) = (Uid::from_raw(user), Gid::from_raw(user));
    set_thread_groups(&[]).map_err(failed("groups"))?;
    set_thread_res_gid(group, group, group).map_err(failed("the group"))?;
    // Giving up root gives up its capabilities.
    set_thread_res_uid(user, user, user).map_err(failed("the user"))?;
    set_no_new_privs(true).map_err(failed("no_new_privs"))?;
    // Only now: a change of the user resets it.
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(failed("prctl(PR_SET_PDEATHSIG)"))
}

fn empty_root() -> rustix::io::Result<()> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("none", PLACE, "tmpfs", flags, c"size=4k,nr_inodes=2,mode=555")?;
    chdir(PLACE)?;
    // The old root is then above the new one, in the same place (pivot_root(2)).
    pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    umask(Mode::all());
    chdir("/")
}
