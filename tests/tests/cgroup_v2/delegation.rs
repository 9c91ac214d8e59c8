//! What a process may do that was given a part of its container's cgroup.

use wasmbox_tests::vm;

use crate::container::Container;

/// Root without capabilities, and another user.
const USERS: [u32; 2] = [0, 1000];

#[test]
fn it_may_divide_what_it_was_given() {
    vm::inside(|| {
        for user in USERS {
            let container = Container::delegated("divides", user);
            let said = container.sh("set -e; cd /run/wasmbox/cgroup; mkdir leaf
                 echo threaded >leaf/cgroup.type
                 echo 10000 100000 >leaf/cpu.max
                 echo 0 >leaf/cgroup.threads
                 cat /proc/thread-self/cgroup leaf/cpu.max
                 echo 0 >cgroup.threads
                 rmdir leaf; id -u");
            assert_eq!(said, format!("0::/box/leaf\n10000 100000\n{user}\n"));
        }
    });
}

#[test]
fn it_may_not_write_what_is_the_containers() {
    vm::inside(|| {
        for user in USERS {
            let container = Container::delegated("limited", user);
            container.cgroup().write("cpu.max", "50000 100000").expect("a limit");
            let said = container.sh("for file in /sys/fs/cgroup/* /sys/fs/cgroup/box/*; do
                     [ -d $file ] || ! { true >>$file; } 2>/dev/null || echo $file
                 done
                 mkdir /sys/fs/cgroup/new 2>/dev/null && echo new
                 mount -o remount,bind,rw /sys/fs/cgroup 2>/dev/null && echo remounted
                 ls /sys/fs/cgroup/cpu.max");
            assert_eq!(said, "/sys/fs/cgroup/cpu.max\n");
            assert_eq!(container.cgroup().read("cpu.max").as_deref(), Ok("50000 100000"));
        }
    });
}
