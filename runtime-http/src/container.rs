//! What the kernel tells of the container that this process is in: memory, CPU time, pressure.
//!
//! It is the container's cgroup where that can be read, as it can in nearly all containers, and else this process: the caller need not
//! care. It reads only; the limits of invocations are [`crate::cgroup`]'s.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::Path,
    time::Duration,
};

use crate::cgroup::hierarchy::{Cgroup, Version};

/// v1 says "no limit" by a number close to 2^63.
const NO_LIMIT: u64 = 1 << 60;

/// The container, its files open: readings are cheap (a `pread` each).
#[derive(Debug)]
pub struct Container {
    memory: MemorySource,
    cpu: CpuSource,
    pressure: Option<File>,
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
    Cgroup { usage: File, stat: File, prefix: &'static str },
    /// `/proc/self/statm`.
    Process { statm: File },
    /// Not even `/proc`.
    None,
}

#[derive(Debug)]
enum CpuSource {
    /// `cpuacct.usage`, nanoseconds.
    V1(File),
    /// `cpu.stat`, with `usage_usec`.
    V2(File),
    Process,
}

impl Container {
    /// Opens what can be read.
    pub fn open() -> Container {
        let memory_cgroup = Cgroup::own("memory").ok();
        let memory = memory_cgroup.as_ref().and_then(MemorySource::open).unwrap_or_else(|| {
            File::open("/proc/self/statm").map_or(MemorySource::None, |statm| MemorySource::Process { statm })
        });
        let pressure = memory_cgroup
            .as_ref()
            .filter(|cgroup| cgroup.version == Version::V2)
            .and_then(|cgroup| readable(&cgroup.path.join("memory.pressure")));
        Container { memory, cpu: CpuSource::open(), pressure, cgroup: memory_cgroup }
    }

    /// For a box that may use `limit` bytes: where that is less than the container may, others share the container, so the process is measured
    /// alone.
    pub fn for_limit(limit: u64) -> Container {
        let container = Container::open();
        let memory = match File::open("/proc/self/statm") {
            Ok(statm) if container.memory_limit().is_none_or(|container| limit < container) => {
                MemorySource::Process { statm }
            }
            Ok(_) | Err(_) => container.memory,
        };
        Container { memory, ..container }
    }

    /// The container's memory limit now, if it has one: the least of its own and those above it that can be seen; bytes.
    pub fn memory_limit(&self) -> Option<u64> {
        self.cgroup.as_ref().and_then(limit)
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
                let stat = read(stat)?;
                let cache = |name: &str| field(&stat, &format!("{prefix}{name}")).unwrap_or(0);
                let working_set = number(usage)?.saturating_sub(cache("inactive_file"));
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
            CpuSource::V1(usage) => number(usage).map(Duration::from_nanos),
            CpuSource::V2(stat) => field(&read(stat)?, "usage_usec").map(Duration::from_micros),
            CpuSource::Process => {
                let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
                Some(Duration::new(u64::try_from(time.tv_sec).ok()?, u32::try_from(time.tv_nsec).ok()?))
            }
        }
    }

    /// For how long some of the container's tasks have waited for memory, in sum since its start: `memory.pressure`, `some`, `total` (PSI,
    /// cgroup v2 only).
    pub fn memory_stall(&self) -> Option<Duration> {
        let text = read(self.pressure.as_ref()?)?;
        let some = text.lines().find(|line| line.starts_with("some"))?;
        let total = some.split(' ').find_map(|part| part.strip_prefix("total="))?;
        total.parse().ok().map(Duration::from_micros)
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
            usage: readable(&cgroup.path.join(usage))?,
            stat: readable(&cgroup.path.join("memory.stat"))?,
            prefix,
        })
    }
}

impl CpuSource {
    fn open() -> CpuSource {
        let cgroup = Cgroup::own("cpuacct").or_else(|_| Cgroup::own("cpu"));
        let file = cgroup.ok().and_then(|cgroup| {
            if is_machine(&cgroup) {
                return None;
            }
            Some(match cgroup.version {
                Version::V1 => CpuSource::V1(readable(&cgroup.path.join("cpuacct.usage"))?),
                Version::V2 => {
                    let stat = readable(&cgroup.path.join("cpu.stat"))?;
                    CpuSource::V2(stat)
                }
            })
        });
        file.unwrap_or(CpuSource::Process)
    }
}

/// Whether it is the root of its hierarchy: then it holds the machine, and not only this container. (The root of a cgroup namespace is not.)
fn is_machine(cgroup: &Cgroup) -> bool {
    match cgroup.version {
        // cgroups(7): only there.
        Version::V1 => cgroup.path.join("release_agent").exists(),
        // cgroup v2's document: everywhere but there.
        Version::V2 => !cgroup.path.join("cgroup.type").exists(),
    }
}

/// The least limit on the way from `cgroup` up to the root of what is mounted.
fn limit(cgroup: &Cgroup) -> Option<u64> {
    match cgroup.version {
        // It knows of those above it.
        Version::V1 => {
            let stat = fs::read_to_string(cgroup.path.join("memory.stat")).ok()?;
            field(&stat, "hierarchical_memory_limit").filter(|limit| *limit < NO_LIMIT)
        }
        Version::V2 => cgroup
            .path
            .ancestors()
            .take_while(|path| path.join("cgroup.controllers").exists())
            .filter_map(|path| fs::read_to_string(path.join("memory.max")).ok()?.trim().parse().ok())
            .min(),
    }
}

/// The file, if it is there and can be read.
fn readable(path: &Path) -> Option<File> {
    File::open(path).ok().filter(|file| read(file).is_some())
}

fn read(file: &File) -> Option<String> {
    let mut text = vec![0; 8192];
    let mut length = 0;
    loop {
        let read = file.read_at(&mut text[length..], length as u64).ok()?;
        length += read;
        if read == 0 || length == text.len() {
            text.truncate(length);
            return String::from_utf8(text).ok();
        }
    }
}

fn number(file: &File) -> Option<u64> {
    read(file)?.trim().parse().ok()
}

/// The value in a line `name value`.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

/// Resident bytes of this process.
fn resident(statm: &File) -> Option<u64> {
    let pages: u64 = read(statm)?.split(' ').nth(1)?.parse().ok()?;
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
        while started.elapsed() < Duration::from_millis(20) {
            std::hint::spin_loop();
        }
        assert!(container.cpu_time().unwrap() > before);
    }

    #[test]
    fn fields_are_whole_words() {
        let stat = "inactive_file 7\ntotal_inactive_file 9\n";
        assert_eq!(field(stat, "inactive_file"), Some(7));
        assert_eq!(field(stat, "total_inactive_file"), Some(9));
        assert_eq!(field(stat, "inactive"), None);
    }
}
