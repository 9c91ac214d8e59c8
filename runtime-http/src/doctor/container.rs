//! The container: which cgroups govern this process, and what they limit.

use std::{fs, path::Path};

use libcgroups::common::{CgroupSetup, get_cgroup_setup};

use super::Finding;
use crate::{
    cgroup::{
        CgroupSettings, Enable,
        hierarchy::{Cgroup, Version},
        root::{self, Impossible, Remedy},
    },
    config::Config,
    container::Container,
    status::screen::bytes,
};

/// Threads beside the workers.
const OTHER_THREADS: u64 = 64;
const ANOTHER_MOUNT: &str =
    "mount the container's cgroup at /sys/fs/cgroup; without it a box reads its own process's use";

/// How the host is set up, and where this process is in it.
pub fn cgroups(_: &Config) -> Finding {
    let setup = match get_cgroup_setup() {
        Ok(CgroupSetup::Legacy) => "v1",
        Ok(CgroupSetup::Hybrid) => "hybrid (v1 and v2)",
        Ok(CgroupSetup::Unified) => "v2",
        Err(_) => "unknown",
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
    match Cgroup::own("cpu").ok().and_then(|cgroup| cpu_limit(&cgroup)) {
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
    let least = Cgroup::own("pids")
        .ok()
        .and_then(|cgroup| upwards(&cgroup.path, "pids.max").filter_map(|text| text.trim().parse::<u64>().ok()).min());
    match least {
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

/// Cores: the least on the way up.
pub fn cpu_limit(cgroup: &Cgroup) -> Option<f64> {
    let limits: Vec<f64> = match cgroup.version {
        Version::V1 => {
            let number = |text: String| text.trim().parse::<f64>().ok();
            let quotas = upwards(&cgroup.path, "cpu.cfs_quota_us").map(number);
            let periods = upwards(&cgroup.path, "cpu.cfs_period_us").map(number);
            // -1 is no limit.
            quotas
                .zip(periods)
                .filter_map(|(quota, period)| Some(quota.filter(|quota| *quota > 0.0)? / period?))
                .collect()
        }
        Version::V2 => upwards(&cgroup.path, "cpu.max")
            .filter_map(|text| {
                let (quota, period) = text.trim().split_once(' ')?;
                Some(quota.parse::<f64>().ok()? / period.parse::<f64>().ok()?)
            })
            .collect(),
    };
    limits.into_iter().reduce(f64::min)
}

/// The file `name` of a cgroup and of those above it, as far as there is one.
fn upwards<'a>(cgroup: &'a Path, name: &'a str) -> impl Iterator<Item = String> + 'a {
    cgroup.ancestors().map_while(move |path| fs::read_to_string(path.join(name)).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(directory: &Path, files: &[(&str, &str)]) {
        fs::create_dir_all(directory).unwrap();
        for (name, text) in files {
            fs::write(directory.join(name), text).unwrap();
        }
    }

    #[test]
    fn the_least_cpu_limit_on_the_way_up_counts() {
        let root = std::env::temp_dir().join(format!("wasmbox-doctor-{}", std::process::id()));
        let own = root.join("pod/container");
        let limit = |version| cpu_limit(&Cgroup { version, path: own.clone() });
        write(&own, &[("cpu.max", "max 100000\n"), ("cpu.cfs_quota_us", "-1\n"), ("cpu.cfs_period_us", "100000\n")]);
        assert_eq!((limit(Version::V1), limit(Version::V2)), (None, None));
        write(
            &root.join("pod"),
            &[("cpu.max", "150000 100000\n"), ("cpu.cfs_quota_us", "150000\n"), ("cpu.cfs_period_us", "100000\n")],
        );
        assert_eq!((limit(Version::V1), limit(Version::V2)), (Some(1.5), Some(1.5)));
        write(&own, &[("cpu.max", "5000 20000\n"), ("cpu.cfs_quota_us", "5000\n"), ("cpu.cfs_period_us", "20000\n")]);
        assert_eq!((limit(Version::V1), limit(Version::V2)), (Some(0.25), Some(0.25)));
        fs::remove_dir_all(root).unwrap();
    }
}
