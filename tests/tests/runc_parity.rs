//! What containerd's shim for runc does, and clients rely on: this one does it, too.

use std::{
    fs::{self, OpenOptions},
    io::Read,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

use containerd_shim_protos::{
    api::{
        ConnectRequest, ConnectResponse, DeleteRequest, DeleteResponse, Empty, ExecProcessRequest, KillRequest,
        PauseRequest, ResumeRequest, StartRequest, StartResponse, StateRequest, StateResponse, StatsRequest,
        StatsResponse, Status, WaitRequest, WaitResponse,
    },
    cgroups::metrics::{BlkIOEntry, Metrics},
    protobuf::{Message, MessageField, well_known_types::any::Any},
    ttrpc::Code,
};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use wasmbox_tests::{
    ContainerConfig, Containerd, Cri, Image, Version,
    cri::SandboxConfig,
    eventually, guest, on_each_version,
    task::{SERVICES, Shim, end, sleeping},
};

on_each_version!(
    options_that_containerd_writes_for_runc_say_nothing,
    options_of_clients_are_taken,
    execs_that_never_run_ended_with_nothing,
    a_frozen_container_takes_no_execs,
    what_an_exec_leaves_behind_holds_nothing_up,
    errors_of_the_runtime_are_no_output,
    a_terminal_has_a_logger,
);

const RUNTIME: &str = "io.containerd.wasmbox.v1";
const V2: &str = SERVICES[0];
const V3: &str = SERVICES[1];

fn id() -> String {
    "one".into()
}

/// Adds a process to the container.
fn exec(shim: &Shim, exec_id: &str, words: &[&str]) -> Result<Empty, (Code, String)> {
    shim.call(V2, "Exec", &request(exec_id, words))
}

fn request(exec_id: &str, words: &[&str]) -> ExecProcessRequest {
    let process = serde_json::json!({"args": words, "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}});
    let spec = MessageField::some(Any { value: process.to_string().into_bytes(), ..Any::default() });
    ExecProcessRequest { id: id(), exec_id: exec_id.into(), spec, ..ExecProcessRequest::default() }
}

fn start(shim: &Shim, exec_id: &str) -> Result<StartResponse, (Code, String)> {
    shim.call(V3, "Start", &StartRequest { id: id(), exec_id: exec_id.into(), ..StartRequest::default() })
}

fn state(shim: &Shim, exec_id: &str) -> Status {
    let request = StateRequest { id: id(), exec_id: exec_id.into(), ..StateRequest::default() };
    let state: StateResponse = shim.call(V2, "State", &request).expect("State");
    state.status.enum_value().expect("a status")
}

fn wait(shim: &Shim, exec_id: &str) -> u32 {
    let request = WaitRequest { id: id(), exec_id: exec_id.into(), ..WaitRequest::default() };
    let ended: WaitResponse = shim.call(V2, "Wait", &request).expect("Wait");
    ended.exit_status
}

fn delete(shim: &Shim, exec_id: &str) -> DeleteResponse {
    let request = DeleteRequest { id: id(), exec_id: exec_id.into(), ..DeleteRequest::default() };
    shim.call(V3, "Delete", &request).expect("Delete")
}

/// All of runc's options, as `containerd config default` writes them.
const OPTIONS_OF_RUNC: &str = "BinaryName = ''\nCriuImagePath = ''\nCriuPath = ''\nCriuWorkPath = ''\nIoGid = 0\nIoUid = 0\n\
                               NoNewKeyring = false\nNoPivotRoot = false\nRoot = ''\nShimCgroup = ''\nSystemdCgroup = false\n";

fn options_that_containerd_writes_for_runc_say_nothing(version: Version) {
    let containerd = Containerd::configured(version, OPTIONS_OF_RUNC);
    containerd.import(&Image::pause());
    let cri = Cri::of(&containerd);
    let pod = cri.run(cri.sandbox("defaults"));
    cri.remove(&pod);
}

#[test]
fn options_for_what_cannot_be_done_are_refused() {
    let options = OPTIONS_OF_RUNC.replace("CriuWorkPath = ''", "CriuWorkPath = '/var/lib/criu'");
    let containerd = Containerd::configured(Version::V1_7, &options);
    containerd.import(&Image::pause());
    let cri = Cri::of(&containerd);
    let refused = cri.try_run(cri.sandbox("checkpoints")).expect_err("there are no checkpoints");
    assert!(refused.message().contains("CriuWorkPath: not supported"), "{refused}");
}

/// The client of 1.7 sends `containerd.linux.runc.CreateOptions`, others `containerd.runc.v1.Options`.
fn options_of_clients_are_taken(version: Version) {
    let containerd = Containerd::start(version);
    let image = Image::busybox();
    containerd.import(&image);
    let ran = containerd.run(&["--rm", "--no-pivot", image.name(), "one", "/bin/sh", "-c", "echo ran"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "ran\n"), "{ran:?}");
}

fn execs_that_never_run_ended_with_nothing(version: Version) {
    let (containerd, shim) = sleeping(version);
    exec(&shim, "unwanted", &["/bin/true"]).expect("Exec");
    let deleted = delete(&shim, "unwanted");
    assert_eq!((deleted.exit_status, deleted.pid), (0, 0));

    exec(&shim, "missing", &["/no/such/program"]).expect("Exec");
    let refused = start(&shim, "missing").expect_err("there is no such program");
    assert!(refused.1.contains("/no/such/program"), "{refused:?}");
    assert_eq!(state(&shim, "missing"), Status::CREATED);
    // It may be tried again, as with a container's first process.
    let refused = start(&shim, "missing").expect_err("there is still no such program");
    assert!(refused.1.contains("/no/such/program"), "{refused:?}");
    assert_eq!(delete(&shim, "missing").exit_status, 0);

    let request = ConnectRequest::default();
    for service in SERVICES {
        let connected: ConnectResponse = shim.call(service, "Connect", &request).expect("Connect without an id");
        assert!(connected.shim_pid > 0 && connected.task_pid == 0, "{connected}");
    }
    end(&containerd);
}

fn a_frozen_container_takes_no_execs(version: Version) {
    let (containerd, shim) = sleeping(version);
    exec(&shim, "running", &["/bin/sleep", "1000"]).expect("Exec");
    start(&shim, "running").expect("Start");
    exec(&shim, "before", &["/bin/true"]).expect("Exec");
    let _: Empty = shim.call(V2, "Pause", &PauseRequest { id: id(), ..PauseRequest::default() }).expect("Pause");
    assert_eq!(state(&shim, "running"), Status::PAUSED);
    let refused = [exec(&shim, "after", &["/bin/true"]).map(drop), start(&shim, "before").map(drop)];
    for refused in refused {
        let (code, message) = refused.expect_err("it is frozen");
        assert_eq!(code, Code::FAILED_PRECONDITION);
        assert!(message.contains("cannot exec in a paused state"), "{message}");
    }
    let _: Empty = shim.call(V2, "Resume", &ResumeRequest { id: id(), ..ResumeRequest::default() }).expect("Resume");
    start(&shim, "before").expect("Start");
    assert_eq!(wait(&shim, "before"), 0);
    let request = KillRequest { id: id(), signal: 9, ..KillRequest::default() };
    let _: Empty = shim.call(V2, "Kill", &request).expect("Kill");
    assert_eq!(wait(&shim, ""), 137);
    let (code, message) = exec(&shim, "late", &["/bin/true"]).expect_err("it has ended");
    assert_eq!(code, Code::FAILED_PRECONDITION);
    assert!(message.contains("cannot exec in a stopped state"), "{message}");
    end(&containerd);
}

/// A process in the background has the exec's output, which its reader would wait for.
fn what_an_exec_leaves_behind_holds_nothing_up(version: Version) {
    let (containerd, _) = sleeping(version);
    let script = "echo before; echo wrong >&2; sleep 1000 & exit 6";
    let ran = containerd.ctr(&["task", "exec", "--exec-id", "leaves", "one", "/bin/sh", "-c", script]);
    assert_eq!((ran.code, ran.stdout.as_str()), (6, "before\n"), "{ran:?}");
    assert!(ran.stderr.contains("wrong\n"), "{ran:?}");
    // All of a longer output comes, too.
    let script = "/bin/busybox seq 100000; exec /bin/busybox seq 100000 >&2";
    let ran = containerd.ctr(&["task", "exec", "--exec-id", "long", "one", "/bin/sh", "-c", script]);
    let numbers: String = (1..=100_000).map(|number| format!("{number}\n")).collect();
    let lengths = [ran.stdout.len(), ran.stderr.len()];
    assert!(ran.code == 0 && ran.stdout == numbers, "{} {lengths:?}", ran.code);
    // Versions of `ctr` have warnings of their own.
    assert!(ran.stderr.ends_with(&numbers), "{lengths:?}");
    end(&containerd);
}

fn errors_of_the_runtime_are_no_output(version: Version) {
    let (containerd, shim) = sleeping(version);
    let path = containerd.directory().join("stderr");
    mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).expect("a new fifo");
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let opened = OpenOptions::new().read(true).write(true).custom_flags(nonblocking).open(&path);
    let mut stderr = opened.expect("our own fifo");
    let request =
        ExecProcessRequest { stderr: path.display().to_string(), ..request("missing", &["/no/such/program"]) };
    let _: Empty = shim.call(V2, "Exec", &request).expect("Exec");
    start(&shim, "missing").expect_err("there is no such program");
    let nothing = stderr.read(&mut [0; 1024]).expect_err("nothing was written");
    assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock);
    delete(&shim, "missing");
    end(&containerd);

    // Nor of a container's, whose log has what its first process wrote, and no more.
    containerd.import(&Image::pause());
    let cri = Cri::of(&containerd);
    let logs = containerd.directory().join("logs");
    let pod = cri.run(SandboxConfig { log_directory: logs.display().to_string(), ..cri.sandbox("errors") });
    let config = |name: &str, words: &[&str]| ContainerConfig::new(name, Image::busybox().name(), words);
    let missing = cri.try_create(&pod, config("missing", &["/no/such/program"])).expect("the container is created");
    let refused = cri.try_start(&missing).expect_err("there is no such program");
    assert!(refused.message().contains("/no/such/program"), "{refused}");
    let wrong = ["/bin/sh", "-c", "/bin/busybox seq 100000 >&2; echo the end"];
    let wrong = cri.start(&pod, config("wrong", &wrong));
    assert_eq!(cri.ended(&wrong).exit_code, 0);
    cri.remove(&pod);
    let log = |name: &str| fs::read_to_string(logs.join(name)).expect("the log");
    assert_eq!(log("missing.log"), "");
    let log = log("wrong.log");
    let words = |stream: &str| -> Vec<_> {
        let lines = log.lines().filter_map(|line| line.split_once(&format!(" {stream} F ")));
        lines.map(|(_, words)| words.to_owned()).collect()
    };
    assert!(
        words("stderr").into_iter().eq((1..=100_000).map(|number| number.to_string())),
        "{}",
        words("stderr").len()
    );
    assert_eq!(words("stdout"), ["the end"]);
}

fn a_terminal_has_a_logger(version: Version) {
    let (containerd, shim) = sleeping(version);
    let logged = containerd.directory().join("logged");
    let logger = containerd.directory().join("logger");
    let script = "#!/bin/sh\nexec 5>&-; cat <&3 >$2; echo the end >>$2\n";
    fs::write(&logger, script).expect("a new file");
    fs::set_permissions(&logger, fs::Permissions::from_mode(0o755)).expect("our own file");
    let to = |path: &Path| path.display().to_string().replace('/', "%2F");
    let file = containerd.directory().join("file/appended");
    let addresses = [format!("binary://{}?to={}", logger.display(), to(&logged)), format!("file://{}", file.display())];
    for (exec_id, stdout) in ["logger", "file"].into_iter().zip(addresses) {
        let script = "test -t 1 && echo on a terminal; exit 3";
        let request = ExecProcessRequest { terminal: true, stdout, ..request(exec_id, &["/bin/sh", "-c", script]) };
        let _: Empty = shim.call(V2, "Exec", &request).expect("Exec");
        start(&shim, exec_id).expect("Start");
        assert_eq!(wait(&shim, exec_id), 3);
        // With the process its logger has ended.
        assert_eq!(delete(&shim, exec_id).exit_status, 3);
    }
    assert_eq!(fs::read_to_string(logged).expect("the log"), "on a terminal\r\nthe end\n");
    assert_eq!(fs::read_to_string(file).expect("the file"), "on a terminal\r\n");
    end(&containerd);
}

/// Clients look for readings that are no matter of chance; `nerdctl stats` ends if there is none of block devices.
#[test]
fn statistics_have_what_those_of_runcs_shim_have() {
    let containerd = Containerd::start(Version::V1_7);
    let image = Image::busybox();
    containerd.import(&image);
    let metrics = |runtime: &str, id: &str| {
        let flags = ["--detach", "--runtime", runtime, "--memory-limit", "67108864"];
        let script = "dd if=/bin/busybox of=/copy bs=4096 && sync; sleep 1000";
        containerd.ctr(&[&["run"], &flags[..], &[image.name(), id, "/bin/sh", "-c", script]].concat()).ok();
        eventually("it sleeps", || {
            containerd.ctr(&["task", "ps", id]);
            containerd.node().processes().iter().any(|(_, words)| words.starts_with("sleep 1000")).then_some(())
        });
        let request = StatsRequest { id: id.into(), ..StatsRequest::default() };
        let stats: StatsResponse = Shim::of(&containerd, id).call(V2, "Stats", &request).expect("Stats");
        containerd.ctr(&["task", "delete", "--force", id]).ok();
        containerd.ctr(&["container", "delete", id]).ok();
        Metrics::parse_from_bytes(&stats.stats.value).expect("metrics of cgroup v1")
    };
    let (ours, theirs) = (metrics(RUNTIME, "ours"), metrics("io.containerd.runc.v2", "theirs"));
    let limits = |metrics: &Metrics| {
        let memory = &metrics.memory;
        [memory.hierarchical_memory_limit, memory.hierarchical_swap_limit, memory.usage.limit, metrics.pids.limit]
    };
    assert_eq!(limits(&ours), limits(&theirs));
    for memory in [&ours.memory, &theirs.memory] {
        assert!(memory.pg_pg_in > 0 && memory.total_pg_pg_in > 0, "{memory:?}");
        assert!(memory.pg_pg_out > 0 && memory.total_pg_pg_out > 0, "{memory:?}");
    }
    let sizes = |metrics: &Metrics| {
        let mut sizes: Vec<_> = metrics.hugetlb.iter().map(|hugetlb| hugetlb.pagesize.clone()).collect();
        sizes.sort();
        sizes
    };
    assert_eq!(sizes(&ours), sizes(&theirs));
    assert!(ours.blkio.is_some() && theirs.blkio.is_some());
    let operations = |entries: &[BlkIOEntry]| {
        let mut operations: Vec<_> =
            entries.iter().map(|entry| (entry.device.clone(), entry.major, entry.minor, entry.op.clone())).collect();
        operations.sort();
        operations
    };
    assert_eq!(
        operations(&ours.blkio.io_service_bytes_recursive),
        operations(&theirs.blkio.io_service_bytes_recursive)
    );
    assert_eq!(operations(&ours.blkio.io_serviced_recursive), operations(&theirs.blkio.io_serviced_recursive));
}

/// The first process of a container is told only of signals that it handles; a module has no handlers.
#[test]
fn signals_end_a_module() {
    let containerd = Containerd::start(Version::V1_7);
    let naps = guest::command("(call $sleep (i64.const 3600000))");
    let image = Image::of("naps").file("nap.wat", naps).entrypoint(&["/nap.wat"]).build();
    containerd.import(&image);
    // SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGTERM, SIGRTMIN+3.
    for signal in [1, 2, 3, 10, 15, 37] {
        containerd.run(&["--detach", image.name(), "one"]).ok();
        let request = KillRequest { id: id(), signal, ..KillRequest::default() };
        let shim = Shim::of(&containerd, "one");
        let request_of_state = StateRequest { id: id(), ..StateRequest::default() };
        let state: StateResponse = shim.call(V2, "State", &request_of_state).expect("State");
        let handled = || {
            let file = |name| containerd.node().path(format!("/proc/{}/{name}", state.pid));
            // Before, it is the OCI runtime's process, which has handlers of its own.
            fs::read(file("cmdline")).ok().filter(|words| words.starts_with(b"/run/wasmbox/wasmbox\0"))?;
            let status = fs::read_to_string(file("status")).ok()?;
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"))?;
            let caught = u64::from_str_radix(caught.trim(), 16).expect("a mask");
            (caught >> (signal - 1) & 1 == 1).then_some(())
        };
        eventually("it runs", handled);
        let _: Empty = shim.call(V2, "Kill", &request).expect("Kill");
        assert_eq!(wait(&shim, ""), 128 + signal);
        end(&containerd);
    }
}

/// Users of a container of `ctr`, whose snapshot belongs to them already.
#[test]
fn containers_have_users_of_their_own() {
    let containerd = Containerd::start(Version::V1_7);
    let busybox = fs::read(wasmbox_tests::workspace::tool("containerd/busybox")).expect("busybox");
    let ordinary = Image::busybox();
    let module = Image::of("exits")
        .file("bin/busybox", busybox)
        .file("exit.wat", guest::command("(call $exit (i32.const 3))"))
        .entrypoint(&["/exit.wat"])
        .build();
    for image in [&ordinary, &module] {
        containerd.import(image);
    }
    let users = ["--rm", "--uidmap", "0:300000:65536", "--gidmap", "0:300000:65536"];
    let script = "id -u; cat /proc/self/uid_map; echo opened >/dev/stdout";
    let ran = containerd.run(&[&users[..], &[ordinary.name(), "one", "/bin/sh", "-c", script]].concat());
    let words: Vec<_> = ran.stdout.split_whitespace().collect();
    assert_eq!((ran.code, words), (0, vec!["0", "0", "300000", "65536", "opened"]), "{ran:?}");
    let ran = containerd.run(&[&users[..], &[module.name(), "two"]].concat());
    assert_eq!(ran.code, 3, "{ran:?}");
}
