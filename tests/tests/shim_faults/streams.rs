//! Where output goes: loggers that hang, disks that are full, readers that stop; and what a container inherits.

use std::{fs, os::unix::fs::PermissionsExt, process::Stdio, thread, time::Duration};

use rustix::process::Signal;
use wasmbox_tests::{Version, eventually, process::Process, workspace};

use super::{clear_fifos, remove_all, start, stopped};

/// Neither the shim's sockets nor its ends of streams.
#[test]
fn containers_inherit_no_descriptors() {
    let (containerd, busybox) = start(Version::V1_6);
    // The fourth is its own, of the directory.
    let list = ["/bin/ls", "/proc/self/fd"];
    let ran = containerd.run(&[&["--rm", busybox.name(), "one"], &list[..]].concat());
    assert_eq!(ran.ok().split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"]);
    containerd.run(&["--detach", busybox.name(), "two", "/bin/sleep", "100000"]).ok();
    let ran = containerd.ctr(&[&["task", "exec", "--exec-id", "e1", "two"], &list[..]].concat());
    assert_eq!(ran.ok().split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"]);
    remove_all(&containerd);
}

#[test]
fn a_logger_gets_all_and_one_that_hangs_holds_up_nothing() {
    let (containerd, busybox) = start(Version::V1_6);
    let logger = |name: &str, script: &str| {
        let path = containerd.directory().join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("a new file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("our own file");
        let to = containerd.directory().join("logged").display().to_string().replace('/', "%2F");
        format!("binary://{}?to={to}", path.display())
    };
    let slow = logger("slow", "exec 5>&-; sleep 0.3; cat <&3 >$2");
    let words = ["--rm", "--log-uri", &slow, busybox.name(), "one", "/bin/sh", "-c", "echo first; echo last; exit 4"];
    assert_eq!(containerd.run(&words).code, 4);
    // The container is deleted, and so its logger has ended.
    let logged = fs::read_to_string(containerd.directory().join("logged")).expect("the log");
    assert_eq!(logged, "first\nlast\n");
    let hanging = logger("hanging", "exec sleep 100000");
    let ran = containerd.run(&["--log-uri", &hanging, busybox.name(), "two", "/bin/true"]);
    assert!(ran.code != 0 && ran.stderr.contains("/hanging: was not ready within 10s"), "{ran:?}");
    remove_all(&containerd);
    clear_fifos(&containerd);
}

#[test]
fn a_full_disk_for_logs_is_the_writers_matter() {
    let (containerd, busybox) = start(Version::V1_6);
    let tool = workspace::tool("containerd/busybox");
    let full = containerd.node().path("/run/full");
    fs::create_dir(&full).expect("a new directory");
    let mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "full", "/run/full"];
    containerd.node().run(containerd.node().command(&tool).args(mount)).ok();
    let script = "dd if=/dev/zero bs=1024 count=1000 || exit 5";
    let words = ["--rm", "--log-uri", "file:///run/full/log", busybox.name(), "one", "/bin/sh", "-c", script];
    let ran = containerd.run(&words);
    assert_eq!(ran.code, 5, "{ran:?}");
    assert_eq!(fs::metadata(full.join("log")).expect("the log").len(), 65536);
    // Nor does it matter to what comes next.
    let words = ["--rm", "--log-uri", "file:///run/full/next", busybox.name(), "two", "/bin/sh", "-c", "exit 6"];
    assert_eq!(containerd.run(&words).code, 6);
    containerd.node().run(containerd.node().command(&tool).args(["umount", "/run/full"])).ok();
}

/// With and without a terminal: the container waits, and can be killed and removed all the same.
#[test]
fn a_reader_that_stops_holds_up_only_the_writer() {
    let (containerd, busybox) = start(Version::V1_6);
    for terminal in ["", "--tty"] {
        let ctr = containerd.directory().join("bin/ctr");
        let line = format!(
            "{} --namespace {} run {terminal} --runtime io.containerd.wasmbox.v1 {} one /bin/sh -c \
             'while :; do echo 0123456789012345678901234567890123456789; done'",
            ctr.display(),
            containerd.namespace(),
            busybox.name()
        );
        // `script` gives it a terminal.
        let mut script = containerd.command("/usr/bin/script");
        script.args(["--quiet", "--command", &line, "/dev/null"]).stdout(Stdio::null()).stderr(Stdio::null());
        let mut script = script.spawn().expect("nsenter");
        let shell = || {
            let processes = containerd.node().processes().into_iter();
            processes.filter(|(_, words)| words.starts_with("/bin/sh -c while")).map(|(pid, _)| pid).next()
        };
        let shell = eventually("the container", shell);
        let reader = containerd.node().processes().into_iter();
        let reader = reader.filter(|(_, words)| words.starts_with(&ctr.display().to_string())).map(|(pid, _)| pid);
        let readers: Vec<u32> = reader.collect();
        assert!(!readers.is_empty());
        readers.iter().for_each(|&pid| Process(pid).signal(Signal::STOP));
        eventually("the container waits", || {
            let before = Process(shell).cpu_ticks();
            thread::sleep(Duration::from_millis(200));
            (Process(shell).cpu_ticks() == before).then_some(())
        });
        assert!(containerd.ctr(&["task", "ls"]).ok().contains("RUNNING"));
        containerd.ctr(&["task", "kill", "--signal", "9", "one"]).ok();
        stopped(&containerd, "one");
        let deleted = containerd.ctr(&["task", "delete", "one"]);
        assert!(deleted.stderr.contains("137"), "{terminal}: {deleted:?}");
        // `script` and `nsenter` stop with what they run.
        let scripts =
            containerd.node().processes().into_iter().filter(|(_, words)| words.starts_with("/usr/bin/script"));
        // With the terminal's end, one that is stopped may end before its turn.
        for pid in scripts.map(|(pid, _)| pid).chain(readers) {
            let _ = Process(pid).try_signal(Signal::KILL);
        }
        script.kill().expect("our child");
        script.wait().expect("our child");
        remove_all(&containerd);
    }
    clear_fifos(&containerd);
}
