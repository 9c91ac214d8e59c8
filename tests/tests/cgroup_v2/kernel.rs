//! What the box relies on: how the kernel treats threads in cgroups below a container's.

use std::{
    fs, hint, thread,
    time::{Duration, Instant},
};

use rustix::{io::Errno, thread::gettid};
use wasmbox_tests::{patience::in_one_of_three, vm};

use crate::cgroup::Cgroup;

/// Runs `work` on a thread of its own.
fn on_a_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| scope.spawn(work).join().expect("no panic"))
}

/// Moves the calling thread.
fn join(cgroup: &Cgroup) -> Result<(), Errno> {
    cgroup.write("cgroup.threads", "0")
}

fn own_cgroup() -> String {
    fs::read_to_string("/proc/thread-self/cgroup").expect("proc(5): cgroup").trim_end().to_owned()
}

fn burn(time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        hint::spin_loop();
    }
}

#[test]
fn there_is_only_version_2() {
    vm::inside(|| {
        let mounts = fs::read_to_string("/proc/self/mounts").expect("proc(5): mounts");
        assert!(!mounts.lines().any(|mount| mount.starts_with("cgroup ")), "{mounts}");
        assert_eq!(own_cgroup(), "0::/");
    });
}

#[test]
fn a_leaf_takes_threads_only_when_it_is_threaded() {
    vm::inside(|| {
        let container = Cgroup::container("threaded");
        let _inside = container.enter();
        let first = container.child("first");
        assert_eq!(first.read("cgroup.type").as_deref(), Ok("domain"));
        assert_eq!(on_a_thread(|| join(&first)), Err(Errno::OPNOTSUPP));
        first.write("cgroup.type", "threaded").expect("the first child becomes threaded");
        assert_eq!(container.read("cgroup.type").as_deref(), Ok("domain threaded"));
        assert_eq!(on_a_thread(|| join(&first)), Ok(()));
        // From now on a new child is of no use before it is threaded.
        let second = container.child("second");
        assert_eq!(second.read("cgroup.type").as_deref(), Ok("domain invalid"));
        assert_eq!(on_a_thread(|| join(&second)), Err(Errno::OPNOTSUPP));
        second.write("cgroup.type", "threaded").expect("the second child becomes threaded");
        assert_eq!(on_a_thread(|| join(&second)), Ok(()));
    });
}

#[test]
fn a_thread_joins_by_writing_zero() {
    vm::inside(|| {
        let container = Cgroup::container("joining");
        let _inside = container.enter();
        let leaf = container.leaf("leaf");
        on_a_thread(|| {
            join(&leaf).expect("a thread joins");
            assert_eq!(own_cgroup(), leaf.name());
            assert_eq!(leaf.read("cgroup.threads"), Ok(gettid().as_raw_nonzero().to_string()));
            // Threads begin where the one is that makes them.
            on_a_thread(|| assert_eq!(own_cgroup(), leaf.name()));
        });
        assert_eq!(own_cgroup(), container.name());
    });
}

#[test]
fn a_quota_above_the_containers_is_accepted_and_the_containers_holds() {
    vm::inside(|| {
        let container = Cgroup::container("quota");
        container.write("cpu.max", "20000 100000").expect("a quota");
        let _inside = container.enter();
        container.write("cgroup.subtree_control", "+cpu").expect("the CPU is divided");
        let leaf = container.leaf("leaf");
        leaf.write("cpu.max", "50000 100000").expect("a quota above the container's");
        on_a_thread(|| {
            join(&leaf).expect("a thread joins");
            let burns = || {
                let (start, before) = (Instant::now(), leaf.cpu_stat("usage_usec"));
                burn(Duration::from_secs(2));
                let used = leaf.cpu_stat("usage_usec") - before;
                // A fifth, and what a period may begin and end with.
                (used, start.elapsed().as_micros() as u64 / 5 + 2 * 20_000)
            };
            in_one_of_three(burns, |(used, most)| *used <= most * 3 / 2);
        });
        assert!(container.cpu_stat("throttled_usec") > 0);
    });
}

#[test]
fn a_leaf_limits_its_thread_and_no_other() {
    vm::inside(|| {
        let container = Cgroup::container("leaves");
        let _inside = container.enter();
        container.write("cgroup.subtree_control", "+cpu").expect("the CPU is divided");
        let (slow, free) = (container.leaf("slow"), container.leaf("free"));
        slow.write("cpu.max", "10000 100000").expect("a quota");
        let used = |leaf: &Cgroup| {
            on_a_thread(|| {
                join(leaf).expect("a thread joins");
                let before = leaf.cpu_stat("usage_usec");
                burn(Duration::from_secs(2));
                leaf.cpu_stat("usage_usec") - before
            })
        };
        // At 10 %, and without a limit.
        in_one_of_three(|| (used(&slow), used(&free)), |(slow, free)| *slow < free / 2);
        assert!(slow.cpu_stat("throttled_usec") > 0);
        assert_eq!(free.cpu_stat("throttled_usec"), 0);
    });
}

#[test]
fn cpu_and_pids_may_be_divided_among_threads_memory_not() {
    vm::inside(|| {
        let container = Cgroup::container("controllers");
        let _inside = container.enter();
        assert_eq!(container.write("cgroup.subtree_control", "+memory"), Err(Errno::BUSY));
        for controller in ["+cpu", "+pids", "+cpuset"] {
            assert_eq!(container.write("cgroup.subtree_control", controller), Ok(()), "{controller}");
        }
        let _leaf = container.leaf("leaf");
        assert_eq!(container.write("cgroup.subtree_control", "+memory"), Err(Errno::OPNOTSUPP));
        // The container's own limit is its parent's affair.
        assert_eq!(container.write("memory.max", "512M"), Ok(()));
    });
}

#[test]
fn a_container_that_divides_memory_has_no_threaded_children() {
    vm::inside(|| {
        let container = Cgroup::container("memory");
        container.write("cgroup.subtree_control", "+memory").expect("nothing is in it");
        let child = container.child("child");
        assert_eq!(child.write("cgroup.type", "threaded"), Err(Errno::OPNOTSUPP));
    });
}

#[test]
fn without_children_and_controllers_it_is_a_plain_domain_again() {
    vm::inside(|| {
        let container = Cgroup::container("plain");
        let _inside = container.enter();
        container.write("cgroup.subtree_control", "+cpu").expect("the CPU is divided");
        let leaves = [container.leaf("one"), container.leaf("two")];
        assert_eq!(container.read("cgroup.type").as_deref(), Ok("domain threaded"));
        drop(leaves);
        // Processes in it and a divided CPU are enough.
        assert_eq!(container.read("cgroup.type").as_deref(), Ok("domain threaded"));
        container.write("cgroup.subtree_control", "-cpu").expect("the CPU is not divided any more");
        assert_eq!(container.read("cgroup.type").as_deref(), Ok("domain"));
    });
}

#[test]
fn a_leaf_has_no_processes() {
    vm::inside(|| {
        let container = Cgroup::container("processes");
        let _inside = container.enter();
        let leaf = container.leaf("leaf");
        assert_eq!(leaf.read("cgroup.procs"), Err(Errno::OPNOTSUPP));
        assert_eq!(leaf.write("cgroup.kill", "1"), Err(Errno::OPNOTSUPP));
    });
}

#[test]
fn bounds_of_a_quota() {
    vm::inside(|| {
        let container = Cgroup::container("bounds");
        for (quota, result) in [
            ("1000 100000", Ok(())),
            ("999 100000", Err(Errno::INVAL)),
            ("1000 1000", Ok(())),
            ("1000 999", Err(Errno::INVAL)),
            ("1000 1000000", Ok(())),
            ("1000 1000001", Err(Errno::INVAL)),
        ] {
            assert_eq!(container.write("cpu.max", quota), result, "{quota}");
        }
        container.write("cpu.max", "10000 50000").expect("a quota");
        assert_eq!(container.write("cpu.max.burst", "10001"), Err(Errno::INVAL));
        assert_eq!(container.write("cpu.max.burst", "10000"), Ok(()));
        container.write("cpu.max.burst", "0").expect("no burst");
        container.write("cpu.max", "max").expect("no limit");
        assert_eq!(container.read("cpu.max").as_deref(), Ok("max 50000"));
    });
}
