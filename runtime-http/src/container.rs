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
    limit: Option<u64>,
}

#[derive(Debug)]
enum MemorySource {
    /// `memory.usage_in_bytes` or `memory.current`; `memory.stat`.
    Cgroup { usage: File, stat: File, inactive_file: &'static str },
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
        let limit = memory_cgroup.as_ref().and_then(limit);
        Container { memory, cpu: CpuSource::open(), pressure, limit }
    }

    /// For a box that may use `limit` bytes: where that is less than the container may, others share the container, so the process is measured
    /// alone.
    pub fn for_limit(limit: u64) -> Container {
        let container = Container::open();
        let memory = match File::open("/proc/self/statm") {
            Ok(statm) if container.limit.is_none_or(|container| limit < container) => MemorySource::Process { statm },
            Ok(_) | Err(_) => container.memory,
        };
        Container { memory, ..container }
    }

    /// The container's memory limit, if it has one: the least of its own and those above it that can be seen; bytes.
    pub fn memory_limit(&self) -> Option<u64> {
        self.limit
    }

    /// All memory that is charged to the container, page cache included; bytes. The cheapest reading: never less than
    /// [`Container::working_set`].
    pub fn memory_usage(&self) -> Option<u64> {
        match &self.memory {
            MemorySource::Cgroup { usage, .. } => number(usage),
            MemorySource::Process { statm } => resident(statm),
            MemorySource::None => None,
        }
    }

    /// Memory in use that the kernel cannot simply take back: usage less inactive file pages, as kubelet computes it; bytes.
    pub fn working_set(&self) -> Option<u64> {
        match &self.memory {
            MemorySource::Cgroup { usage, stat, inactive_file } => {
                let inactive = field(&read(stat)?, inactive_file).unwrap_or(0);
                Some(number(usage)?.saturating_sub(inactive))
            }
            MemorySource::Process { statm } => resident(statm),
            MemorySource::None => None,
        }
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
        let (usage, inactive_file) = match cgroup.version {
            Version::V1 => ("memory.usage_in_bytes", "total_inactive_file"),
            Version::V2 => ("memory.current", "inactive_file"),
        };
        Some(MemorySource::Cgroup {
            usage: readable(&cgroup.path.join(usage))?,
            stat: readable(&cgroup.path.join("memory.stat"))?,
            inactive_file,
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
        let (usage, working_set) = (container.memory_usage().unwrap(), container.working_set().unwrap());
        assert!(working_set > 1 << 20, "{working_set}");
        assert!(usage > 1 << 20, "{usage}");
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
