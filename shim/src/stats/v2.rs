//! cgroup v2.

use containerd_shim_protos::{cgroups_v2::metrics as v2, protobuf::MessageField};
use wasmbox_cgroup::{
    ProcessCgroups,
    stats::{
        block_io::DeviceUse,
        huge_pages, pids,
        pressure::{Pressure, Stall},
    },
};

use super::field;

/// Readings of the controllers of cgroup v2.
pub fn metrics(cgroup: &ProcessCgroups) -> v2::Metrics {
    let number = |file: &str| cgroup.number("", file).unwrap_or(0);
    let limit = |file: &str| cgroup.number("", file).unwrap_or(u64::MAX);
    let cpu = cgroup.fields("", "cpu.stat");
    let memory = cgroup.fields("", "memory.stat");
    let events = cgroup.fields("", "memory.events");
    let pids = pids(cgroup);
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
            usage: DeviceUse::all(cgroup).into_iter().map(io_entry).collect(),
            psi: pressure(cgroup, "io.pressure"),
            ..Default::default()
        }),
        hugetlb: huge_pages::sizes(cgroup, "current").into_iter().map(|size| hugetlb(cgroup, size)).collect(),
        pids: MessageField::some(v2::PidsStat { current: pids.current, limit: pids.limit, ..Default::default() }),
        ..Default::default()
    }
}

fn hugetlb(cgroup: &ProcessCgroups, pagesize: String) -> v2::HugeTlbStat {
    let file = |name: &str| format!("hugetlb.{pagesize}.{name}");
    v2::HugeTlbStat {
        current: cgroup.number("", &file("current")).unwrap_or(0),
        max: cgroup.number("", &file("max")).unwrap_or(u64::MAX),
        failcnt: field(&cgroup.fields("", &file("events")), "max"),
        pagesize,
        ..Default::default()
    }
}

fn io_entry(device: DeviceUse) -> v2::IOEntry {
    let DeviceUse { major, minor, rbytes, wbytes, rios, wios } = device;
    v2::IOEntry { major, minor, rbytes, wbytes, rios, wios, ..Default::default() }
}

/// None where the kernel does not account for pressure.
fn pressure(cgroup: &ProcessCgroups, file: &str) -> MessageField<v2::PSIStats> {
    MessageField::from_option(cgroup.read("", file).map(|text| psi(Pressure::parse(&text))))
}

fn psi(pressure: Pressure) -> v2::PSIStats {
    let data = |stall: Stall| {
        let Stall { avg10, avg60, avg300, total } = stall;
        v2::PSIData { avg10, avg60, avg300, total, ..Default::default() }
    };
    let field = |stall: Option<Stall>| MessageField::from_option(stall.map(data));
    v2::PSIStats { some: field(pressure.some), full: field(pressure.full), ..Default::default() }
}
