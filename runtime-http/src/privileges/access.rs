//! Which files and TCP ports the box can still reach, by Landlock (kernel: userspace-api/landlock).
//!
//! A rule is for a file or directory that is there now, and for what is below it whatever happens to it. What takes the place of such a
//! directory later has no rule: the functions directory can be filled and emptied, but not be replaced itself, unless it is a link that is
//! switched to another directory beside it.

use std::{
    fs::{self, DirBuilder},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, NetPort, PathBeneath, PathFd, RestrictionStatus, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetError, Scope,
};
use procfs::process::{MMapPath, Process};
use wasmbox_cgroup::hierarchy::CgroupMounts;

use crate::{
    cgroup::root,
    config::{CacheDir, Config, places::default_cache_dir},
    invocation::{Host, OutboundGrant},
    keyvalue::place::RedisUrl,
};

/// Whatever of it a kernel knows is asked for.
const NEWEST: ABI = ABI::V9;

/// What describes this process and machine. Not the processes beside it.
const SYSTEM: &[&str] = &[
    "/proc/self",
    "/proc/sys/kernel/random/boot_id",
    "/proc/sys/vm",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
    "/sys/devices/system/cpu",
    "/sys/kernel/mm",
];
/// By which the C library finds addresses of names.
const NAMES: &[&str] =
    &["/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/host.conf", "/etc/gai.conf", "/etc/services"];
/// Where systemd and others put what `/etc/resolv.conf` is a link to; it is replaced whenever the network changes.
const VOLATILE: &str = "/run";
const DNS: u16 = 53;

/// Restricts this thread, and those that it starts.
///
/// # Errors
/// If the kernel refuses the rules; not if it has no Landlock, which the status tells.
pub fn restrict(config: &Config) -> Result<(RestrictionStatus, Vec<PathFd>), RulesetError> {
    let ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?;
    let mut rules = Rules { ruleset, held: Vec::new() };
    for (path, access) in files(config) {
        rules.allow(&path, access)?;
    }
    let Rules { ruleset, held } = rules;
    let ruleset =
        ruleset.add_rules(ports(config).map(|(port, access)| Ok::<_, RulesetError>(NetPort::new(port, access))))?;
    Ok((ruleset.restrict_self()?, held))
}

struct Rules {
    ruleset: RulesetCreated,
    held: Vec<PathFd>,
}

impl Rules {
    /// Does nothing if there is no such file: whoever needs it says so later.
    fn allow(&mut self, path: &Path, access: BitFlags<AccessFs>) -> Result<(), RulesetError> {
        let Ok(file) = PathFd::new(path) else { return Ok(()) };
        let access = if path.is_dir() { access } else { access & AccessFs::from_file(NEWEST) };
        (&mut self.ruleset).add_rule(PathBeneath::new(&file, access))?;
        if path.starts_with("/proc") {
            self.held.push(file);
        }
        Ok(())
    }
}

/// What can be reached, and how.
fn files(config: &Config) -> Vec<(PathBuf, BitFlags<AccessFs>)> {
    let read: BitFlags<AccessFs> = AccessFs::ReadFile | AccessFs::ReadDir;
    // What is executed, or is no file, is none of a guest's business.
    let write = AccessFs::from_all(NEWEST)
        & !(AccessFs::Execute
            | AccessFs::MakeChar
            | AccessFs::MakeBlock
            | AccessFs::MakeSock
            | AccessFs::MakeFifo
            | AccessFs::IoctlDev
            | AccessFs::ResolveUnix);
    let code = AccessFs::ReadFile | AccessFs::Execute;
    // Who may put functions here has the box write them.
    let functions = if config.uploads.token_file.is_some() { write } else { read };
    let mut files = vec![
        (config.functions_dir.clone(), functions),
        ("/dev/null".into(), AccessFs::ReadFile | AccessFs::WriteFile),
        // A static binary reads random numbers from the latter, when the former says that there are some.
        ("/dev/random".into(), read),
        ("/dev/urandom".into(), read),
    ];
    files.extend(beside_link(&config.functions_dir).map(|directory| (directory, functions)));
    files.extend(cache_dir(config).map(|path| (path, write)));
    files.extend(config.keyvalue.directory().map(|path| (path.clone(), write)));
    if let Some(node) = &config.node {
        files.push((node.cache_dir.clone(), read));
        // The service makes its socket anew when it is started anew.
        files.extend(
            node.compile_socket
                .as_deref()
                .and_then(Path::parent)
                .map(|path| (path.to_owned(), AccessFs::ResolveUnix.into())),
        );
    }
    files.extend(config.preopen_roots.iter().map(|root| (root.clone(), write)));
    files.extend(SYSTEM.iter().map(|path| (path.into(), read)));
    // A child that may be killed first when memory is short has this from its parent.
    files.push(("/proc/self/oom_score_adj".into(), AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate));
    // The container's use of memory and CPU time is read there, and that of those above it.
    files.extend(cgroup_mounts().into_iter().map(|path| (path, read)));
    files.extend(
        root::place(config.cgroup.root.as_deref(), config.cgroup.pod_uid.as_deref())
            .ok()
            .map(|cgroup| (cgroup.path, write)),
    );
    files.extend(own_code().map(|path| (path, code)));
    if names_are_looked_up(config) {
        files.extend(NAMES.iter().map(|path| (path.into(), read)));
        let linked = fs::canonicalize(NAMES[0]).ok().filter(|path| path.starts_with(VOLATILE));
        files.extend(linked.as_deref().and_then(Path::parent).map(|directory| (directory.to_owned(), read)));
    }
    files
}

/// The directory of a link that leads to something beside or below it, as tools have it that switch from one version of all functions to the
/// next (git-sync): the next one has no rule of its own yet.
fn beside_link(path: &Path) -> Option<PathBuf> {
    fs::read_link(path).ok()?;
    let directory = path.parent()?.canonicalize().ok().filter(|directory| directory.parent().is_some())?;
    path.canonicalize().ok()?.starts_with(&directory).then_some(directory)
}

/// Makes the directories of the box's own that are not there: a rule needs them. Whether they can be used is for their owners to say.
pub fn make_directories(config: &Config) {
    for path in cache_dir(config).iter().chain(config.keyvalue.directory()) {
        let _ = DirBuilder::new().recursive(true).mode(0o700).create(path);
    }
}

fn cache_dir(config: &Config) -> Option<PathBuf> {
    match &config.cache_dir {
        Some(CacheDir::None) => None,
        Some(CacheDir::Path(path)) => Some(path.clone()),
        None if config.node.is_some() => None,
        None => default_cache_dir(),
    }
}

fn cgroup_mounts() -> Vec<PathBuf> {
    CgroupMounts::read().map(|mounts| mounts.points().map(Path::to_owned).collect()).unwrap_or_default()
}

/// The files that this process is made of: the binary and, unless it is a static one, the loader and libraries. The process that compiles is
/// made of the same.
fn own_code() -> impl Iterator<Item = PathBuf> {
    let maps = Process::myself().and_then(|process| process.maps()).map(|maps| maps.0).unwrap_or_default();
    let mut paths: Vec<PathBuf> = maps
        .into_iter()
        .filter_map(|map| match map.pathname {
            MMapPath::Path(path) => Some(path),
            _ => None,
        })
        .chain(["/proc/self/exe".into(), "/etc/ld.so.cache".into()])
        .collect();
    paths.sort_unstable();
    paths.dedup();
    paths.into_iter()
}

fn names_are_looked_up(config: &Config) -> bool {
    let is_name = |host: &str| host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_err();
    config.outbound.allow.iter().any(OutboundGrant::has_names)
        || config.reporter.as_ref().is_some_and(|reporter| is_name(&reporter.host))
        || config.keyvalue.redis().is_some_and(|redis| is_name(redis.host()))
        || config.traces.as_ref().is_some_and(|traces| matches!(traces.endpoint.host, Host::Name(_)))
}

/// Both own ports, and those of others that guests or reports go to.
fn ports(config: &Config) -> impl Iterator<Item = (u16, AccessNet)> {
    let own = [config.port, config.admin_port].map(|port| (port, AccessNet::BindTcp));
    let outbound = config.outbound.allow.iter().map(OutboundGrant::port);
    let others = outbound
        .chain(config.reporter.as_ref().map(|reporter| reporter.port))
        .chain(config.keyvalue.redis().map(RedisUrl::port))
        .chain(config.traces.as_ref().map(|traces| traces.endpoint.port));
    let names = names_are_looked_up(config).then_some(DNS);
    own.into_iter().chain(others.chain(names).map(|port| (port, AccessNet::ConnectTcp)))
}
