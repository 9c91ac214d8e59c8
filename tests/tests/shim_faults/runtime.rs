//! An OCI runtime that hangs.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, process::Stdio};

use containerd_shim_protos::{
    api::{StatsRequest, StatsResponse},
    cgroups::metrics::Metrics,
    protobuf::Message,
};
use rustix::process::Signal;
use wasmbox_tests::{
    Containerd, Version, eventually, on_each_version,
    process::Process,
    task::{SERVICES, Shim},
    workspace,
};

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

    /// With the shim's own deadline.
    fn for_a_minute(&self) {
        let options = fs::read_to_string(self.options()).expect("just written");
        fs::write(self.options(), options.replace("RuntimeTimeout = 3\n", "")).expect("our own file");
    }
}

/// Waits until it does.
fn hangs_at(containerd: &Containerd, call: &str) {
    let hangs = |words: &str| words.contains("runtime/script") && words.contains(&format!(" {call} "));
    eventually("the runtime hangs", || {
        containerd.node().processes().iter().any(|(_, words)| hangs(words)).then_some(())
    });
}

fn end_call(containerd: &Containerd) {
    for (pid, words) in containerd.node().processes() {
        if words.contains("runtime/script") || words.starts_with("sleep 100000") {
            let _ = Process(pid).try_signal(Signal::KILL);
        }
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
    hanging.for_a_minute();
    let options = hanging.options();
    let words = ["--detach", "--runtime-config-path", &options, busybox.name(), "one", "/bin/sleep", "100000"];
    containerd.run(&words).ok();
    hanging.at("exec");
    let mut exec = containerd.command("ctr");
    exec.args(["--namespace", containerd.namespace(), "task", "exec", "--exec-id", "e1", "one", "/bin/true"]);
    let mut exec = exec.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("nsenter");
    hangs_at(&containerd, "exec");
    assert!(containerd.ctr(&["task", "ls"]).ok().contains("RUNNING"));
    containerd.ctr(&["task", "kill", "--signal", "9", "one"]).ok();
    stopped(&containerd, "one");
    end_call(&containerd);
    eventually("the end of ctr", || exec.try_wait().expect("our child"));
    remove_all(&containerd);
    clear_fifos(&containerd);
}

/// In a pid namespace that is others', too, the OCI runtime kills what the first process leaves. Until then that may run out of memory.
#[test]
fn lack_of_memory_is_told_also_after_the_first_processs_end() {
    let (containerd, busybox) = start(Version::V1_6);
    let hanging = Hanging::new(&containerd);
    hanging.for_a_minute();
    hanging.at("kill");
    let events = containerd.events();
    let script = "(sleep 100001; dd if=/dev/zero of=/dev/null bs=128M count=1) & exit 3";
    let options = hanging.options();
    let flags = ["--detach", "--runtime-config-path", &options, "--memory-limit", "33554432"];
    let words = ["--with-ns", "pid:/proc/1/ns/pid", busybox.name(), "one", "/bin/sh", "-c", script];
    containerd.run(&[&flags[..], &words[..]].concat()).ok();
    hangs_at(&containerd, "kill");
    let left = || {
        let processes = containerd.node().processes().into_iter();
        processes.filter(|(_, words)| words.contains("sleep 100001") || words.contains("bs=128M")).collect::<Vec<_>>()
    };
    let asleep = eventually("it sleeps", || left().into_iter().find(|(_, words)| words.starts_with("sleep 100001")));
    Process(asleep.0).signal(Signal::KILL);
    eventually("memory is short", || left().is_empty().then_some(()));
    hanging.at("");
    end_call(&containerd);
    assert_eq!(events.until("one", "/tasks/exit").content["exit_status"], 3);
    let topics: Vec<_> = events.of("one").into_iter().map(|event| event.topic).collect();
    assert_eq!(topics, ["/tasks/create", "/tasks/start", "/tasks/oom", "/tasks/exit"]);
    let request = StatsRequest { id: "one".into(), ..StatsRequest::default() };
    let stats: StatsResponse = Shim::of(&containerd, "one").call(SERVICES[0], "Stats", &request).expect("Stats");
    let metrics = Metrics::parse_from_bytes(&stats.stats.value).expect("metrics of cgroup v1");
    assert_eq!(metrics.memory_oom_control.oom_kill, 1, "{metrics}");
    drop(events);
    remove_all(&containerd);
}
