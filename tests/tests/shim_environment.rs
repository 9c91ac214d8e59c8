//! What containerd's own environment is to what it starts, and how long the names may be from which paths are made.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::{fs::PermissionsExt, net::UnixDatagram},
    path::Path,
};

use wasmbox_tests::{ContainerConfig, Containerd, Cri, Image, Version, guest, node::Ran, on_each_version, workspace};

on_each_version!(the_environment_of_a_unit_reaches_nobody, names_as_long_as_they_may_be);

/// As systemd gives it to a unit of type `notify` that is activated by a socket; and what administrators add.
const UNIT: [(&str, &str); 8] = [
    ("NOTIFY_SOCKET", "/run/notify.socket"),
    ("LISTEN_FDS", "1"),
    ("LISTEN_PID", "1"),
    ("LISTEN_FDNAMES", "containerd.socket"),
    ("INVOCATION_ID", "0123456789abcdef0123456789abcdef"),
    ("JOURNAL_STREAM", "8:1234"),
    ("HTTPS_PROXY", "http://user:sesame@proxy.example:3128"),
    // A setting of the box's.
    ("MEMORY_LIMIT", "nonsense"),
];

fn script(path: &Path, text: &str) {
    fs::write(path, format!("#!/bin/sh\n{text}\n")).expect("a new file");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("our own file");
}

/// Names of the variables in `env`'s output.
fn names(text: &str) -> BTreeSet<&str> {
    text.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect()
}

fn the_environment_of_a_unit_reaches_nobody(version: Version) {
    let mut containerd = Containerd::start(version);
    for image in [Image::pause(), Image::busybox()] {
        containerd.import(&image);
    }
    let image = Image::busybox();
    // It says what it was given, and is runc. containerd asks it for its features, too, by itself.
    let bin = containerd.directory().join("bin");
    let said = containerd.directory().join("said");
    let runc = workspace::tool("containerd/runc");
    fs::remove_file(bin.join("runc")).expect("a link of this node's");
    script(&bin.join("runc"), &format!("[ $1 != --root ] || env >>{}\nexec {} \"$@\"", said.display(), runc.display()));
    let logged = containerd.directory().join("logged");
    let logger = bin.join("logger");
    script(&logger, &format!("exec 5>&-; env >{0}; cat <&3 >>{0}", logged.display()));

    containerd.end(rustix::process::Signal::TERM);
    let notified = UnixDatagram::bind(containerd.node().path(UNIT[0].1)).expect("a new socket");
    containerd.launch_with(&UNIT);
    let mut message = [0; 64];
    let length = notified.recv(&mut message).expect("containerd tells that it is ready");
    assert!(message[..length].starts_with(b"READY=1"));

    // What runc would wait for never comes.
    let ran = containerd.run(&["--rm", image.name(), "one", "/bin/env"]).ok();
    let inside = names(&ran);
    assert!(inside.contains("PATH") && UNIT.iter().all(|(name, _)| !inside.contains(name)), "{ran}");
    let log = format!("binary://{}?x=y", logger.display());
    containerd.run(&["--rm", "--log-uri", &log, image.name(), "two", "/bin/echo", "hello"]).ok();
    // Names as long as Kubernetes has them.
    let cri = Cri::of(&containerd);
    let pod = cri.run(cri.sandbox("pod"));
    let container = cri.start(&pod, ContainerConfig::new("sleeps", image.name(), &["/bin/sleep", "1000"]));
    let (code, out, _) = cri.exec(&container, &["/bin/echo", "inside"]).expect("it runs");
    assert_eq!((code, out.as_str()), (0, "inside\n"));

    // The variables of a shell's own, besides.
    let of_the_shell = ["PWD", "SHLVL", "_", "OLDPWD", "TERM"];
    let passed_on = ["PATH", "LD_LIBRARY_PATH", "TMPDIR", "GOMAXPROCS"];
    let text = fs::read_to_string(&said).expect("runc was called");
    for name in names(&text) {
        assert!(passed_on.contains(&name) || of_the_shell.contains(&name), "runc is given {name}: {text}");
    }
    assert!(names(&text).contains("PATH"), "{text}");
    let text = fs::read_to_string(&logged).expect("the logger was called");
    assert!(text.ends_with("hello\n"), "{text}");
    for name in names(&text) {
        let own = ["CONTAINER_ID", "CONTAINER_NAMESPACE"].contains(&name);
        assert!(own || passed_on.contains(&name) || of_the_shell.contains(&name), "a logger is given {name}: {text}");
    }
    for shim in containerd.shims() {
        let text = fs::read(format!("/proc/{shim}/environ")).expect("it runs");
        let text = String::from_utf8_lossy(&text).replace('\0', "\n");
        assert!(UNIT.iter().all(|(name, _)| !names(&text).contains(name)), "{text}");
    }
    cri.remove(&pod);
}

/// A socket's path has at most 107 bytes; containerd allows names of 76.
fn names_as_long_as_they_may_be(version: Version) {
    let containerd = Containerd::start(version);
    let hello = Image::of("hello").file("hello.wat", guest::hello()).entrypoint(&["/hello.wat"]).build();
    let busybox = Image::busybox();
    let (namespace, id) = ("n".repeat(76), "i".repeat(76));
    let ctr = |arguments: &[&str]| -> Ran {
        let mut command = containerd.command("ctr");
        containerd.node().run(command.args(["--namespace", &namespace]).args(arguments))
    };
    for image in [&hello, &busybox] {
        ctr(&["image", "import", &image.archive().display().to_string()]).ok();
    }
    let cgroup = format!("/{}/{id}", containerd.node().name());
    let run = ["run", "--runtime", "io.containerd.wasmbox.v1", "--cgroup", &cgroup];
    // A module: with its socket of the compile service.
    let ran = ctr(&[&run[..], &["--rm", hello.name(), &id]].concat());
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "hello\n"), "{ran:?}");
    // A terminal: with the socket on which runc sends it. script(1) gives `ctr` one.
    let ctr = containerd.directory().join("bin/ctr").display().to_string();
    let words = [&run[..], &["--rm", "--tty", busybox.name(), &id, "/bin/busybox", "tty"]].concat().join(" ");
    let mut command = containerd.command("/usr/bin/script");
    command.args(["--quiet", "--return", "--command", &format!("{ctr} --namespace {namespace} {words}"), "/dev/null"]);
    let ran = containerd.node().run(&mut command);
    assert!(ran.code == 0 && ran.stdout.contains("/dev/pts/"), "{ran:?}");
    for left in ["/run/containerd/io.containerd.runtime.v2.task", "/run/containerd/wasmbox"] {
        let place = containerd.node().path(left).join(&namespace);
        let entries = fs::read_dir(&place).into_iter().flatten().flatten();
        assert_eq!(entries.map(|entry| entry.path()).collect::<Vec<_>>(), Vec::<std::path::PathBuf>::new());
    }
}
