//! The Task service, as containerd's shims have it: every call in both versions, what is refused, and events in their order.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    path::Path,
    process::Stdio,
    time::{Duration, SystemTime},
};

use containerd_shim_protos::{
    api::{
        CheckpointTaskRequest, CloseIORequest, ConnectRequest, ConnectResponse, CreateTaskRequest, DeleteRequest,
        DeleteResponse, Empty, ExecProcessRequest, KillRequest, PauseRequest, PidsRequest, PidsResponse,
        ResizePtyRequest, ResumeRequest, ShutdownRequest, StartRequest, StartResponse, StateRequest, StateResponse,
        StatsRequest, StatsResponse, Status, UpdateTaskRequest, WaitRequest, WaitResponse,
    },
    cgroups::metrics::Metrics,
    protobuf::{Message, MessageField, well_known_types::any::Any},
    ttrpc::Code,
    types::introspection::RuntimeInfo,
};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use wasmbox_tests::{
    Containerd, Image, Version, eventually, on_each_version,
    task::{SERVICES, Shim, end, sleeping},
};

on_each_version!(
    every_call_answers_under_both_names,
    what_is_not_there_is_not_found,
    processes_have_streams_and_terminals,
    events_come_in_the_order_of_runcs_shim,
    a_process_that_ends_at_once_has_started_before,
    counters_outlive_a_container_that_ran_out_of_memory,
    it_says_what_it_is,
);

const RUNTIME: &str = "io.containerd.wasmbox.v1";
const RUNC: &str = "io.containerd.runc.v2";

fn every_call_answers_under_both_names(version: Version) {
    let (containerd, shim) = sleeping(version);
    let id = || String::from("one");
    for service in SERVICES {
        let request = StateRequest { id: id(), ..StateRequest::default() };
        let state: StateResponse = shim.call(service, "State", &request).expect("State");
        assert_eq!((state.status.enum_value(), state.id.as_str()), (Ok(Status::RUNNING), "one"));
        assert!(state.bundle.ends_with("/one") && state.pid > 0, "{state}");
        let request = ConnectRequest { id: id(), ..ConnectRequest::default() };
        let connected: ConnectResponse = shim.call(service, "Connect", &request).expect("Connect");
        assert_eq!(connected.task_pid, state.pid);
        assert!(!connected.version.is_empty() && connected.shim_pid > 0, "{connected}");
        let request = PidsRequest { id: id(), ..PidsRequest::default() };
        let pids: PidsResponse = shim.call(service, "Pids", &request).expect("Pids");
        assert_eq!(pids.processes.len(), 1, "{pids}");
        let request = StatsRequest { id: id(), ..StatsRequest::default() };
        let stats: StatsResponse = shim.call(service, "Stats", &request).expect("Stats");
        assert!(stats.stats.type_url.starts_with("io.containerd.cgroups."), "{stats}");
        let request = PauseRequest { id: id(), ..PauseRequest::default() };
        let _: Empty = shim.call(service, "Pause", &request).expect("Pause");
        let request = ResumeRequest { id: id(), ..ResumeRequest::default() };
        let _: Empty = shim.call(service, "Resume", &request).expect("Resume");
        let resources = br#"{"cpu":{"shares":512}}"#.to_vec();
        let resources = MessageField::some(Any { value: resources, ..Any::default() });
        let request = UpdateTaskRequest { id: id(), resources, ..UpdateTaskRequest::default() };
        let _: Empty = shim.call(service, "Update", &request).expect("Update");
        let request = ResizePtyRequest { id: id(), width: 80, height: 24, ..ResizePtyRequest::default() };
        let _: Empty = shim.call(service, "ResizePty", &request).expect("ResizePty of a process without a terminal");
        let request = CloseIORequest { id: id(), stdin: true, ..CloseIORequest::default() };
        let _: Empty = shim.call(service, "CloseIO", &request).expect("CloseIO of a process without input");
        // The shim stays as long as it has a container.
        let request = ShutdownRequest { id: id(), ..ShutdownRequest::default() };
        let _: Empty = shim.call(service, "Shutdown", &request).expect("Shutdown");
        let request = CheckpointTaskRequest { id: id(), ..CheckpointTaskRequest::default() };
        let refused = shim.call::<Empty>(service, "Checkpoint", &request).expect_err("Checkpoint");
        assert_eq!(refused.0, Code::UNIMPLEMENTED, "{refused:?}");
        let request = StartRequest { id: id(), ..StartRequest::default() };
        let refused = shim.call::<StartResponse>(service, "Start", &request).expect_err("Start of what runs");
        assert_eq!(refused.0, Code::FAILED_PRECONDITION, "{refused:?}");
        let request = DeleteRequest { id: id(), ..DeleteRequest::default() };
        let refused = shim.call::<DeleteResponse>(service, "Delete", &request).expect_err("Delete of what runs");
        assert_eq!(refused.0, Code::FAILED_PRECONDITION, "{refused:?}");
        let request = CreateTaskRequest { id: id(), bundle: state.bundle, ..CreateTaskRequest::default() };
        let refused = shim.call::<Empty>(service, "Create", &request).expect_err("Create of what is there");
        assert_eq!(refused.0, Code::ALREADY_EXISTS, "{refused:?}");
        let request = KillRequest { id: id(), signal: 1000, ..KillRequest::default() };
        let refused = shim.call::<Empty>(service, "Kill", &request).expect_err("an unknown signal");
        assert!(refused.1.contains("1000"), "{refused:?}");
    }
    let request = KillRequest { id: id(), signal: 15, ..KillRequest::default() };
    // sleep is a first process, which has no handler for it.
    let _: Empty = shim.call(SERVICES[0], "Kill", &request).expect("Kill");
    let request = KillRequest { id: id(), signal: 9, all: true, ..KillRequest::default() };
    let _: Empty = shim.call(SERVICES[1], "Kill", &request).expect("Kill");
    let request = WaitRequest { id: id(), ..WaitRequest::default() };
    for service in SERVICES {
        let ended: WaitResponse = shim.call(service, "Wait", &request).expect("Wait");
        assert_eq!(ended.exit_status, 137);
        let since = SystemTime::now().duration_since(ended.exited_at.get_or_default().clone().into());
        assert!(since.is_ok_and(|since| since < Duration::from_secs(600)), "{ended}");
    }
    end(&containerd);
}

fn what_is_not_there_is_not_found(version: Version) {
    let (containerd, shim) = sleeping(version);
    // A request of these calls has the container's id first and then, if it has one, the process's: so all can be made of this one.
    let request =
        |id: &str, exec: &str| StateRequest { id: id.into(), exec_id: exec.into(), ..StateRequest::default() };
    let of_processes = ["State", "Start", "Delete", "Kill", "ResizePty", "CloseIO", "Wait"];
    for service in SERVICES {
        for method in of_processes.into_iter().chain(["Pids", "Pause", "Resume", "Stats", "Connect", "Exec", "Update"])
        {
            let refused = shim.call::<Empty>(service, method, &request("two", "")).expect_err(method);
            assert_eq!(refused, (Code::NOT_FOUND, "no container two".into()), "{method}");
        }
        for method in of_processes {
            let refused = shim.call::<Empty>(service, method, &request("one", "none")).expect_err(method);
            assert_eq!(refused, (Code::NOT_FOUND, "container one: no process none".into()), "{method}");
        }
    }
    end(&containerd);
}

/// `process` of the OCI specification.
fn process(words: &[&str], terminal: bool) -> MessageField<Any> {
    let process = serde_json::json!({
        "args": words, "cwd": "/", "env": ["PATH=/bin", "TERM=xterm"], "user": {"uid": 0, "gid": 0}, "terminal": terminal,
    });
    MessageField::some(Any { value: process.to_string().into_bytes(), ..Any::default() })
}

fn fifo(path: &Path) -> String {
    mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).expect("a new fifo");
    path.display().to_string()
}

fn processes_have_streams_and_terminals(version: Version) {
    let (containerd, shim) = sleeping(version);
    let id = || String::from("one");
    let [service, other] = SERVICES;
    let path = |name: &str| containerd.directory().join(name);
    let open = |name: &str| OpenOptions::new().read(true).write(true).open(path(name)).expect("our own fifo");
    let (stdin, stdout) = (fifo(&path("stdin")), fifo(&path("stdout")));
    let exec_id = || String::from("pipes");
    let request = ExecProcessRequest {
        id: id(),
        exec_id: exec_id(),
        spec: process(&["/bin/sh", "-c", "cat; exit 4"], false),
        stdin: stdin.clone(),
        stdout: stdout.clone(),
        ..ExecProcessRequest::default()
    };
    let _: Empty = shim.call(service, "Exec", &request).expect("Exec");
    let refused = shim.call::<Empty>(other, "Exec", &request).expect_err("Exec with the same id");
    assert_eq!(refused.0, Code::ALREADY_EXISTS, "{refused:?}");
    // What is no process harms no other call.
    for spec in ["", "[]", "1", "null", "{", "\"text\""] {
        let spec = MessageField::some(Any { value: spec.into(), ..Any::default() });
        let request = ExecProcessRequest { exec_id: "none".into(), spec, ..request.clone() };
        let refused = shim.call::<Empty>(service, "Exec", &request).expect_err("Exec of no process");
        assert_eq!(refused.0, Code::INVALID_ARGUMENT, "{refused:?}");
    }
    let mut output = open("stdout");
    let request = StartRequest { id: id(), exec_id: exec_id(), ..StartRequest::default() };
    let started: StartResponse = shim.call(service, "Start", &request).expect("Start");
    let request = StateRequest { id: id(), exec_id: exec_id(), ..StateRequest::default() };
    let state: StateResponse = shim.call(service, "State", &request).expect("State");
    assert_eq!((state.pid, &state.stdin, &state.stdout), (started.pid, &stdin, &stdout));
    let mut input = open("stdin");
    input.write_all(b"through\n").expect("our own fifo");
    let mut text = [0; 8];
    output.read_exact(&mut text).expect("our own fifo");
    assert_eq!(&text, b"through\n");
    // The end of the input is told, when nobody else can write.
    let request = CloseIORequest { id: id(), exec_id: exec_id(), stdin: true, ..CloseIORequest::default() };
    let _: Empty = shim.call(service, "CloseIO", &request).expect("CloseIO");
    drop(input);
    let request = WaitRequest { id: id(), exec_id: exec_id(), ..WaitRequest::default() };
    let ended: WaitResponse = shim.call(service, "Wait", &request).expect("Wait");
    assert_eq!(ended.exit_status, 4);
    let request = DeleteRequest { id: id(), exec_id: exec_id(), ..DeleteRequest::default() };
    let deleted: DeleteResponse = shim.call(service, "Delete", &request).expect("Delete");
    assert_eq!((deleted.exit_status, deleted.pid), (4, started.pid));
    let refused = shim.call::<DeleteResponse>(service, "Delete", &request).expect_err("Delete again");
    assert_eq!(refused.0, Code::NOT_FOUND, "{refused:?}");

    let exec_id = || String::from("terminal");
    let (stdin, stdout) = (fifo(&path("tty-in")), fifo(&path("tty-out")));
    let mut output: File = open("tty-out");
    let request = ExecProcessRequest {
        id: id(),
        exec_id: exec_id(),
        spec: process(&["/bin/sh", "-c", "read line; stty size; tty"], true),
        terminal: true,
        stdin,
        stdout,
        ..ExecProcessRequest::default()
    };
    let _: Empty = shim.call(service, "Exec", &request).expect("Exec");
    let request = StartRequest { id: id(), exec_id: exec_id(), ..StartRequest::default() };
    let _: StartResponse = shim.call(service, "Start", &request).expect("Start");
    let request =
        ResizePtyRequest { id: id(), exec_id: exec_id(), width: 101, height: 37, ..ResizePtyRequest::default() };
    let _: Empty = shim.call(other, "ResizePty", &request).expect("ResizePty");
    open("tty-in").write_all(b"\n").expect("our own fifo");
    let mut seen = String::new();
    while !seen.contains("/dev/pts/") {
        let mut buffer = [0; 256];
        let length = output.read(&mut buffer).expect("our own fifo");
        seen += &String::from_utf8_lossy(&buffer[..length]);
    }
    assert!(seen.contains("37 101\r\n"), "{seen}");
    let request = WaitRequest { id: id(), exec_id: exec_id(), ..WaitRequest::default() };
    let ended: WaitResponse = shim.call(service, "Wait", &request).expect("Wait");
    assert_eq!(ended.exit_status, 0);
    // An ended process that nobody deletes goes with the container.
    end(&containerd);
}

/// What is told of a container, with a second process in it, until its end.
fn life(containerd: &Containerd, runtime: &str, id: &str, image: &Image) -> Vec<String> {
    let events = containerd.events();
    containerd.ctr(&["run", "--detach", "--runtime", runtime, image.name(), id, "/bin/sleep", "1000"]).ok();
    let ran = containerd.ctr(&["task", "exec", "--exec-id", "second", id, "/bin/sh", "-c", "exit 3"]);
    assert_eq!(ran.code, 3, "{ran:?}");
    containerd.ctr(&["task", "pause", id]).ok();
    containerd.ctr(&["task", "resume", id]).ok();
    containerd.ctr(&["task", "kill", "--signal", "9", id]).ok();
    eventually("both ended", || {
        (events.of(id).iter().filter(|event| event.topic == "/tasks/exit").count() == 2).then_some(())
    });
    let told = events.of(id);
    containerd.ctr(&["task", "delete", id]);
    containerd.ctr(&["container", "delete", id]).ok();
    if runtime == RUNTIME {
        // runc's may be lost, since its shim ends at once.
        events.until(id, "/tasks/delete");
    }
    let line = |event: &wasmbox_tests::containerd::Event| {
        let mut names: Vec<_> = event.content.as_object().expect("an object").keys().cloned().collect();
        names.retain(|name| !["rootfs", "bundle", "io", "pid", "exited_at", "container_id"].contains(&name.as_str()));
        names.sort();
        let values = names.iter().map(|name| format!(" {name}={}", event.content[name.as_str()]));
        let values: String = values.collect();
        event.topic.clone() + &values.replace(&format!("{id:?}"), "ID")
    };
    told.iter().map(line).collect()
}

fn events_come_in_the_order_of_runcs_shim(version: Version) {
    let containerd = Containerd::start(version);
    let image = Image::busybox();
    containerd.import(&image);
    let ours = life(&containerd, RUNTIME, "ours", &image);
    assert_eq!(ours, life(&containerd, RUNC, "theirs", &image));
    assert_eq!(ours.len(), 8, "{ours:#?}");
}

fn a_process_that_ends_at_once_has_started_before(version: Version) {
    let containerd = Containerd::start(version);
    let image = Image::busybox();
    containerd.import(&image);
    let events = containerd.events();
    for number in 0..10 {
        let id = format!("brief-{number}");
        let ran = containerd.run(&["--rm", image.name(), &id, "/bin/true"]);
        assert_eq!(ran.code, 0, "{ran:?}");
        events.until(&id, "/tasks/delete");
        let topics: Vec<_> = events.of(&id).into_iter().map(|event| event.topic).collect();
        assert_eq!(topics, ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"]);
    }
}

fn counters_outlive_a_container_that_ran_out_of_memory(version: Version) {
    let containerd = Containerd::start(version);
    let image = Image::busybox();
    containerd.import(&image);
    let events = containerd.events();
    let limit = ["--detach", "--memory-limit", "33554432", image.name(), "one"];
    containerd.run(&[&limit[..], &["/bin/dd", "if=/dev/zero", "of=/dev/null", "bs=128M", "count=1"]].concat()).ok();
    let exit = events.until("one", "/tasks/exit");
    assert_eq!(exit.content["exit_status"], 137);
    let mut topics: Vec<_> = events.of("one").into_iter().map(|event| event.topic).collect();
    assert_eq!(topics.pop().as_deref(), Some("/tasks/exit"));
    // Its memory may have run out before its start is told.
    topics[1..].sort();
    assert_eq!(topics, ["/tasks/create", "/tasks/oom", "/tasks/start"]);
    let shim = Shim::of(&containerd, "one");
    let request = StatsRequest { id: "one".into(), ..StatsRequest::default() };
    let stats: StatsResponse = shim.call(SERVICES[1], "Stats", &request).expect("Stats of what has ended");
    let metrics = Metrics::parse_from_bytes(&stats.stats.value).expect("metrics of cgroup v1");
    assert_eq!(metrics.memory_oom_control.oom_kill, 1, "{metrics}");
    assert!(metrics.cpu.usage.total > 0 && metrics.memory.usage.failcnt > 0, "{metrics}");
    assert!(metrics.memory.usage.max >= 32 << 20, "{metrics}");
    containerd.ctr(&["task", "delete", "one"]);
    containerd.ctr(&["container", "delete", "one"]).ok();
}

fn it_says_what_it_is(version: Version) {
    let containerd = Containerd::start(version);
    let said = containerd.node().run(containerd.shim().arg("-v")).ok();
    assert!(said.contains(env!("CARGO_PKG_VERSION")) && said.contains(RUNTIME), "{said}");
    let raw = |options: Any| {
        let mut command = containerd.shim();
        command.arg("-info").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("nsenter, of the package util-linux");
        let mut input = child.stdin.take().expect("a pipe");
        options.write_to_writer(&mut input).expect("the shim reads its options");
        drop(input);
        child.wait_with_output().expect("the child is ours")
    };
    let options = Any { type_url: "runtimeoptions.v1.Options".into(), ..Any::default() };
    let ran = raw(options);
    let info = RuntimeInfo::parse_from_bytes(&ran.stdout).expect("a RuntimeInfo");
    assert_eq!((info.name.as_str(), info.version.version.as_str()), (RUNTIME, env!("CARGO_PKG_VERSION")), "{ran:?}");
    assert_eq!(info.options.type_url, "runtimeoptions.v1.Options");
    let json = |text: &[u8]| serde_json::from_slice::<serde_json::Value>(text).expect("JSON");
    let runc = containerd.node().run(containerd.command("runc").arg("features")).ok();
    assert_eq!(info.features.type_url, "types.containerd.io/opencontainers/runtime-spec/1/features/Features");
    assert_eq!(json(&info.features.value), json(runc.as_bytes()));
    let options = Any { type_url: "example/unknown.Options".into(), ..Any::default() };
    let ran = raw(options);
    assert!(!ran.status.success() && String::from_utf8_lossy(&ran.stderr).contains("unknown.Options"), "{ran:?}");
}
