//! What a box has given up once it serves, as the kernel tells, and that it serves all the same.

use std::process;

use wasmbox_tests::{WasmBox, guest, process::Process};

/// What the status of each thread says.
fn statuses(server: &WasmBox, field: &str) -> Vec<String> {
    // A thread may end meanwhile.
    server.process().threads().into_iter().filter_map(|thread| thread.status(field)).collect()
}

#[test]
fn each_thread_of_a_box_at_work_has_given_up_privileges() {
    let server = WasmBox::with("hello.wat", guest::hello());
    server.get("/hello").ok();
    for (field, value) in [("NoNewPrivs", "1"), ("Seccomp", "2"), ("Seccomp_filters", "1")] {
        let found = statuses(&server, field);
        assert!(found.len() > 3 && found.iter().all(|found| found == value), "{field} {found:?}");
    }
    // DAC_OVERRIDE (1), DAC_READ_SEARCH (2), FOWNER (3), LEASE (28).
    for field in ["CapEff", "CapPrm"] {
        let found = statuses(&server, field);
        assert!(found.len() > 3, "{field} {found:?}");
        for found in found {
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
    let mine = Process(process::id()).status("Seccomp").expect("a field of status");
    let found = statuses(&server, "Seccomp");
    assert!(!found.is_empty() && found.iter().all(|found| *found == mine), "{found:?}");
    server.logged(&["serving", "given_up=none"]);
}
