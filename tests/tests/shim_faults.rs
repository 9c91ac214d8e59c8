//! The shim when something else fails: killed processes, a containerd that comes and goes, an OCI runtime that hangs, readers that stop, full
//! disks, garbage. Each test ends with the harness's check that nothing is left.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, process::Stdio, thread, time::Duration};

use rustix::process::Signal;
use wasmbox_tests::{
    Containerd, Image, Version,
    containerd::signal,
    cri::{ContainerConfig, Cri, Mount},
    eventually, guest, on_each_version, workspace,
};

// Those in which versions of containerd differ.
on_each_version!(
    a_killed_shim_leaves_nothing,
    a_shim_killed_at_any_moment_leaves_nothing,
    pods_of_a_killed_shim_can_be_removed,
    pods_outlive_containerd,
    containerd_killed_at_any_moment_leaves_nothing_that_cannot_be_removed,
    a_hanging_runtime_is_named_and_ended,
);

fn start(version: Version) -> (Containerd, Image) {
    let containerd = Containerd::start(version);
    let image = Image::busybox();
    containerd.import(&image);
    (containerd, image)
}

fn box_image() -> Image {
    Image::of("box")
        .file("functions/hi.wat", guest::hello())
        .entrypoint(&["wasmbox", "serve", "--functions-dir", "/functions", "--cache-dir", "none"])
        .build()
}

/// The ids in a list of `ctr`.
fn ids(list: &str) -> Vec<String> {
    list.lines().skip(1).filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

/// As a user would after a fault: removes what containerd knows, whatever its state.
fn remove_all(containerd: &Containerd) {
    eventually("all tasks and containers are removed", || {
        for id in ids(&containerd.ctr(&["task", "ls"]).ok()) {
            containerd.ctr(&["task", "delete", "--force", &id]);
        }
        for id in ids(&containerd.ctr(&["container", "ls"]).ok()) {
            containerd.ctr(&["container", "delete", &id]);
        }
        (ids(&containerd.ctr(&["task", "ls"]).ok()).is_empty()
            && ids(&containerd.ctr(&["container", "ls"]).ok()).is_empty())
        .then_some(())
    });
}

fn stopped(containerd: &Containerd, id: &str) {
    let is_stopped =
        |list: &str| list.lines().any(|line| line.starts_with(&format!("{id} ")) && line.contains("STOPPED"));
    eventually("its end", || is_stopped(&containerd.ctr(&["task", "ls"]).ok()).then_some(()));
}

/// containerd notices, calls `delete`, and tells that the container ended as if killed.
fn a_killed_shim_leaves_nothing(version: Version) {
    let (containerd, busybox) = start(version);
    let image = box_image();
    containerd.import(&image);
    for round in 0..3 {
        // containerd may take a moment to forget a name.
        let (ordinary, one) = (&format!("ordinary-{round}"), &format!("box-{round}"));
        containerd.run(&["--detach", busybox.name(), ordinary, "/bin/sleep", "100000"]).ok();
        containerd.run(&["--detach", image.name(), one]).ok();
        let mut waiting = containerd.command("ctr");
        waiting.args(["--namespace", containerd.namespace(), "task", "exec", "--exec-id", "waits", ordinary]);
        waiting.args(["/bin/sleep", "100000"]).stdout(Stdio::null()).stderr(Stdio::null());
        let mut waiting = waiting.spawn().expect("nsenter, of the package util-linux");
        eventually("the exec", || {
            containerd.node().processes().iter().filter(|(_, words)| words == "/bin/sleep 100000 ").nth(1).map(drop)
        });
        let shims = containerd.shims();
        assert_eq!(shims.len(), 2, "round {round}: {:#?}", containerd.node().processes());
        shims.into_iter().for_each(|shim| signal(shim, Signal::KILL));
        eventually("their processes end", || {
            let left = containerd.node().processes();
            let ran = |words: &str| words.starts_with("/bin/sleep") || words.contains("/run/wasmbox/wasmbox");
            (!left.iter().any(|(_, words)| ran(words))).then_some(())
        });
        // Who waits is told.
        eventually("the end of ctr", || waiting.try_wait().expect("our child"));
        remove_all(&containerd);
    }
    clear_fifos(&containerd);
}

/// Also in the middle of a creation, a start or a deletion.
fn a_shim_killed_at_any_moment_leaves_nothing(version: Version) {
    let (containerd, busybox) = start(version);
    let image = box_image();
    containerd.import(&image);
    for round in 0..12_u64 {
        let mut ctr = containerd.command("ctr");
        ctr.args(["--namespace", containerd.namespace(), "run", "--rm", "--runtime", "io.containerd.wasmbox.v1"]);
        if round % 2 == 0 {
            ctr.args([busybox.name(), "one", "/bin/true"]);
        } else {
            ctr.args([image.name(), "one"]);
        }
        let mut ctr = ctr.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("nsenter");
        eventually("the shim", || {
            let ended = ctr.try_wait().expect("our child").is_some();
            (ended || !containerd.shims().is_empty()).then_some(())
        });
        thread::sleep(Duration::from_millis(round * 11));
        // It may have ended by then.
        containerd.shims().into_iter().for_each(|shim| {
            let _ = try_kill(shim);
        });
        eventually("the end of ctr", || ctr.try_wait().expect("our child"));
        remove_all(&containerd);
    }
    clear_fifos(&containerd);
}

fn try_kill(pid: u32) -> rustix::io::Result<()> {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).expect("a process number");
    rustix::process::kill_process(pid, Signal::KILL)
}

/// `ctr` makes the directories of its fifos, and leaves them if it fails halfway.
fn clear_fifos(containerd: &Containerd) {
    for entry in fs::read_dir(containerd.node().path("/run/containerd/fifo")).into_iter().flatten().flatten() {
        fs::remove_dir_all(entry.path()).expect("nobody uses it");
    }
}

/// Nothing is stuck, and the name is free again.
fn pods_of_a_killed_shim_can_be_removed(version: Version) {
    let (containerd, busybox) = start(version);
    let image = box_image();
    containerd.import(&image);
    containerd.import(&Image::pause());
    let cri = Cri::of(&containerd);
    for _ in 0..3 {
        let pod = cri.run(cri.sandbox("pod"));
        let ordinary = cri.start(&pod, ContainerConfig::new("ordinary", busybox.name(), &["/bin/sleep", "100000"]));
        let one = cri.start(&pod, ContainerConfig::new("box", image.name(), &[]));
        let shims = containerd.shims();
        assert_eq!(shims.len(), 1, "one for the pod: {:#?}", containerd.node().processes());
        signal(shims[0], Signal::KILL);
        for container in [&ordinary, &one] {
            // As with every shim: containerd says 255 of what it could not learn.
            let code = cri.ended(container).exit_code;
            assert!([137, 255].contains(&code), "{code}");
        }
        cri.remove(&pod);
    }
}

/// They go on, and are still reached: streams, exit statuses, exec.
fn pods_outlive_containerd(version: Version) {
    let (mut containerd, busybox) = start(version);
    containerd.import(&Image::pause());
    let shared = containerd.directory().join("shared");
    fs::create_dir(&shared).expect("a new directory");
    let cri = Cri::of(&containerd);
    let mut sandbox = cri.sandbox("pod");
    sandbox.log_directory = containerd.directory().join("logs").display().to_string();
    let pod = cri.run(sandbox);
    let script = |name: &str, script: &str| ContainerConfig {
        mounts: vec![Mount {
            container_path: "/shared".into(),
            host_path: shared.display().to_string(),
            ..Mount::default()
        }],
        ..ContainerConfig::new(name, busybox.name(), &["/bin/sh", "-c", script])
    };
    let waits = "until [ -e /shared/$1 ]; do sleep 0.02; done";
    let goes_on = cri.start(
        &pod,
        script(
            "goes-on",
            &format!(
                "w() {{ {waits}; }}; echo before; w away; echo while-away; : >/shared/wrote; w back; echo after; exit 7"
            ),
        ),
    );
    let ends = cri.start(&pod, script("ends", &format!("w() {{ {waits}; }}; w away; echo last; exit 9")));
    let log =
        |name: &str| fs::read_to_string(containerd.directory().join(format!("logs/{name}.log"))).unwrap_or_default();
    eventually("the first line", || log("goes-on").contains("before").then_some(()));
    containerd.end(Signal::KILL);
    fs::write(shared.join("away"), "").expect("our own file");
    eventually("it goes on", || shared.join("wrote").exists().then_some(()));
    eventually("the other one ended", || {
        let running = containerd.node().processes().into_iter();
        (running.filter(|(_, words)| words.starts_with("/bin/sh -c")).count() == 1).then_some(())
    });
    containerd.launch();
    let cri = Cri::of(&containerd);
    let log =
        |name: &str| fs::read_to_string(containerd.directory().join(format!("logs/{name}.log"))).unwrap_or_default();
    // The exit is not lost, nor what was written.
    let status = cri.ended(&ends);
    assert_eq!(status.exit_code, 9, "{status:?}\n{}", containerd.log());
    eventually("what was written meanwhile", || log("goes-on").contains("while-away").then_some(()));
    let (code, out, err) = cri.exec(&goes_on, &["/bin/sh", "-c", "echo inside; exit 3"]).expect("it runs");
    assert_eq!((code, out.as_str()), (3, "inside\n"), "{err}");
    fs::write(shared.join("back"), "").expect("our own file");
    let status = cri.ended(&goes_on);
    assert_eq!(status.exit_code, 7, "{status:?}");
    eventually("the last line", || log("goes-on").contains("after").then_some(()));
    cri.remove(&pod);
}

/// Clients fail; but what containerd knows afterwards can be removed, and there is nothing else.
fn containerd_killed_at_any_moment_leaves_nothing_that_cannot_be_removed(version: Version) {
    let (mut containerd, busybox) = start(version);
    for round in 0..5_u64 {
        let mut clients: Vec<_> = (0..4)
            .map(|number| {
                let mut ctr = containerd.command("ctr");
                ctr.args([
                    "--namespace",
                    containerd.namespace(),
                    "run",
                    "--rm",
                    "--runtime",
                    "io.containerd.wasmbox.v1",
                ]);
                ctr.args([busybox.name(), &format!("r{round}-{number}"), "/bin/sleep", "0.1"]);
                thread::sleep(Duration::from_millis(20 * round));
                ctr.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("nsenter")
            })
            .collect();
        thread::sleep(Duration::from_millis(60 + 30 * round));
        containerd.end(Signal::KILL);
        for client in &mut clients {
            let _ = client.kill();
            let _ = client.wait();
        }
        containerd.launch();
        remove_all(&containerd);
    }
    clear_fifos(&containerd);
}

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
        let options = format!("BinaryName = '{path}/script'\nRuntimeTimeout = 1\n");
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
        let said = format!("OCI runtime {call} did not end within 1 s");
        assert!(ran.code != 0 && ran.stderr.contains(&said), "{calls}: {ran:?}");
        hanging.at("");
        remove_all(&containerd);
        eventually("all of it ended", || (!asleep()).then_some(()));
    }
    // One that hangs holds up nothing else.
    run("two").ok();
    hanging.at("exec");
    let ran = containerd.ctr(&["task", "exec", "--exec-id", "e1", "two", "/bin/true"]);
    assert!(ran.code != 0 && ran.stderr.contains("OCI runtime exec did not end within 1 s"), "{ran:?}");
    hanging.at("delete");
    containerd.ctr(&["task", "kill", "--signal", "9", "two"]).ok();
    stopped(&containerd, "two");
    let ran = containerd.ctr(&["task", "delete", "two"]);
    assert!(ran.code != 0 && ran.stderr.contains("OCI runtime delete did not end within 1 s"), "{ran:?}");
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
        fs::read_to_string(hanging.options()).expect("just written").replace("RuntimeTimeout = 1\n", ""),
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
            let _ = try_kill(pid);
        }
    }
    eventually("the end of ctr", || exec.try_wait().expect("our child"));
    remove_all(&containerd);
    clear_fifos(&containerd);
}

#[test]
fn a_killed_box_is_told_of() {
    let containerd = Containerd::start(Version::V1_6);
    let image = box_image();
    containerd.import(&image);
    for _ in 0..3 {
        containerd.run(&["--detach", image.name(), "box"]).ok();
        let boxes = || {
            let processes = containerd.node().processes().into_iter();
            processes.filter(|(_, words)| words.starts_with("/run/wasmbox/wasmbox")).map(|(pid, _)| pid).next()
        };
        signal(eventually("the box", boxes), Signal::KILL);
        stopped(&containerd, "box");
        let deleted = containerd.ctr(&["task", "delete", "box"]);
        assert!(deleted.stderr.contains("137"), "{deleted:?}");
        containerd.ctr(&["container", "delete", "box"]).ok();
    }
}

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
        readers.iter().for_each(|&pid| signal(pid, Signal::STOP));
        eventually("the container waits", || {
            let state = fs::read_to_string(format!("/proc/{shell}/wchan")).unwrap_or_default();
            let ticks = || wasmbox_tests::process::Process(shell).cpu_ticks();
            let before = ticks();
            thread::sleep(Duration::from_millis(200));
            (ticks() == before).then_some(state)
        });
        assert!(containerd.ctr(&["task", "ls"]).ok().contains("RUNNING"));
        containerd.ctr(&["task", "kill", "--signal", "9", "one"]).ok();
        stopped(&containerd, "one");
        let deleted = containerd.ctr(&["task", "delete", "one"]);
        assert!(deleted.stderr.contains("137"), "{terminal}: {deleted:?}");
        // `script` and `nsenter` stop with what they run.
        let scripts =
            containerd.node().processes().into_iter().filter(|(_, words)| words.starts_with("/usr/bin/script"));
        scripts.map(|(pid, _)| pid).chain(readers).for_each(|pid| signal(pid, Signal::KILL));
        script.kill().expect("our child");
        script.wait().expect("our child");
        remove_all(&containerd);
    }
    clear_fifos(&containerd);
}

#[test]
fn a_garbage_bundle_is_refused_saying_why() {
    let containerd = Containerd::start(Version::V1_6);
    let shim = containerd.directory().join("bin/containerd-shim-wasmbox-v1");
    let bundle = containerd.directory().join("bundle");
    fs::create_dir(&bundle).expect("a new directory");
    let start = |words: &[&str], input: &str| {
        let mut command = containerd.command("/bin/sh");
        command.args(["-c", "cd $0 && exec $@"]).arg(&bundle).arg(&shim);
        command.env("TTRPC_ADDRESS", "/run/containerd/containerd.sock.ttrpc");
        command.args(["-namespace", "default", "-address", "/run/containerd/containerd.sock", "-id", "one"]);
        containerd.node().run_with(command.args(words), input)
    };
    for (config, said) in [
        (None, "config.json"),
        (Some("no JSON"), "config.json is not JSON"),
        (Some("[]"), "config.json is not an object"),
        (Some("\u{1}\u{2}"), "config.json is not JSON"),
        (Some(""), "config.json is not JSON"),
    ] {
        if let Some(config) = config {
            fs::write(bundle.join("config.json"), config).expect("our own file");
        }
        let ran = start(&["start"], "");
        assert!(ran.code != 0 && ran.stderr.contains(said), "{config:?}: {ran:?}");
        // `delete` does what it can.
        assert_eq!(start(&["-bundle", &bundle.display().to_string(), "delete"], "").code, 0);
    }
    let ran = start(&["sing"], "");
    assert!(ran.code != 0 && ran.stderr.contains("\"sing\""), "{ran:?}");
    let ran = start(&[], "");
    assert!(ran.code != 0 && ran.stderr.contains("start or delete"), "{ran:?}");
    // Through containerd: a spec that is one, and cannot be run.
    let image = Image::busybox();
    containerd.import(&image);
    let config = containerd.directory().join("spec.json");
    for (spec, said) in [
        (r#"{"ociVersion": "1.0.2"}"#, "process.args is absent"),
        (
            r#"{"ociVersion": "1.0.2", "process": {"args": ["/bin/true"]}, "annotations": {"wasmbox.dev/container": ""}}"#,
            "annotation wasmbox.dev/container=\"\": expected",
        ),
        (
            r#"{"ociVersion": "1.0.2", "process": {"args": ["/bin/true"], "cwd": "/"}, "root": {"path": "nowhere"}}"#,
            "OCI runtime create failed: ",
        ),
    ] {
        fs::write(&config, spec).expect("our own file");
        let ran = containerd.run(&["--config", &config.display().to_string(), "two"]);
        assert!(ran.code != 0 && ran.stderr.contains(said), "{spec}: {ran:?}");
        remove_all(&containerd);
    }
    clear_fifos(&containerd);
}

/// Each with a shim of its own.
#[test]
fn a_hundred_at_once() {
    let (containerd, busybox) = start(Version::V1_6);
    let clients: Vec<_> = (0..100)
        .map(|number| {
            let mut ctr = containerd.command("ctr");
            ctr.args(["--namespace", containerd.namespace(), "run", "--rm", "--runtime", "io.containerd.wasmbox.v1"]);
            ctr.args([busybox.name(), &format!("c{number}"), "/bin/sh", "-c", &format!("echo {number}; exit 3")]);
            ctr.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("nsenter")
        })
        .collect();
    for (number, client) in clients.into_iter().enumerate() {
        let output = client.wait_with_output().expect("our child");
        assert_eq!(output.status.code(), Some(3), "{number}: {output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{number}\n"));
    }
}
