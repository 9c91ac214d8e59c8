//! The container: which cgroups govern this process, and what they limit.

use std::path::Path;

use wasmbox_cgroup::{
    Cgroup, Version,
    hierarchy::{self, CgroupSetup},
};

use super::Finding;
use crate::{
    cgroup::{
        CgroupSettings, Enable,
        root::{self, Impossible, Remedy},
    },
    config::Config,
    container::Container,
    terminal::status_screen::bytes,
};

/// Threads beside the workers.
const OTHER_THREADS: u64 = 64;
const ANOTHER_MOUNT: &str =
    "mount the container's cgroup at /sys/fs/cgroup; without it a box reads its own process's use";

/// How the host is set up, and where this process is in it.
pub fn cgroups(_: &Config) -> Finding {
    let setup = match hierarchy::setup() {
        Some(CgroupSetup::Legacy) => "v1",
        Some(CgroupSetup::Hybrid) => "hybrid (v1 and v2)",
        Some(CgroupSetup::Unified) => "v2",
        None => "unknown",
    };
    match Cgroup::own("cpu") {
        Ok(cgroup) => {
            let version = match cgroup.version {
                Version::V1 => "v1",
                Version::V2 => "v2",
            };
            Finding::ok(format!("set-up {setup}; CPU by {version} at {}", cgroup.path.display()))
        }
        Err(error) => Finding::warn(format!("set-up {setup}; {error}"), ANOTHER_MOUNT),
    }
}

/// Makes a leaf, sets a quota, joins and leaves it, and removes it, as a box does at its start.
pub fn quotas(config: &Config) -> Finding {
    let CgroupSettings { enable, root, pod_uid, .. } = &config.cgroup;
    let trouble = match enable {
        Enable::False => return Finding::ok("Cpu-Quota is not enforced, as configured"),
        Enable::Auto => Finding::warn,
        Enable::True => Finding::fail,
    };
    match root::find(root.as_deref(), pod_uid.as_deref()) {
        Ok(root) => Finding::ok(format!("Cpu-Quota is enforced by cgroups in {}", root.path.display())),
        Err(Impossible::Step { error, remedy }) => trouble(error.to_string(), remedy.to_string()),
        Err(error @ (Impossible::NotFound(_) | Impossible::Thread(_))) => {
            trouble(error.to_string(), Remedy::Other.to_string())
        }
    }
}

pub fn memory(config: &Config) -> Finding {
    let container = Container::for_limit(config.thresholds.memory_limit);
    let Some(used) = container.working_set() else {
        return Finding::warn("its use cannot be read", "mount /proc and the container's cgroup");
    };
    let source = container.memory_source();
    match container.memory_limit() {
        Some(limit) if config.asked_memory_limit.is_some_and(|asked| asked > limit) => Finding::warn(
            format!(
                "--memory-limit is {}, the container's is {}, which counts",
                bytes(config.asked_memory_limit.unwrap_or(limit)),
                bytes(limit)
            ),
            "lower --memory-limit (MEMORY_LIMIT) or leave it out",
        ),
        Some(limit) => Finding::ok(format!("{} of {} in use ({source})", bytes(used), bytes(limit))),
        None => Finding::ok(format!(
            "{} in use ({source}), no limit of the container's; the box's is {}",
            bytes(used),
            bytes(config.thresholds.memory_limit)
        )),
    }
}

pub fn cpu(_: &Config) -> Finding {
    // Not `available_parallelism`: that is lowered to the limit already.
    let cores = rustix::thread::sched_getaffinity(None).map_or(1, |cpus| cpus.count());
    match Cgroup::own("cpu").ok().and_then(|cgroup| cgroup.cpu_limit()) {
        Some(limit) if limit < 1.0 => Finding::warn(
            format!("{limit:.2} of {cores} cores: functions, compiler and server share less than one"),
            "raise the container's CPU limit",
        ),
        Some(limit) => Finding::ok(format!("{limit:.2} of {cores} cores")),
        None => Finding::ok(format!("{cores} cores, no limit of the container's")),
    }
}

/// Workers are threads, and threads count as processes.
pub fn threads(config: &Config) -> Finding {
    let needed = u64::from(config.engine.invocations) + OTHER_THREADS;
    match Cgroup::own("pids").ok().and_then(|cgroup| cgroup.pids_limit()) {
        Some(most) if most < needed => Finding::warn(
            format!("at most {most}, {} invocations at once need {needed}", config.engine.invocations),
            "raise the container's limit on pids, or lower --max-invocations",
        ),
        Some(most) => Finding::ok(format!("at most {most}")),
        None => Finding::ok("no limit of the container's"),
    }
}

pub fn pressure(_: &Config) -> Finding {
    if Container::open().memory_stall().is_some() {
        return Finding::ok("memory.pressure of the container can be read");
    }
    let found = if Path::new("/proc/pressure/memory").exists() {
        "the kernel measures memory pressure, but not for this container"
    } else {
        "the kernel does not measure memory pressure"
    };
    Finding::warn(found, "use cgroup v2 and a kernel with PSI (boot with psi=1); without it, only use is looked at")
}
