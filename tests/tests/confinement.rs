//! What a box has given up once it serves, as the kernel tells, and that it serves all the same.

use std::fs;

use wasmbox_tests::{WasmBox, guest};

/// A line of `/proc/PID/task/TID/status` for each thread.
fn statuses(server: &WasmBox, field: &str) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{}/task", server.process().0)).expect("the process runs");
    let value = |status: String| {
        let line = status.lines().find(|line| line.starts_with(field)).expect("a field of status").to_owned();
        line.split('\t').nth(1).expect("a value").to_owned()
    };
    // A thread may end meanwhile.
    tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join("status")).ok()).map(value).collect()
}

#[test]
fn each_thread_of_a_box_at_work_has_given_up_privileges() {
    let server = WasmBox::with("hello.wat", guest::hello());
    server.get("/hello").ok();
    for (field, value) in [("NoNewPrivs:", "1"), ("Seccomp:", "2"), ("Seccomp_filters:", "1")] {
        let found = statuses(&server, field);
        assert!(found.len() > 3 && found.iter().all(|found| found == value), "{field} {found:?}");
    }
    // DAC_OVERRIDE (1), DAC_READ_SEARCH (2), FOWNER (3), LEASE (28).
    for field in ["CapEff:", "CapPrm:"] {
        for found in statuses(&server, field) {
            let left = u64::from_str_radix(&found, 16).expect("a number");
            assert_eq!(left & !(1 << 1 | 1 << 2 | 1 << 3 | 1 << 28), 0, "{field} {found}");
        }
    }
    server.logged(&["serving", "given_up=no_new_privs, Landlock ", ", seccomp, capabilities"]);
}

#[test]
fn nothing_is_given_up_if_not_wanted() {
    let server = WasmBox::launch().function("hello.wat", guest::hello()).flag("--confine", "false").start();
    server.get("/hello").ok();
    let mine = fs::read_to_string("/proc/self/status").expect("this process");
    let mine = mine.lines().find_map(|line| line.strip_prefix("Seccomp:\t")).expect("a field of status");
    assert!(statuses(&server, "Seccomp:").iter().all(|found| found == mine));
    server.logged(&["serving", "given_up=none"]);
}
