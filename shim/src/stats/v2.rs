//! cgroup v2.

use containerd_shim_protos::{cgroups_v2::metrics as v2, protobuf::MessageField};

use super::{device, field, page_sizes};
use crate::cgroup::Cgroup;

/// Readings of the controllers of cgroup v2.
pub fn metrics(cgroup: &Cgroup) -> v2::Metrics {
    let number = |file: &str| cgroup.number("", file).unwrap_or(0);
    let limit = |file: &str| cgroup.number("", file).unwrap_or(u64::MAX);
    let cpu = cgroup.fields("", "cpu.stat");
    let memory = cgroup.fields("", "memory.stat");
    let events = cgroup.fields("", "memory.events");
    v2::Metrics {
        cpu: MessageField::some(v2::CPUStat {
            usage_usec: field(&cpu, "usage_usec"),
            user_usec: field(&cpu, "user_usec"),
            system_usec: field(&cpu, "system_usec"),
            nr_periods: field(&cpu, "nr_periods"),
            nr_throttled: field(&cpu, "nr_throttled"),
            throttled_usec: field(&cpu, "throttled_usec"),
            nr_bursts: field(&cpu, "nr_bursts"),
            burst_usec: field(&cpu, "burst_usec"),
            psi: pressure(cgroup, "cpu.pressure"),
            ..Default::default()
        }),
        memory: MessageField::some(v2::MemoryStat {
            anon: field(&memory, "anon"),
            file: field(&memory, "file"),
            kernel_stack: field(&memory, "kernel_stack"),
            slab: field(&memory, "slab"),
            sock: field(&memory, "sock"),
            shmem: field(&memory, "shmem"),
            file_mapped: field(&memory, "file_mapped"),
            file_dirty: field(&memory, "file_dirty"),
            file_writeback: field(&memory, "file_writeback"),
            anon_thp: field(&memory, "anon_thp"),
            inactive_anon: field(&memory, "inactive_anon"),
            active_anon: field(&memory, "active_anon"),
            inactive_file: field(&memory, "inactive_file"),
            active_file: field(&memory, "active_file"),
            unevictable: field(&memory, "unevictable"),
            slab_reclaimable: field(&memory, "slab_reclaimable"),
            slab_unreclaimable: field(&memory, "slab_unreclaimable"),
            pgfault: field(&memory, "pgfault"),
            pgmajfault: field(&memory, "pgmajfault"),
            workingset_refault: field(&memory, "workingset_refault"),
            workingset_activate: field(&memory, "workingset_activate"),
            workingset_nodereclaim: field(&memory, "workingset_nodereclaim"),
            pgrefill: field(&memory, "pgrefill"),
            pgscan: field(&memory, "pgscan"),
            pgsteal: field(&memory, "pgsteal"),
            pgactivate: field(&memory, "pgactivate"),
            pgdeactivate: field(&memory, "pgdeactivate"),
            pglazyfree: field(&memory, "pglazyfree"),
            pglazyfreed: field(&memory, "pglazyfreed"),
            thp_fault_alloc: field(&memory, "thp_fault_alloc"),
            thp_collapse_alloc: field(&memory, "thp_collapse_alloc"),
            usage: number("memory.current"),
            usage_limit: limit("memory.max"),
            swap_usage: number("memory.swap.current"),
            swap_limit: limit("memory.swap.max"),
            max_usage: number("memory.peak"),
            swap_max_usage: number("memory.swap.peak"),
            psi: pressure(cgroup, "memory.pressure"),
            ..Default::default()
        }),
        memory_events: MessageField::some(v2::MemoryEvents {
            low: field(&events, "low"),
            high: field(&events, "high"),
            max: field(&events, "max"),
            oom: field(&events, "oom"),
            oom_kill: field(&events, "oom_kill"),
            oom_group_kill: field(&events, "oom_group_kill"),
            ..Default::default()
        }),
        io: MessageField::some(v2::IOStat {
            usage: cgroup.read("", "io.stat").unwrap_or_default().lines().filter_map(io_entry).collect(),
            psi: pressure(cgroup, "io.pressure"),
            ..Default::default()
        }),
        hugetlb: page_sizes(cgroup, "current").into_iter().map(|size| hugetlb(cgroup, size)).collect(),
        pids: MessageField::some(v2::PidsStat {
            current: number("pids.current"),
            limit: cgroup.number("", "pids.max").unwrap_or(0),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn hugetlb(cgroup: &Cgroup, pagesize: String) -> v2::HugeTlbStat {
    let file = |name: &str| format!("hugetlb.{pagesize}.{name}");
    v2::HugeTlbStat {
        current: cgroup.number("", &file("current")).unwrap_or(0),
        max: cgroup.number("", &file("max")).unwrap_or(u64::MAX),
        failcnt: field(&cgroup.fields("", &file("events")), "max"),
        pagesize,
        ..Default::default()
    }
}

/// `8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0`.
pub fn io_entry(line: &str) -> Option<v2::IOEntry> {
    let (numbers, rest) = line.split_once(' ')?;
    let (major, minor) = device(numbers)?;
    let mut entry = v2::IOEntry { major, minor, ..Default::default() };
    for (name, value) in rest.split_whitespace().filter_map(|word| word.split_once('=')) {
        let Ok(value) = value.parse() else { continue };
        match name {
            "rbytes" => entry.rbytes = value,
            "wbytes" => entry.wbytes = value,
            "rios" => entry.rios = value,
            "wios" => entry.wios = value,
            _ => {}
        }
    }
    Some(entry)
}

/// None where the kernel does not account for pressure.
fn pressure(cgroup: &Cgroup, file: &str) -> MessageField<v2::PSIStats> {
    MessageField::from_option(cgroup.read("", file).map(|text| parse_pressure(&text)))
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, and `full ...`.
pub fn parse_pressure(text: &str) -> v2::PSIStats {
    let mut stats = v2::PSIStats::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let kind = words.next();
        let mut data = v2::PSIData::default();
        for (name, value) in words.filter_map(|word| word.split_once('=')) {
            match name {
                "avg10" => data.avg10 = value.parse().unwrap_or(0.0),
                "avg60" => data.avg60 = value.parse().unwrap_or(0.0),
                "avg300" => data.avg300 = value.parse().unwrap_or(0.0),
                "total" => data.total = value.parse().unwrap_or(0),
                _ => {}
            }
        }
        match kind {
            Some("some") => stats.some = MessageField::some(data),
            Some("full") => stats.full = MessageField::some(data),
            _ => {}
        }
    }
    stats
}
