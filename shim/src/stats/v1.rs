//! cgroup v1.

use std::{collections::HashMap, fs};

use containerd_shim_protos::{cgroups::metrics as v1, protobuf::MessageField};
use wasmbox_cgroup::{
    ProcessCgroups,
    stats::{block_io::DeviceOperation, huge_pages, pids},
};

use super::field;

/// Readings of the controllers of cgroup v1.
pub fn metrics(cgroup: &ProcessCgroups) -> v1::Metrics {
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
    let pids = pids(cgroup);
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
            hierarchical_swap_limit: field(&memory, "hierarchical_memsw_limit"),
            pg_pg_in: field(&memory, "pgpgin"),
            pg_pg_out: field(&memory, "pgpgout"),
            total_pg_pg_in: field(&memory, "total_pgpgin"),
            total_pg_pg_out: field(&memory, "total_pgpgout"),
            total_rss_huge: field(&memory, "total_rss_huge"),
            total_dirty: field(&memory, "total_dirty"),
            total_writeback: field(&memory, "total_writeback"),
            total_unevictable: field(&memory, "total_unevictable"),
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
        blkio: MessageField::some(blkio(cgroup)),
        hugetlb: huge_pages::sizes(cgroup, "usage_in_bytes").into_iter().map(|size| hugetlb(cgroup, size)).collect(),
        pids: MessageField::some(v1::PidsStat { current: pids.current, limit: pids.limit, ..Default::default() }),
        ..Default::default()
    }
}

fn hugetlb(cgroup: &ProcessCgroups, pagesize: String) -> v1::HugetlbStat {
    let number = |file: &str| cgroup.number("hugetlb", &format!("hugetlb.{pagesize}.{file}")).unwrap_or(0);
    v1::HugetlbStat {
        usage: number("usage_in_bytes"),
        max: number("max_usage_in_bytes"),
        failcnt: number("failcnt"),
        pagesize,
        ..Default::default()
    }
}

/// What was read from and written to block devices. Without any the message is there all the same: clients take that for granted.
fn blkio(cgroup: &ProcessCgroups) -> v1::BlkIOStat {
    let mut names = None;
    let mut entries = |file: &str| {
        let operations = DeviceOperation::all(cgroup, file).into_iter();
        operations.map(|operation| blkio_entry(operation, names.get_or_insert_with(device_names))).collect()
    };
    v1::BlkIOStat {
        io_service_bytes_recursive: entries("blkio.throttle.io_service_bytes_recursive"),
        io_serviced_recursive: entries("blkio.throttle.io_serviced_recursive"),
        ..Default::default()
    }
}

fn blkio_entry(operation: DeviceOperation, names: &HashMap<(u64, u64), String>) -> v1::BlkIOEntry {
    let DeviceOperation { major, minor, operation: op, value } = operation;
    let device = names.get(&(major, minor)).cloned().unwrap_or_default();
    v1::BlkIOEntry { op, device, major, minor, value, ..Default::default() }
}

/// The host's block devices: `/dev/sda`.
fn device_names() -> HashMap<(u64, u64), String> {
    let text = fs::read_to_string("/proc/diskstats").unwrap_or_default();
    let device = |line: &str| {
        let mut words = line.split_whitespace();
        let number = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        Some((number, format!("/dev/{}", words.next()?)))
    };
    text.lines().filter_map(device).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_have_their_names() {
        let names = HashMap::from([((8, 0), "/dev/sda".to_owned())]);
        let read = |major| DeviceOperation { major, minor: 0, operation: "Read".into(), value: 4096 };
        let entry = blkio_entry(read(8), &names);
        let fields = (entry.op.as_str(), entry.device.as_str(), entry.major, entry.minor, entry.value);
        assert_eq!(fields, ("Read", "/dev/sda", 8, 0, 4096));
        assert_eq!(blkio_entry(read(254), &names).device, "");
    }
}
