//! What the kernel tells of the container that this process is in: memory, CPU time, pressure.
//!
//! It is the container's cgroup where that can be read, as it can in nearly all containers, and else this process: the caller need not
//! care. It reads only; the limits of invocations are [`crate::cgroup`]'s.

use std::{path::Path, time::Duration};

use wasmbox_cgroup::{
    Cgroup, Version,
    file::{OpenFile, field},
    stats::pressure::Pressure,
};

const STATM: &str = "/proc/self/statm";

/// The container, its files open: readings are cheap (a `pread` each).
#[derive(Debug)]
pub struct Container {
    memory: MemorySource,
    cpu: CpuSource,
    pressure: Option<OpenFile>,
    /// Of the memory controller.
    cgroup: Option<Cgroup>,
}

/// Memory in use, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryUse {
    /// What is charged to the container less inactive file pages: as kubelet computes it.
    pub working_set: u64,
    /// That less active file pages, which the kernel takes back, too, before it kills.
    pub firm: u64,
}

#[derive(Debug)]
enum MemorySource {
    /// `memory.usage_in_bytes` or `memory.current`; `memory.stat`.
    Cgroup { usage: OpenFile, stat: OpenFile, prefix: &'static str },
    /// `/proc/self/statm`.
    Process { statm: OpenFile },
    /// Not even `/proc`.
    None,
}

#[derive(Debug)]
enum CpuSource {
    /// `cpuacct.usage`, nanoseconds.
    V1(OpenFile),
    /// `cpu.stat`, with `usage_usec`.
    V2(OpenFile),
    Process,
}

impl Container {
    /// Opens what can be read.
    pub fn open() -> Container {
        let memory_cgroup = Cgroup::own("memory").ok();
        let memory = memory_cgroup.as_ref().and_then(MemorySource::open).unwrap_or_else(|| {
            OpenFile::open(Path::new(STATM)).map_or(MemorySource::None, |statm| MemorySource::Process { statm })
        });
        let pressure = memory_cgroup
            .as_ref()
            .filter(|cgroup| cgroup.version == Version::V2)
            .and_then(|cgroup| OpenFile::open(&cgroup.path.join("memory.pressure")));
        Container { memory, cpu: CpuSource::open(), pressure, cgroup: memory_cgroup }
    }

    /// For a box that may use `limit` bytes: where that is less than the container may, others share the container, so the process is measured
    /// alone.
    pub fn for_limit(limit: u64) -> Container {
        let container = Container::open();
        let memory = match OpenFile::open(Path::new(STATM)) {
            Some(statm) if container.memory_limit().is_none_or(|container| limit < container) => {
                MemorySource::Process { statm }
            }
            Some(_) | None => container.memory,
        };
        Container { memory, ..container }
    }

    /// The container's memory limit now, if it has one: the least of its own and those above it that can be seen; bytes.
    pub fn memory_limit(&self) -> Option<u64> {
        self.cgroup.as_ref().and_then(Cgroup::memory_limit)
    }

    /// That, or the machine's memory, whichever is less.
    pub fn available_memory(&self) -> u64 {
        let system = rustix::system::sysinfo();
        let machine = system.totalram.saturating_mul(u64::from(system.mem_unit).max(1));
        self.memory_limit().map_or(machine, |limit| limit.min(machine))
    }

    /// The memory in use.
    pub fn memory(&self) -> Option<MemoryUse> {
        match &self.memory {
            MemorySource::Cgroup { usage, stat, prefix } => {
                let stat = stat.text()?;
                let cache = |name: &str| field(&stat, &format!("{prefix}{name}")).unwrap_or(0);
                let working_set = usage.number()?.saturating_sub(cache("inactive_file"));
                Some(MemoryUse { working_set, firm: working_set.saturating_sub(cache("active_file")) })
            }
            MemorySource::Process { statm } => {
                resident(statm).map(|resident| MemoryUse { working_set: resident, firm: resident })
            }
            MemorySource::None => None,
        }
    }

    /// [`MemoryUse::working_set`].
    pub fn working_set(&self) -> Option<u64> {
        self.memory().map(|memory| memory.working_set)
    }

    /// CPU time that the container's processes have used.
    pub fn cpu_time(&self) -> Option<Duration> {
        match &self.cpu {
            CpuSource::V1(usage) => usage.number().map(Duration::from_nanos),
            CpuSource::V2(stat) => field(&stat.text()?, "usage_usec").map(Duration::from_micros),
            CpuSource::Process => {
                let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
                Some(Duration::new(u64::try_from(time.tv_sec).ok()?, u32::try_from(time.tv_nsec).ok()?))
            }
        }
    }

    /// For how long some of the container's tasks have waited for memory, in sum since its start: `memory.pressure`, `some`, `total` (PSI,
    /// cgroup v2 only).
    pub fn memory_stall(&self) -> Option<Duration> {
        let text = self.pressure.as_ref()?.text()?;
        Pressure::parse(&text).some.map(|stall| Duration::from_micros(stall.total))
    }

    /// Where memory is read from, for people.
    pub fn memory_source(&self) -> &'static str {
        match &self.memory {
            MemorySource::Cgroup { .. } => "cgroup",
            MemorySource::Process { .. } => "process",
            MemorySource::None => "none",
        }
    }
}

impl MemorySource {
    fn open(cgroup: &Cgroup) -> Option<MemorySource> {
        let (usage, prefix) = match cgroup.version {
            Version::V1 => ("memory.usage_in_bytes", "total_"),
            Version::V2 => ("memory.current", ""),
        };
        Some(MemorySource::Cgroup {
            usage: OpenFile::open(&cgroup.path.join(usage))?,
            stat: OpenFile::open(&cgroup.path.join("memory.stat"))?,
            prefix,
        })
    }
}

impl CpuSource {
    fn open() -> CpuSource {
        let cgroup = Cgroup::own("cpuacct").or_else(|_| Cgroup::own("cpu"));
        let file = cgroup.ok().and_then(|cgroup| {
            if cgroup.is_machine() {
                return None;
            }
            Some(match cgroup.version {
                Version::V1 => CpuSource::V1(OpenFile::open(&cgroup.path.join("cpuacct.usage"))?),
                Version::V2 => {
                    let stat = OpenFile::open(&cgroup.path.join("cpu.stat"))?;
                    CpuSource::V2(stat)
                }
            })
        });
        file.unwrap_or(CpuSource::Process)
    }
}

/// Resident bytes of this process.
fn resident(statm: &OpenFile) -> Option<u64> {
    let pages: u64 = statm.text()?.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn something_is_known_of_every_container() {
        let container = Container::open();
        let MemoryUse { working_set, firm } = container.memory().unwrap();
        assert!(working_set > 1 << 20, "{working_set}");
        assert!(firm > 1 << 20 && firm <= working_set, "{firm}");
        let before = container.cpu_time().unwrap();
        let started = std::time::Instant::now();
        // This test uses some, when it has a core.
        while container.cpu_time().unwrap() <= before {
            assert!(started.elapsed() < Duration::from_secs(30), "it stays {before:?}");
        }
    }
}
