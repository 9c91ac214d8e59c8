//! An OCI runtime that hangs.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, process::Stdio};

use rustix::process::Signal;
use wasmbox_tests::{Containerd, Version, eventually, on_each_version, process::Process, workspace};

use super::{clear_fifos, remove_all, start, stopped};

// Versions of containerd differ in these.
on_each_version!(a_hanging_runtime_is_named_and_ended);

/// A runtime that sleeps for ever at the calls named in a file, before or after it does them.
struct Hanging {
    directory: PathBuf,
}

impl Hanging {
    fn new(containerd: &Containerd) -> Hanging {
        let directory = containerd.directory().join("runtime");
        fs::create_dir(&directory).expect("a new directory");
        let path = directory.display();
        let script = format!(
            "#!/bin/sh\nfor word; do case $word in -*|/*) ;; create|start|exec|delete|kill|pause) call=$word; break ;; esac; done\n\
             case \" $(cat {path}/hangs) \" in\n*\" $call \"*) sleep 100000 ;;\n\
             *\" after-$call \"*) {runc} \"$@\"; sleep 100000 ;;\n*) exec {runc} \"$@\" ;;\nesac\n",
            runc = workspace::tool("containerd/runc").display(),
        );
        fs::write(directory.join("script"), script).expect("a new file");
        fs::set_permissions(directory.join("script"), fs::Permissions::from_mode(0o755)).expect("our own file");
        let options = format!("BinaryName = '{path}/script'\nRuntimeTimeout = 3\n");
        fs::write(directory.join("options.toml"), options).expect("a new file");
        let hanging = Hanging { directory };
        hanging.at("");
        hanging
    }

    fn at(&self, calls: &str) {
        fs::write(self.directory.join("hangs"), calls).expect("our own file");
    }

    fn options(&self) -> String {
        self.directory.join("options.toml").display().to_string()
    }
}

fn a_hanging_runtime_is_named_and_ended(version: Version) {
    let (containerd, busybox) = start(version);
    let hanging = Hanging::new(&containerd);
    let options = hanging.options();
    let run = |id: &str| {
        let words = ["--detach", "--runtime-config-path", &options, busybox.name(), id, "/bin/sleep", "100000"];
        containerd.run(&words)
    };
    let asleep = || containerd.node().processes().iter().any(|(_, words)| words.contains("sleep 100000"));
    for calls in ["create", "create delete", "after-create", "after-create delete", "start", "start delete"] {
        hanging.at(calls);
        let ran = run("one");
        let call = calls.split(' ').next().expect("a call").trim_start_matches("after-");
        let said = format!("OCI runtime {call} did not end within 3 s");
        assert!(ran.code != 0 && ran.stderr.contains(&said), "{calls}: {ran:?}");
        hanging.at("");
        remove_all(&containerd);
        eventually("all of it ended", || (!asleep()).then_some(()));
    }
    // One that hangs holds up nothing else.
    run("two").ok();
    hanging.at("exec");
    let ran = containerd.ctr(&["task", "exec", "--exec-id", "e1", "two", "/bin/true"]);
    assert!(ran.code != 0 && ran.stderr.contains("OCI runtime exec did not end within 3 s"), "{ran:?}");
    hanging.at("delete");
    containerd.ctr(&["task", "kill", "--signal", "9", "two"]).ok();
    stopped(&containerd, "two");
    let ran = containerd.ctr(&["task", "delete", "two"]);
    assert!(ran.code != 0 && ran.stderr.contains("OCI runtime delete did not end within 3 s"), "{ran:?}");
    hanging.at("");
    let ran = containerd.ctr(&["task", "delete", "two"]);
    assert!(ran.stderr.contains("137"), "its status is not lost: {ran:?}");
    containerd.ctr(&["container", "delete", "two"]).ok();
}

#[test]
fn a_hanging_exec_holds_up_nothing_else() {
    let (containerd, busybox) = start(Version::V1_6);
    let hanging = Hanging::new(&containerd);
    fs::write(
        containerd.directory().join("runtime/options.toml"),
        fs::read_to_string(hanging.options()).expect("just written").replace("RuntimeTimeout = 3\n", ""),
    )
    .expect("our own file");
    let options = hanging.options();
    let words = ["--detach", "--runtime-config-path", &options, busybox.name(), "one", "/bin/sleep", "100000"];
    containerd.run(&words).ok();
    hanging.at("exec");
    let mut exec = containerd.command("ctr");
    exec.args(["--namespace", containerd.namespace(), "task", "exec", "--exec-id", "e1", "one", "/bin/true"]);
    let mut exec = exec.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("nsenter");
    eventually("the runtime hangs", || {
        let hangs = |words: &str| words.contains("runtime/script") && words.contains(" exec ");
        containerd.node().processes().iter().any(|(_, words)| hangs(words)).then_some(())
    });
    assert!(containerd.ctr(&["task", "ls"]).ok().contains("RUNNING"));
    containerd.ctr(&["task", "kill", "--signal", "9", "one"]).ok();
    stopped(&containerd, "one");
    // It would hang for a minute.
    for (pid, words) in containerd.node().processes() {
        if words.contains("runtime/script") || words.starts_with("sleep 100000") {
            let _ = Process(pid).try_signal(Signal::KILL);
        }
    }
    eventually("the end of ctr", || exec.try_wait().expect("our child"));
    remove_all(&containerd);
    clear_fifos(&containerd);
}
