use proptest::prelude::*;

use super::*;

fn mounts(lines: &[&str]) -> CgroupMounts {
    let mounts = lines.iter().map(|line| MountInfo::from_line(line).unwrap());
    CgroupMounts(mounts.filter(is_cgroup).collect())
}

fn places(mounts: &CgroupMounts, hierarchy: Hierarchy<'_>, pathname: &str) -> Vec<String> {
    mounts.places(hierarchy, pathname).map(|path| path.into_os_string().into_string().unwrap()).collect()
}

/// As proc_pid_mountinfo(5) has it: a host with both versions, and a pod's cgroup a second time.
fn host() -> CgroupMounts {
    mounts(&[
        "25 1 0:23 / /sys rw,nosuid shared:7 - sysfs sysfs rw",
        "26 25 0:24 / /sys/fs/cgroup ro,nosuid shared:9 - tmpfs tmpfs ro,mode=755",
        "27 26 0:25 / /sys/fs/cgroup/unified rw shared:10 - cgroup2 cgroup2 rw,nsdelegate",
        "28 26 0:26 / /sys/fs/cgroup/cpu,cpuacct rw shared:11 - cgroup cgroup rw,cpu,cpuacct",
        "29 26 0:27 / /sys/fs/cgroup/systemd rw shared:12 - cgroup cgroup rw,xattr,name=systemd",
        "30 26 0:28 / /sys/fs/cgroup/memory rw shared:13 - cgroup cgroup rw,memory",
        "31 1 0:26 /kubepods/pod1 /run/pod rw shared:11 - cgroup cgroup rw,cpu,cpuacct",
    ])
}

#[test]
fn a_host_with_both_versions() {
    let host = host();
    let pathname = "/kubepods/pod1/abc";
    let of = |hierarchy| places(&host, hierarchy, pathname);
    assert_eq!(of(Hierarchy::V1("cpuacct")), ["/sys/fs/cgroup/cpu,cpuacct/kubepods/pod1/abc", "/run/pod/abc"]);
    assert_eq!(of(Hierarchy::V1("memory")), ["/sys/fs/cgroup/memory/kubepods/pod1/abc"]);
    assert_eq!(of(Hierarchy::V2), ["/sys/fs/cgroup/unified/kubepods/pod1/abc"]);
    assert!(of(Hierarchy::V1("pids")).is_empty(), "it is not mounted");
    // Neither the hierarchy's root nor a cgroup whose name begins in the same way is in what the second mount shows.
    assert_eq!(places(&host, Hierarchy::V1("cpu"), "/"), ["/sys/fs/cgroup/cpu,cpuacct"]);
    assert_eq!(places(&host, Hierarchy::V1("cpu"), "/kubepods/pod12"), ["/sys/fs/cgroup/cpu,cpuacct/kubepods/pod12"]);
    assert_eq!(host.points().count(), 5);
}

#[test]
fn a_container_sees_its_own_cgroup_as_the_root_of_what_is_mounted() {
    let own = "/kubepods.slice/kubepods-pod1.slice/cri-containerd-abc.scope";
    // With the host's cgroup namespace, and with one of its own.
    for (root, pathname) in [(own, own), ("/", "/")] {
        let container = mounts(&[&format!("40 39 0:25 {root} /sys/fs/cgroup ro - cgroup2 cgroup rw")]);
        assert_eq!(places(&container, Hierarchy::V2, pathname), ["/sys/fs/cgroup"]);
    }
    let container = mounts(&["40 39 0:25 / /sys/fs/cgroup ro - cgroup2 cgroup rw"]);
    assert!(places(&container, Hierarchy::V2, "/../other").is_empty(), "it is outside of the namespace");
    // What was mounted outside is seen in the same terms as who is outside.
    let container = mounts(&["40 39 0:25 /.. /sys/fs/cgroup ro - cgroup2 cgroup rw"]);
    assert_eq!(places(&container, Hierarchy::V2, "/../other"), ["/sys/fs/cgroup/other"]);
}

#[test]
fn this_process_has_a_directory_that_lists_it() {
    let process = Process::myself().unwrap();
    let mounts = CgroupMounts::read().unwrap();
    let pid = std::process::id().to_string();
    let lists = |path: &Path| std::fs::read_to_string(path.join("cgroup.procs")).unwrap().lines().any(|it| it == pid);
    let groups = process.cgroups().unwrap().0;
    let found = groups.iter().flat_map(|group| {
        let unified = (group.hierarchy == 0).then_some(Hierarchy::V2);
        let hierarchies = group.controllers.iter().map(|name| Hierarchy::V1(name)).chain(unified);
        hierarchies.filter_map(|hierarchy| mounts.directory(hierarchy, &group.pathname)).collect::<Vec<_>>()
    });
    let found: Vec<_> = found.collect();
    assert!(!found.is_empty());
    for path in found {
        assert!(lists(&path), "{}", path.display());
    }
}

const NAME: &str = "[a-z0-9.:_-]{0,6}[a-z0-9]";

fn path(names: &[String]) -> String {
    names.iter().map(|name| format!("/{name}")).collect()
}

fn rooted(names: &[String]) -> String {
    if names.is_empty() { "/".into() } else { path(names) }
}

proptest! {
    /// The mount point takes the place of what is its root, and nothing else changes.
    #[test]
    fn what_is_below_a_mounts_root_is_below_its_mount_point(
        root in prop::collection::vec(NAME, 0..4),
        below in prop::collection::vec(NAME, 0..5),
        point in prop::collection::vec(NAME, 1..4),
    ) {
        let pathname = rooted(&[root.clone(), below.clone()].concat());
        let wanted = format!("{}{}", path(&point), path(&below));
        for (kind, hierarchy) in [("cgroup cgroup rw,cpu", Hierarchy::V1("cpu")), ("cgroup2 none rw", Hierarchy::V2)] {
            let mounts = mounts(&[&format!("30 20 0:30 {} {} rw shared:1 - {kind}", rooted(&root), path(&point))]);
            prop_assert_eq!(places(&mounts, hierarchy, &pathname), [wanted.as_str()]);
        }
    }

    /// Names are compared as wholes: `/ab` is not below `/a`.
    #[test]
    fn what_is_not_below_a_mounts_root_is_nowhere(
        root in prop::collection::vec(NAME, 1..4),
        other in prop::collection::vec(NAME, 0..5),
        suffix in "[a-z]{1,3}",
    ) {
        let mounts = mounts(&[&format!("30 20 0:30 {} /mnt rw - cgroup2 none rw", path(&root))]);
        if !other.starts_with(&root) {
            prop_assert!(places(&mounts, Hierarchy::V2, &rooted(&other)).is_empty());
        }
        let longer = format!("{}{suffix}{}", path(&root), path(&other));
        prop_assert!(places(&mounts, Hierarchy::V2, &longer).is_empty());
    }

    /// Whatever the kernel calls a cgroup, its directory is in the mount.
    #[test]
    fn nothing_leads_out_of_a_mount(
        root in "(/|/\\.\\.|/a|/a/b)",
        pathname in "/?([ab]|\\.\\.|\\.|/){0,10}",
    ) {
        let mounts = mounts(&[&format!("30 20 0:30 {root} /mnt/point rw - cgroup cgroup rw,cpu")]);
        for place in places(&mounts, Hierarchy::V1("cpu"), &pathname) {
            prop_assert!(Path::new(&place).starts_with("/mnt/point"), "{}", place);
            prop_assert!(Path::new(&place).iter().all(|name| name != ".."), "{}", place);
        }
    }
}
