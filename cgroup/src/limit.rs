//! What a cgroup may use: the least of its own limits and of those above it that can be seen. `libcgroups` only sets limits.

use std::path::Path;

use crate::{
    directory::Cgroup,
    file::{field, number, text},
    hierarchy::Version,
};

/// v1 says "no limit" by a number close to 2^63.
const NO_LIMIT: u64 = 1 << 60;

impl Cgroup {
    /// Whether it is the root of its hierarchy: then it holds the machine, and not only a container. (The root of a cgroup namespace is not.)
    pub fn is_machine(&self) -> bool {
        match self.version {
            // cgroups(7): only there.
            Version::V1 => self.path.join("release_agent").exists(),
            // cgroup v2's document: everywhere but there.
            Version::V2 => !self.path.join("cgroup.type").exists(),
        }
    }

    /// Bytes; of a cgroup of the memory controller.
    pub fn memory_limit(&self) -> Option<u64> {
        match self.version {
            // It knows of those above it.
            Version::V1 => {
                let stat = text(&self.path.join("memory.stat"))?;
                field(&stat, "hierarchical_memory_limit").filter(|limit| *limit < NO_LIMIT)
            }
            Version::V2 => self
                .path
                .ancestors()
                .take_while(|path| path.join("cgroup.controllers").exists())
                .filter_map(|path| number(&path.join("memory.max")))
                .min(),
        }
    }

    /// Cores; of a cgroup of the cpu controller.
    pub fn cpu_limit(&self) -> Option<f64> {
        let limits: Vec<f64> = match self.version {
            Version::V1 => {
                let number = |text: String| text.trim().parse::<f64>().ok();
                let quotas = upwards(&self.path, "cpu.cfs_quota_us").map(number);
                let periods = upwards(&self.path, "cpu.cfs_period_us").map(number);
                // -1 is no limit.
                quotas
                    .zip(periods)
                    .filter_map(|(quota, period)| Some(quota.filter(|quota| *quota > 0.0)? / period?))
                    .collect()
            }
            Version::V2 => upwards(&self.path, "cpu.max")
                .filter_map(|text| {
                    let (quota, period) = text.trim().split_once(' ')?;
                    Some(quota.parse::<f64>().ok()? / period.parse::<f64>().ok()?)
                })
                .collect(),
        };
        limits.into_iter().reduce(f64::min)
    }

    /// Processes and threads; of a cgroup of the pids controller.
    pub fn pids_limit(&self) -> Option<u64> {
        upwards(&self.path, "pids.max").filter_map(|text| text.trim().parse().ok()).min()
    }
}

/// The file `name` of a cgroup and of those above it, as far as there is one.
fn upwards<'a>(cgroup: &'a Path, name: &'a str) -> impl Iterator<Item = String> + 'a {
    cgroup.ancestors().map_while(move |path| text(&path.join(name)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn write(directory: &Path, files: &[(&str, &str)]) {
        fs::create_dir_all(directory).unwrap();
        for (name, text) in files {
            fs::write(directory.join(name), text).unwrap();
        }
    }

    #[test]
    fn the_least_limit_on_the_way_up_counts() {
        let root = std::env::temp_dir().join(format!("wasmbox-cgroup-limit-{}", std::process::id()));
        let own = root.join("pod/container");
        let cgroup = |version| Cgroup { version, path: own.clone() };
        let limit = |version| cgroup(version).cpu_limit();
        write(&own, &[("cpu.max", "max 100000\n"), ("cpu.cfs_quota_us", "-1\n"), ("cpu.cfs_period_us", "100000\n")]);
        write(&own, &[("pids.max", "max\n"), ("memory.max", "max\n"), ("cgroup.controllers", "memory\n")]);
        assert_eq!((limit(Version::V1), limit(Version::V2)), (None, None));
        assert_eq!((cgroup(Version::V2).memory_limit(), cgroup(Version::V2).pids_limit()), (None, None));
        write(
            &root.join("pod"),
            &[("cpu.max", "150000 100000\n"), ("cpu.cfs_quota_us", "150000\n"), ("cpu.cfs_period_us", "100000\n")],
        );
        write(&root.join("pod"), &[("pids.max", "70\n"), ("memory.max", "4096\n"), ("cgroup.controllers", "memory\n")]);
        assert_eq!((limit(Version::V1), limit(Version::V2)), (Some(1.5), Some(1.5)));
        assert_eq!((cgroup(Version::V2).memory_limit(), cgroup(Version::V2).pids_limit()), (Some(4096), Some(70)));
        write(&own, &[("cpu.max", "5000 20000\n"), ("cpu.cfs_quota_us", "5000\n"), ("cpu.cfs_period_us", "20000\n")]);
        assert_eq!((limit(Version::V1), limit(Version::V2)), (Some(0.25), Some(0.25)));
        for (text, wanted) in [("9223372036854771712", None), ("8192", Some(8192))] {
            write(&own, &[("memory.stat", &format!("cache 1\nhierarchical_memory_limit {text}\n"))]);
            assert_eq!(cgroup(Version::V1).memory_limit(), wanted);
        }
        fs::remove_dir_all(root).unwrap();
    }
}
