//! How CPU limits are enforced.

use std::path::PathBuf;

use super::{ConfigError, settings::settings, within};
use crate::{
    cgroup::{self, CgroupSettings},
    limits::ConfigDuration,
};

settings! {
    /// How CPU limits are enforced.
    pub struct CpuSettings {
        /// Enforce Cpu-Quota with cgroups; auto: where it is possible [default: auto]
        #[arg(long, value_name = "WHETHER", num_args = 0..=1, default_missing_value = "true")]
        enable_cgroups: cgroup::Enable = ["ENABLE_CGROUPS"],
        /// Run each invocation in its worker's cgroup, or in a fresh one (slow; for comparison) [default: pinned]
        #[arg(long, value_name = "MODE")]
        cgroup_mode: cgroup::Mode = ["CGROUP_MODE"],
        /// Cgroup of the cpu controller in which workers' cgroups are made [default: /run/wasmbox/cgroup, else the host's at /data, else the box's own]
        #[arg(long, value_name = "DIR")]
        cgroup_root: PathBuf = ["CGROUP_ROOT"],
        /// Period of CPU quotas, 1 to 1000 ms: shorter ones spread a function's CPU time more evenly, longer ones let short functions through at once [default: 100]
        #[arg(long, value_name = "TIME")]
        cpu_period: ConfigDuration = ["CPU_PERIOD"],
        /// Uid of this box's pod, by which its cgroup is found among the host's at /data
        #[arg(long, value_name = "UID")]
        pod_uid: String = ["POD_UID"],
    }
}

impl CpuSettings {
    pub(super) fn resolve(self) -> Result<CgroupSettings, ConfigError> {
        let period = self.cpu_period.map_or(cgroup::DEFAULT_PERIOD, ConfigDuration::duration);
        within("--cpu-period", u64::try_from(period.as_millis()).unwrap_or(u64::MAX), 1, 1000)?;
        Ok(CgroupSettings {
            enable: self.enable_cgroups.unwrap_or(cgroup::Enable::Auto),
            mode: self.cgroup_mode.unwrap_or(cgroup::Mode::Pinned),
            root: self.cgroup_root,
            pod_uid: self.pod_uid,
            period,
        })
    }
}
