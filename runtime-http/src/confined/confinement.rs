//! What the process that compiles is kept from. A module may be made to exploit the compiler; what it could then reach is this process.
//!
//! | it has no | because of |
//! |---|---|
//! | files | [system calls](super::syscalls), and Landlock where the kernel has it; no descriptors but the standard streams, and no more of them |
//! | network, other processes, threads | the same |
//! | rights | no capabilities, and `no_new_privs` |
//! | memory, CPU time, output without end | limits of the process; system calls that make memory which they do not count are not there |
//!
//! That takes no right at all, so it is there in any container. The node's compile service, which is root, adds a user of its own and
//! namespaces, in which there is nothing but an empty, read-only directory.
//!
//! What is left: reading the module, writing code, computing. A user of its own is as good as a user namespace here, and is there on nodes
//! that forbid those.

#![allow(unsafe_code, reason = "unshare(2) and close_range(2) change what other code could depend on")]

use std::{fs, io, num::NonZeroI32};

use rustix::{
    fs::Mode,
    mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount},
    process::{
        Gid, Pid, Resource, Rlimit, Signal, Uid, chdir, getppid, getrlimit, pivot_root,
        set_parent_process_death_signal, setpriority_process, setrlimit, umask,
    },
    thread::{
        CapabilitySet, CapabilitySets, UnshareFlags, set_capabilities, set_no_new_privs, set_thread_groups,
        set_thread_res_gid, set_thread_res_uid, unshare_unsafe,
    },
};

use super::CompileConfinedArgs;

/// The numbers from here on belong to nobody: above those of containers, below those that are reserved (systemd, "Users, Groups, UIDs and
/// GIDs on systemd systems"). Process numbers are below 2^22.
const FIRST_USER: u32 = 0x7000_0000;
/// Any directory that each system has; nothing of it is seen.
const PLACE: &str = "/proc";
/// A warm function gets about ten times its share of a busy core.
const NICE: i32 = 10;
/// And who compiles what nobody waits for a third of that of others.
const NICE_LATER: i32 = 15;

#[derive(Debug, thiserror::Error)]
pub enum ConfinementError {
    #[error("{step}: {source}")]
    Step { step: &'static str, source: io::Error },
    #[error("who started it has ended")]
    Orphaned,
    #[error("Landlock: {0}")]
    Landlock(#[from] landlock::RulesetError),
}

fn failed<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> ConfinementError {
    move |source| ConfinementError::Step { step, source: source.into() }
}

/// For the compile service: ends with its own parent, is the first to go when memory is short, and its children see no processes but
/// themselves.
///
/// # Errors
/// [`ConfinementError`], without root's rights for one.
pub fn prepare() -> Result<(), ConfinementError> {
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(failed("prctl(PR_SET_PDEATHSIG)"))?;
    yield_to_others(NICE);
    // SAFETY: it changes where children are made, and nothing of this process.
    unsafe { unshare_unsafe(UnshareFlags::NEWPID) }.map_err(failed("a pid namespace"))
}

/// First to be killed when memory is short, last to get a core. Where it cannot be said, it is not worth failing.
fn yield_to_others(nice: i32) {
    let _ = fs::write("/proc/self/oom_score_adj", "1000");
    let _ = setpriority_process(None, nice);
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
pub fn enter(arguments: &CompileConfinedArgs) -> Result<(), ConfinementError> {
    yield_to_others(if arguments.later { NICE_LATER } else { NICE });
    // What whoever started all this has left open is not for it. Where the call is not there, or forbidden, it is closed by `exec` all the
    // same.
    // SAFETY: the caller has opened nothing, so nobody owns a descriptor but the standard streams.
    let _ = unsafe { libc::close_range(3, libc::c_uint::MAX, 0) };
    if arguments.user.is_some() {
        let namespaces = UnshareFlags::NEWNS
            | UnshareFlags::NEWNET
            | UnshareFlags::NEWIPC
            | UnshareFlags::NEWUTS
            | UnshareFlags::NEWCGROUP;
        // SAFETY: file descriptors stay shared with nobody; what these flags change is what is wanted.
        unsafe { unshare_unsafe(namespaces) }.map_err(failed("namespaces"))?;
        empty_root().map_err(failed("an empty root directory"))?;
    }
    for (resource, limit) in [
        // Private memory. Not address space, of which the engine reserves much.
        (Resource::Data, arguments.memory),
        (Resource::Fsize, arguments.code),
        (Resource::Memlock, 0),
        (Resource::Stack, 8 << 20),
        (Resource::Core, 0),
    ] {
        limit_to(resource, limit, limit)?;
    }
    // At the soft limit comes SIGXCPU, which says why it ended; at the hard one SIGKILL, as from anybody.
    limit_to(Resource::Cpu, arguments.cpu_seconds, arguments.cpu_seconds.saturating_add(1))?;
    if let Some(user) = arguments.user {
        let (user, group) = (Uid::from_raw(user), Gid::from_raw(user));
        set_thread_groups(&[]).map_err(failed("groups"))?;
        set_thread_res_gid(group, group, group).map_err(failed("the group"))?;
        set_thread_res_uid(user, user, user).map_err(failed("the user"))?;
    }
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
        .map_err(failed("capabilities"))?;
    set_no_new_privs(true).map_err(failed("no_new_privs"))?;
    // Only now: a change of the user resets it.
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(failed("prctl(PR_SET_PDEATHSIG)"))?;
    if arguments.parent.is_some_and(|parent| getppid().map(Pid::as_raw_nonzero) != NonZeroI32::new(parent)) {
        return Err(ConfinementError::Orphaned);
    }
    landlock()
}

/// The rest, once the process has all its threads and descriptors.
///
/// # Errors
/// [`ConfinementError`]; the process must end then.
pub fn enclose() -> Result<(), ConfinementError> {
    limit_to(Resource::Nproc, 0, 0)?;
    limit_to(Resource::Nofile, 0, 0)
}

fn limit_to(resource: Resource, soft: u64, hard: u64) -> Result<(), ConfinementError> {
    // What the container forbids already stays forbidden.
    let most = getrlimit(resource).maximum;
    let [soft, hard] = [soft, hard].map(|limit| Some(most.map_or(limit, |most| most.min(limit))));
    setrlimit(resource, Rlimit { current: soft, maximum: hard }).map_err(failed("limits"))
}

/// Refuses each way to files, ports, abstract sockets and signals that the kernel knows rules for; threads that start later inherit it.
fn landlock() -> Result<(), ConfinementError> {
    use landlock::{ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, Scope};
    const NEWEST: ABI = ABI::V6;
    // Each as far as the kernel has it.
    let ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?;
    ruleset.create()?.restrict_self()?;
    Ok(())
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
