//! `ctr run` with the shim: boxes, modules, ordinary containers, on each version of containerd.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use http::Request;
use wasmbox_tests::{Containerd, Image, Version, eventually, guest, metrics::Metrics, on_each_version, workspace};

on_each_version!(
    an_ordinary_image_runs_as_with_runc,
    a_module_runs_once_with_stdio_arguments_environment_and_exit_code,
    a_box_answers_requests_each_in_a_cgroup,
    execs_pauses_and_updates,
);

fn an_ordinary_image_runs_as_with_runc(version: Version) {
    let containerd = Containerd::start(version);
    let image = Image::busybox();
    containerd.import(&image);
    let ran = containerd.run(&["--rm", image.name(), "one", "/bin/sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (7, "out\n"), "{ran:?}");
    assert!(ran.stderr.contains("err\n"), "{ran:?}");
    let ran = containerd.run_with(&["--rm", image.name(), "two", "/bin/cat"], "first line\nsecond");
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "first line\nsecond"), "{ran:?}");
    // With the kernel's limits, as asked.
    containerd.run(&["--detach", "--memory-limit", "67108864", image.name(), "three", "/bin/sleep", "1000"]).ok();
    let limit = |cgroup: PathBuf| {
        let files = ["memory.limit_in_bytes", "memory.max"].map(|file| cgroup.join("three").join(file));
        files.iter().find_map(|file| fs::read_to_string(file).ok())
    };
    let limits: Vec<_> = containerd.node().cgroups().into_iter().filter_map(limit).collect();
    assert_eq!(limits, ["67108864\n"]);
    end(&containerd, "three", 9);
}

/// Ends a detached container, and removes it.
fn end(containerd: &Containerd, id: &str, signal: u32) {
    containerd.ctr(&["task", "kill", "--signal", &signal.to_string(), id]).ok();
    let is_stopped =
        |list: String| list.lines().any(|line| line.starts_with(&format!("{id} ")) && line.contains("STOPPED"));
    eventually("its end", || is_stopped(containerd.ctr(&["task", "ls"]).ok()).then_some(()));
    containerd.ctr(&["task", "delete", id]).ok();
    containerd.ctr(&["container", "delete", id]).ok();
}

fn a_module_runs_once_with_stdio_arguments_environment_and_exit_code(version: Version) {
    let containerd = Containerd::start(version);
    let module = fs::read(workspace::example("rust-hello.wasm")).expect("the example is built");
    let image = Image::of("module").file("hello.wasm", module).entrypoint(&["/hello.wasm"]).build();
    containerd.import(&image);
    let ran = containerd.run_with(&["--rm", image.name(), "one", "/hello.wasm", "Ada"], "some text");
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(ran.stdout, "Hello, Ada!\nYou sent 9 bytes: some text\n");
    let exits = Image::of("exits")
        .file("exit.wat", guest::command("(call $exit (i32.const 3))"))
        .entrypoint(&["/exit.wat"])
        .build();
    containerd.import(&exits);
    let ran = containerd.run(&["--rm", exits.name(), "two"]);
    assert_eq!(ran.code, 3, "{ran:?}");
}

const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8095);

fn a_box_answers_requests_each_in_a_cgroup(version: Version) {
    let containerd = Containerd::start(version);
    let image = Image::of("box")
        .file("functions/hi.wat", guest::hello())
        .env("ENABLE_CGROUPS", "true")
        .entrypoint(&["wasmbox", "serve", "--functions-dir", "/functions", "--cache-dir", "none"])
        .build();
    containerd.import(&image);
    containerd.run(&["--detach", "--net-host", image.name(), "box"]).ok();
    let answer = eventually("the box answers", || containerd.node().call(ADDRESS, Request::get("/hi"), "").ok()).ok();
    assert_eq!(answer.text(), "hello\n");
    assert!(answer.headers.contains_key("wasmbox-cpu-time-us"), "{answer:?}");
    let nested = containerd.node().cgroups().iter().any(|cgroup| Path::new(cgroup).join("box/box").is_dir());
    assert!(nested, "{:?}", containerd.node().cgroups());
    let status = containerd.ctr(&["task", "exec", "--exec-id", "e1", "box", "/run/wasmbox/wasmbox", "status"]).ok();
    assert!(status.contains("WasmBox") && status.contains("ready"), "{status}");
    let metrics = containerd.ctr(&["task", "metrics", "box"]).ok();
    assert!(metrics.contains("memory.usage_in_bytes") || metrics.contains("memory.usage"), "{metrics}");
    end(&containerd, "box", 15);
}

fn execs_pauses_and_updates(version: Version) {
    let containerd = Containerd::start(version);
    let image = Image::busybox();
    containerd.import(&image);
    containerd.run(&["--detach", image.name(), "one", "/bin/sleep", "1000"]).ok();
    let exec = |id: &str, words: &[&str]| {
        let mut arguments = vec!["task", "exec", "--exec-id", id, "one"];
        arguments.extend(words);
        containerd.ctr(&arguments)
    };
    let ran = exec("e1", &["/bin/sh", "-c", "echo inside; exit 5"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (5, "inside\n"), "{ran:?}");
    let ran = exec("e2", &["/no/such/program"]);
    assert!(ran.code != 0 && ran.stderr.contains("/no/such/program"), "{ran:?}");
    let list = || containerd.ctr(&["task", "ls"]).ok();
    containerd.ctr(&["task", "pause", "one"]).ok();
    assert!(list().contains("PAUSED"), "{}", list());
    containerd.ctr(&["task", "resume", "one"]).ok();
    assert!(list().contains("RUNNING"), "{}", list());
    let pids = containerd.ctr(&["task", "ps", "one"]).ok();
    assert_eq!(pids.lines().count(), 2, "{pids}");
    containerd.ctr(&["task", "kill", "--signal", "9", "one"]).ok();
    eventually("its end", || list().contains("STOPPED").then_some(()));
    // Killing what has ended is no error that keeps a pod from going.
    let again = containerd.ctr(&["task", "kill", "--signal", "9", "one"]);
    assert!(again.code == 0 || again.stderr.contains("not found") || again.stderr.contains("finished"), "{again:?}");
    let deleted = containerd.ctr(&["task", "delete", "one"]);
    assert!(deleted.stderr.contains("137"), "{deleted:?}");
    containerd.ctr(&["container", "delete", "one"]).ok();
}

#[test]
fn the_doctor_looks_at_the_node() {
    let diagnosis = |containerd: &Containerd| {
        let wasmbox = containerd.directory().join("bin/wasmbox");
        let mut command = containerd.node().command(wasmbox);
        let ran = containerd.node().run(command.arg("doctor").current_dir(containerd.directory()));
        let line = move |check: &str| {
            let found = ran.stdout.lines().find(|line| line[6..].starts_with(check));
            found.unwrap_or_else(|| panic!("{check}: {ran:?}")).to_owned()
        };
        ["containerd", "shim", "handler", "orphans"].map(line)
    };
    let containerd = Containerd::start(Version::V1_7);
    let [daemon, shim, handler, orphans] = diagnosis(&containerd);
    assert!(orphans.starts_with("ok ") && orphans.ends_with("none of 0 shims and 0 containers"), "{orphans}");
    assert!(daemon.starts_with("ok ") && daemon.contains("1.7.") && daemon.contains("runs, pid"), "{daemon}");
    assert!(shim.starts_with("ok ") && shim.contains("bin/containerd-shim-wasmbox-v1"), "{shim}");
    assert!(handler.starts_with("ok ") && handler.contains("wasmbox, of type io.containerd.wasmbox.v1"), "{handler}");
    let config = containerd.directory().join("config.toml");
    let text = fs::read_to_string(&config).expect("its configuration");
    let ours = "[plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.wasmbox]";
    let (before, _) = text.split_once(ours).expect("a handler");
    fs::write(&config, before).expect("our own file");
    let [_, _, handler, _] = diagnosis(&containerd);
    assert!(handler.starts_with("warn") && handler.contains("Kubernetes does not"), "{handler}");
}

/// With `kubectl exec` it has neither the flags of the box nor what the shim added to its environment.
#[test]
fn the_doctor_looks_at_the_box_beside_which_it_runs() {
    let containerd = Containerd::start(Version::V1_7);
    let image = Image::of("box")
        .file("srv/hi.wat", guest::hello())
        .entrypoint(&["wasmbox", "serve", "--functions-dir=/srv", "--cache-dir", "none"])
        .build();
    containerd.import(&image);
    containerd.run(&["--detach", "--net-host", image.name(), "box"]).ok();
    eventually("the box answers", || containerd.node().call(ADDRESS, Request::get("/hi"), "").ok());
    let ran = containerd.ctr(&["task", "exec", "--exec-id", "e1", "box", "/run/wasmbox/wasmbox", "doctor"]);
    let line = |check: &str| {
        let found = ran.stdout.lines().find_map(|line| line.get(6..)?.strip_prefix(check));
        found.unwrap_or_else(|| panic!("{check}: {ran:?}")).trim()
    };
    assert_eq!(line("node cache"), "/run/wasmbox/cache, read-only");
    assert_eq!(line("functions"), "/srv, 1 files");
    assert!(line("port").contains("in use by a box that runs"), "{ran:?}");
    end(&containerd, "box", 15);
}

/// The README's commands.
#[test]
fn the_images_of_the_readme() {
    let containerd = Containerd::start(Version::V1_6);
    for name in ["box", "hello", "ordinary"] {
        let archive = workspace::root().join(format!("target/images/{name}.tar"));
        assert!(archive.is_file(), "{} is not there: run `make images`", archive.display());
        containerd.ctr(&["image", "import", &archive.display().to_string()]).ok();
    }
    let hello = ["--rm", "docker.io/library/hello:latest", "one", "/hello.wasm", "Ada"];
    let ran = containerd.run_with(&hello, "some text\n").ok();
    assert_eq!(ran, "Hello, Ada!\nYou sent 10 bytes: some text\n\n");
    let ran = containerd.run(&["--rm", "docker.io/library/ordinary:latest", "two"]).ok();
    assert_eq!(ran, "A native program.\n");
    containerd.run(&["--detach", "--net-host", "docker.io/library/box:latest", "three"]).ok();
    let ask = || containerd.node().call(ADDRESS, Request::post("/rust-hello?arg=Ada"), "some text").ok();
    assert_eq!(eventually("the box answers", ask).ok().text(), "Hello, Ada!\nYou sent 9 bytes: some text\n");
    end(&containerd, "three", 15);
}

/// The second box of a node finds the code that was compiled for the first, whoever it runs as.
#[test]
fn the_second_box_of_a_node_starts_warm() {
    let containerd = Containerd::start(Version::V1_7);
    let module = fs::read(workspace::example("rust-hello.wasm")).expect("the example is built");
    let serve = ["wasmbox", "serve", "--functions-dir", "/functions"];
    let image = |user: &str| {
        let recipe = Image::of(&format!("box-{user}")).file("functions/hello.wasm", &module);
        recipe.user(user).entrypoint(&serve).build()
    };
    let counted = |user: &str| {
        let image = image(user);
        containerd.import(&image);
        containerd.run(&["--detach", "--net-host", image.name(), "box"]).ok();
        let call =
            |port, path| containerd.node().call(SocketAddr::new(ADDRESS.ip(), port), Request::get(path), "").ok();
        let answer = eventually("the box answers", || call(ADDRESS.port(), "/hello?arg=Ada"));
        assert!(answer.ok().text().starts_with("Hello, Ada!"));
        let metrics = Metrics::new(call(8086, "/metrics").expect("the box runs").text().to_owned());
        end(&containerd, "box", 15);
        [
            metrics.sum("wasmbox_compilations_total", &["result=\"node\""]),
            metrics.sum("wasmbox_compilations_total", &["result=\"ok\""]),
            metrics.sum("wasmbox_cache_requests_total", &["cache=\"node\"", "result=\"hit\""]),
        ]
    };
    assert_eq!(counted("0"), [1.0, 0.0, 0.0], "compiled on the host");
    assert_eq!(counted("65532"), [0.0, 0.0, 1.0], "not compiled again");
    let files = fs::read_dir(containerd.node().path("/var/lib/wasmbox/cache")).expect("the node's cache");
    assert_eq!(files.count(), 1);
}

/// An image may have anything at the places where a box's mounts go.
#[test]
fn symlinks_of_an_image_lead_nowhere() {
    let containerd = Containerd::start(Version::V1_7);
    let outside = containerd.directory().join("outside");
    fs::create_dir(&outside).expect("a new directory");
    for (name, link, target) in [
        ("run", "run", outside.as_path()),
        ("harmless", "run", Path::new("/var/run")),
        ("below", "run/wasmbox", &outside),
    ] {
        let recipe = Image::of(name)
            .file("functions/hi.wat", guest::hello())
            .file("var/run/placeholder", "")
            .entrypoint(&["wasmbox", "serve", "--functions-dir", "/functions", "--enable-cgroups=true"]);
        let recipe = if link.contains('/') { recipe.file("run/placeholder", "") } else { recipe };
        let image = recipe.link(link, target).build();
        containerd.import(&image);
        containerd.run(&["--detach", "--net-host", image.name(), "box"]).ok();
        let ask = || containerd.node().call(ADDRESS, Request::get("/hi"), "").ok();
        assert_eq!(eventually("the box answers, in cgroups", ask).ok().text(), "hello\n");
        end(&containerd, "box", 15);
        let made: Vec<_> = fs::read_dir(&outside).expect("our own directory").flatten().collect();
        assert!(made.is_empty(), "{name}: {made:?}");
    }
}

#[test]
fn signals_by_which_images_are_stopped() {
    let containerd = Containerd::start(Version::V1_7);
    let image = Image::busybox();
    containerd.import(&image);
    // SIGRTMIN+3, as kill(1) counts.
    let waits = "trap 'exit 9' 37; while :; do sleep 0.1; done";
    containerd.run(&["--detach", image.name(), "one", "/bin/sh", "-c", waits]).ok();
    let refused = containerd.ctr(&["task", "kill", "--signal", "65", "one"]);
    assert_ne!(refused.code, 0, "{refused:?}");
    end(&containerd, "one", 37);
}

/// Paths of cgroups that a box makes may be longer than the kernel takes.
#[test]
fn a_box_that_nests_cgroups_can_be_removed() {
    let containerd = Containerd::start(Version::V1_7);
    let busybox = fs::read(workspace::tool("containerd/busybox")).expect("busybox");
    let image = Image::of("nests")
        .file("bin/busybox", busybox)
        .file("functions/hi.wat", guest::hello())
        .entrypoint(&["wasmbox", "serve", "--functions-dir", "/functions", "--cache-dir", "none"])
        .build();
    containerd.import(&image);
    containerd.run(&["--detach", "--net-host", image.name(), "box"]).ok();
    let nest = "cd /run/wasmbox/cgroup && name=$(/bin/busybox printf '%0250d' 0) && \
                for i in $(/bin/busybox seq 15); do /bin/busybox mkdir $name && cd $name || exit 1; done && \
                /bin/busybox mkdir -p $name/$name/$name";
    containerd.ctr(&["task", "exec", "--exec-id", "nest", "box", "/bin/busybox", "sh", "-c", nest]).ok();
    end(&containerd, "box", 9);
}

#[test]
fn values_of_the_environment_are_not_on_the_command_line() {
    let containerd = Containerd::start(Version::V1_7);
    let naps = guest::command("(call $print_environment) (call $sleep (i64.const 3600000))");
    let image = Image::of("secret").file("nap.wat", naps).env("TOKEN", "sesame").entrypoint(&["/nap.wat"]).build();
    containerd.import(&image);
    let log = containerd.directory().join("nap.log");
    containerd.run(&["--detach", "--log-uri", &format!("file://{}", log.display()), image.name(), "one"]).ok();
    let printed = || fs::read_to_string(&log).ok().filter(|text| text.contains("TOKEN=sesame"));
    eventually("the guest has its environment", printed);
    let lines: Vec<_> = containerd.node().processes().into_iter().map(|(_, words)| words).collect();
    assert!(lines.iter().any(|words| words.contains("--env=TOKEN ")), "{lines:?}");
    assert!(!lines.iter().any(|words| words.contains("sesame")), "{lines:?}");
    end(&containerd, "one", 9);
}
