//! A container's usage in containerd's messages: `io.containerd.cgroups.v1.Metrics` and `io.containerd.cgroups.v2.Metrics`, from which
//! CRI computes what `kubectl top` and autoscalers see.

use std::collections::BTreeMap;

use containerd_shim_protos::{
    cgroups::metrics as v1,
    cgroups_v2::metrics as v2,
    protobuf::{Message, MessageField, well_known_types::any::Any},
};

use crate::cgroup::Cgroup;

/// What `cgroup` has used. Readings that are not there are zero.
pub fn stats(cgroup: &Cgroup) -> anyhow::Result<Any> {
    let (type_url, value) = match cgroup {
        Cgroup::V1(_) => ("io.containerd.cgroups.v1.Metrics", v1_metrics(cgroup).write_to_bytes()?),
        Cgroup::V2(_) => ("io.containerd.cgroups.v2.Metrics", v2_metrics(cgroup).write_to_bytes()?),
    };
    Ok(Any { type_url: type_url.into(), value, ..Any::default() })
}

fn field(fields: &BTreeMap<String, u64>, name: &str) -> u64 {
    fields.get(name).copied().unwrap_or(0)
}

fn v1_metrics(cgroup: &Cgroup) -> v1::Metrics {
    let number = |controller, file: &str| cgroup.number(controller, file).unwrap_or(0);
    let throttling = cgroup.fields("cpu", "cpu.stat");
    let per_cpu = cgroup.read("cpuacct", "cpuacct.usage_percpu").unwrap_or_default();
    let cpu = v1::CPUStat {
        usage: MessageField::some(v1::CPUUsage {
            total: number("cpuacct", "cpuacct.usage"),
            kernel: number("cpuacct", "cpuacct.usage_sys"),
            user: number("cpuacct", "cpuacct.usage_user"),
            per_cpu: per_cpu.split_whitespace().filter_map(|value| value.parse().ok()).collect(),
            ..Default::default()
        }),
        throttling: MessageField::some(v1::Throttle {
            periods: field(&throttling, "nr_periods"),
            throttled_periods: field(&throttling, "nr_throttled"),
            throttled_time: field(&throttling, "throttled_time"),
            ..Default::default()
        }),
        ..Default::default()
    };
    let memory = cgroup.fields("memory", "memory.stat");
    let entry = |prefix: &str| {
        MessageField::some(v1::MemoryEntry {
            limit: number("memory", &format!("{prefix}.limit_in_bytes")),
            usage: number("memory", &format!("{prefix}.usage_in_bytes")),
            max: number("memory", &format!("{prefix}.max_usage_in_bytes")),
            failcnt: number("memory", &format!("{prefix}.failcnt")),
            ..Default::default()
        })
    };
    let oom = cgroup.fields("memory", "memory.oom_control");
    v1::Metrics {
        cpu: MessageField::some(cpu),
        memory: MessageField::some(v1::MemoryStat {
            cache: field(&memory, "cache"),
            rss: field(&memory, "rss"),
            rss_huge: field(&memory, "rss_huge"),
            mapped_file: field(&memory, "mapped_file"),
            dirty: field(&memory, "dirty"),
            writeback: field(&memory, "writeback"),
            pg_fault: field(&memory, "pgfault"),
            pg_maj_fault: field(&memory, "pgmajfault"),
            inactive_anon: field(&memory, "inactive_anon"),
            active_anon: field(&memory, "active_anon"),
            inactive_file: field(&memory, "inactive_file"),
            active_file: field(&memory, "active_file"),
            unevictable: field(&memory, "unevictable"),
            hierarchical_memory_limit: field(&memory, "hierarchical_memory_limit"),
            total_cache: field(&memory, "total_cache"),
            total_rss: field(&memory, "total_rss"),
            total_mapped_file: field(&memory, "total_mapped_file"),
            total_pg_fault: field(&memory, "total_pgfault"),
            total_pg_maj_fault: field(&memory, "total_pgmajfault"),
            total_inactive_anon: field(&memory, "total_inactive_anon"),
            total_active_anon: field(&memory, "total_active_anon"),
            total_inactive_file: field(&memory, "total_inactive_file"),
            total_active_file: field(&memory, "total_active_file"),
            usage: entry("memory"),
            swap: entry("memory.memsw"),
            kernel: entry("memory.kmem"),
            kernel_tcp: entry("memory.kmem.tcp"),
            ..Default::default()
        }),
        memory_oom_control: MessageField::some(v1::MemoryOomControl {
            oom_kill_disable: field(&oom, "oom_kill_disable"),
            under_oom: field(&oom, "under_oom"),
            oom_kill: field(&oom, "oom_kill"),
            ..Default::default()
        }),
        pids: MessageField::some(v1::PidsStat {
            current: number("pids", "pids.current"),
            limit: number("pids", "pids.max"),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn v2_metrics(cgroup: &Cgroup) -> v2::Metrics {
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
            usage: number("memory.current"),
            usage_limit: limit("memory.max"),
            swap_usage: number("memory.swap.current"),
            swap_limit: limit("memory.swap.max"),
            ..Default::default()
        }),
        memory_events: MessageField::some(v2::MemoryEvents {
            low: field(&events, "low"),
            high: field(&events, "high"),
            max: field(&events, "max"),
            oom: field(&events, "oom"),
            oom_kill: field(&events, "oom_kill"),
            ..Default::default()
        }),
        pids: MessageField::some(v2::PidsStat {
            current: number("pids.current"),
            limit: cgroup.number("", "pids.max").unwrap_or(0),
            ..Default::default()
        }),
        ..Default::default()
    }
}
