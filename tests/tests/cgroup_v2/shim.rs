//! Boxes in containers, by containerd and the shim.

use std::{fs, net::SocketAddr, path::PathBuf};

use containerd_shim_protos::{
    api::{StatsRequest, StatsResponse},
    cgroups_v2::metrics::Metrics,
    protobuf::Message,
};
use wasmbox_tests::{
    Containerd, Image, Request, Version, eventually, guest,
    patience::in_one_of_three,
    task::{SERVICES, Shim},
    vm,
};

const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8095);

/// A box with a memory limit, for a user: its invocations have CPU limits of their own, its own limits it cannot change.
fn invocations_have_cgroups(user: &str) {
    let containerd = Containerd::start(Version::V1_7);
    let image = Image::of("box")
        .file("functions/hi.wat", guest::hello())
        .file("functions/busy.wat", guest::busy())
        .env("ENABLE_CGROUPS", "true")
        .env("LOG_LEVEL", "debug")
        .user(user)
        .entrypoint(&["wasmbox", "serve", "--functions-dir", "/functions", "--cache-dir", "none"])
        .build();
    containerd.import(&image);
    containerd
        .run(&[
            "--detach",
            "--net-host",
            "--read-only",
            "--memory-limit",
            "134217728",
            "--log-uri",
            &format!("file://{}", containerd.directory().join("box.log").display()),
            image.name(),
            "box",
        ])
        .ok();
    let said = || fs::read_to_string(containerd.directory().join("box.log")).unwrap_or_default();
    let node = containerd.node();
    let answer = eventually("the box answers", || {
        assert!(!containerd.ctr(&["task", "ls"]).ok().contains("STOPPED"), "{}", said());
        node.call(ADDRESS, Request::get("/hi"), "").ok()
    });
    assert_eq!(answer.ok().text(), "hello\n");
    let cgroups: Vec<PathBuf> = node.cgroups();
    let [cgroup] = cgroups.as_slice() else { panic!("{cgroups:?}") };
    let container = cgroup.join("box");
    let read = |file: &str| fs::read_to_string(container.join(file)).expect("the container's cgroup");
    assert_eq!(read("memory.max"), "134217728\n");
    assert_eq!(read("cgroup.type"), "domain threaded\n");
    assert_eq!(read("box/cgroup.type"), "threaded\n");
    // Compiled before its time counts.
    node.call(ADDRESS, Request::options("/busy"), "").expect("a whole answer");
    let burns = || {
        let request = Request::get("/busy").header("Cpu-Quota", "100").header("Invocation-Timeout", "2000");
        let stopped = node.call(ADDRESS, request, "").expect("a whole answer");
        assert_eq!((stopped.status, stopped.header("wasmbox-error")), (504, "deadline-exceeded"), "{stopped:?}");
        stopped.number("wasmbox-cpu-time-us")
    };
    // A tenth of a processor is 200 ms of 2 s.
    in_one_of_three(burns, |used| (50_000.0..600_000.0).contains(used));
    let status = containerd.ctr(&["task", "exec", "--exec-id", "e1", "box", "/run/wasmbox/wasmbox", "status"]).ok();
    assert!(status.contains("128.0 MiB"), "its limit is the container's: {status}");
    let metrics = containerd.ctr(&["task", "metrics", "box"]).ok();
    assert!(metrics.contains("memory.usage"), "{metrics}");
    let request = StatsRequest { id: "box".into(), ..StatsRequest::default() };
    let stats: StatsResponse = Shim::of(&containerd, "box").call(SERVICES[0], "Stats", &request).expect("Stats");
    let metrics = Metrics::parse_from_bytes(&stats.stats.value).expect("metrics of cgroup v2");
    let memory = &metrics.memory;
    assert!(metrics.io.is_some() && memory.usage_limit == 134_217_728 && memory.pgfault > 0, "{metrics}");
    assert!(memory.max_usage >= memory.usage, "{metrics}");
    assert!(metrics.cpu.usage_usec > 0, "{metrics}");
    containerd.ctr(&["task", "kill", "--signal", "15", "box"]).ok();
    eventually("its end", || containerd.ctr(&["task", "ls"]).ok().contains("STOPPED").then_some(()));
    let deleted = containerd.ctr(&["task", "delete", "box"]);
    assert_eq!(deleted.stderr, "", "{}", said());
    containerd.ctr(&["container", "delete", "box"]).ok();
}

#[test]
fn in_a_container_as_root() {
    vm::inside(|| invocations_have_cgroups("0"));
}

#[test]
fn in_a_container_as_another_user() {
    vm::inside(|| invocations_have_cgroups("65532:65532"));
}
