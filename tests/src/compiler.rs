//! The process that compiles a module, of a box's or of the node's service: what it has given up.

use std::fs;

use crate::process::Process;

/// It has no right and no way to one, no more than its share of CPU time, memory and output, and no descriptor but those of files in memory
/// and of `others`.
///
/// # Panics
/// If it has, or if it has ended.
#[track_caller]
pub fn assert_confined(compiler: Process, others: &[&str]) {
    let threads = compiler.threads();
    assert!(!threads.is_empty(), "it has ended");
    for thread in threads {
        // One may have ended.
        let Some(seccomp) = thread.status("Seccomp") else { continue };
        assert_eq!((&*seccomp, thread.status("NoNewPrivs").as_deref()), ("2", Some("1")));
    }
    for name in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(compiler.status(name).as_deref(), Some("0000000000000000"), "{name}");
    }
    for descriptor in fs::read_dir(format!("/proc/{}/fd", compiler.0)).expect("it compiles") {
        let target = fs::read_link(descriptor.expect("an entry").path()).expect("it is open");
        let target = target.to_string_lossy();
        assert!(target.starts_with("/memfd:") || others.contains(&&*target), "{target}");
    }
    for name in ["Max cpu time", "Max file size", "Max data size"] {
        assert!(!compiler.limit(name).contains(&"unlimited".to_owned()), "{name}");
    }
    for name in ["Max open files", "Max processes", "Max core file size"] {
        assert_eq!(compiler.limit(name), ["0", "0"], "{name}");
    }
    let read = |file: &str| fs::read_to_string(format!("/proc/{}/{file}", compiler.0)).expect("it compiles");
    assert_eq!(read("oom_score_adj").trim(), "1000");
    // The 19th field, behind the command's name, is the nice value.
    let stat = read("stat");
    let (_, fields) = stat.rsplit_once(") ").expect("proc(5): stat");
    let nice: i32 = fields.split(' ').nth(16).and_then(|field| field.parse().ok()).expect("proc(5): a number");
    // More, if the tests run so themselves.
    assert!(nice >= 10, "{nice}");
}
