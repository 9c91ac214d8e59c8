//! Pods on a node that the installer has set up: they outlive each restart of containerd, and the mending of an older installation.

use std::{fs, net::SocketAddr};

use wasmbox_tests::{
    ContainerConfig, Cri, Request, Version,
    containerd::NETWORK,
    cri::{
        ContainerSecurity, IdMapping, LinuxContainer, LinuxSandbox, Mount, Namespaces, SandboxSecurity, UserNamespace,
    },
    eventually, on_each_version,
    process::Process,
    workspace,
};

use super::machine::{CONFIG, LINK, Machine, PODS, end};

on_each_version!(they_outlive_containerd, what_containerd_lost_is_named);

/// A restart, then a containerd that is killed: nobody notices.
fn they_outlive_containerd(version: Version) {
    let machine = Machine::new(version);
    machine.installer("install").ok();
    assert!(machine.is_linked() && !machine.read(CONFIG).contains("runtime_path"), "{}", machine.read(CONFIG));
    let mut pods = machine.pods();
    let answered = machine.under_load(|| {
        machine.restart();
        pods.all_run(&machine);
        machine.write("/run/kill", "");
        machine.restart();
        pods.all_run(&machine);
    });
    assert!(answered > 0);
    pods.remove(&machine);
    end(&machine);
}

/// A containerd that does not find the shim takes what runs for ended. The doctor names what it lost, and what it says ends it.
fn what_containerd_lost_is_named(version: Version) {
    let machine = Machine::new(version);
    machine.installer("install").ok();
    let pods = machine.pods();
    let doctor = |check: &str| machine.doctor(check);
    let (shims, containers) = (PODS, 3 * PODS);
    assert!(
        doctor("orphans").ends_with(&format!("none of {shims} shims and {containers} containers")),
        "{}",
        doctor("orphans")
    );
    assert!(doctor("shim").contains(LINK), "{}", doctor("shim"));

    // As a node was before the link: what containerd 2.3 keeps is hidden from the others, too.
    fs::remove_file(machine.node.path(LINK)).expect("the link is there");
    machine.restart();
    let orphans = doctor("orphans");
    assert!(orphans.starts_with("warn"), "{orphans}");
    for (_, function_box, sidecar) in &pods.all {
        assert!(orphans.contains(function_box) && orphans.contains(sidecar), "{orphans}");
    }
    let (_, remedy) = orphans.split_once(" -> ").expect("a remedy");
    machine.shell(&remedy.replace("; ", " && "));
    assert!(doctor("orphans").ends_with("none of 0 shims and 0 containers"), "{}", doctor("orphans"));
    machine.installer("install").ok();
    assert!(machine.is_linked());
    for (pod, _, _) in &pods.all {
        Cri::on(&machine.node).remove(pod);
    }
    end(&machine);
}

/// `hostUsers: false`, on a node as the installer leaves it: an ordinary container and a box, each with users of the pod's own.
#[test]
#[ignore = "needs Go: make e2e"]
fn they_have_users_of_their_own() {
    const FIRST: u32 = 300_000;
    // That of Debian 12 maps no users of mounts.
    let machine = Machine::with_runc(Version::V2_3, "go/runc");
    machine.shell(&format!("mkdir /opt/cni && ln -s {} /opt/cni/bin", workspace::tool("containerd/cni").display()));
    fs::write(machine.node.directory().join("cni/10-test.conflist"), NETWORK).expect("a new file");
    machine.installer("install").ok();
    let cri = Cri::on(&machine.node);
    let ids = || vec![IdMapping { host: FIRST, container: 0, length: 65536 }];
    let namespaces = |pid| {
        let users = Some(UserNamespace { mode: 0, uids: ids(), gids: ids() });
        Some(Namespaces { network: 0, pid, ipc: 0, users })
    };
    let mut sandbox = cri.sandbox("users");
    sandbox.linux = sandbox.linux.map(|linux| LinuxSandbox {
        security: Some(SandboxSecurity { namespaces: namespaces(0), ..SandboxSecurity::default() }),
        ..linux
    });
    let pod = cri.run(sandbox);
    let own = |container: ContainerConfig| {
        let security = ContainerSecurity { namespaces: namespaces(1), ..ContainerSecurity::default() };
        let linux = Some(LinuxContainer { resources: None, security: Some(security) });
        cri.start(&pod, ContainerConfig { linux, ..container })
    };
    let sidecar = own(ContainerConfig::new("sidecar", "docker.io/library/busybox:test", &["/bin/sleep", "100000"]));
    let script =
        "id -u; cat /proc/self/uid_map; busybox stat -c %u /bin/busybox; echo x >/made && busybox stat -c %u /made";
    let (code, out, error) = cri.exec(&sidecar, &["/bin/sh", "-c", script]).expect("it runs");
    let words: Vec<_> = out.split_whitespace().collect();
    assert_eq!((code, words), (0, vec!["0", "0", "300000", "65536", "0", "0"]), "{error}");
    let functions = machine.node.directory().join("functions").display().to_string();
    own(ContainerConfig {
        mounts: vec![Mount {
            container_path: "/functions".into(),
            host_path: functions,
            readonly: true,
            ..Mount::default()
        }],
        ..ContainerConfig::new("box", "docker.io/library/box:test", &[])
    });
    let address = SocketAddr::new(cri.address(&pod), 8095);
    let answer = eventually("the box answers", || machine.node.call(address, Request::get("/hi"), "").ok());
    assert_eq!((answer.status, answer.text()), (200, "hello\n"));
    let function_box =
        machine.node.processes().into_iter().find(|(_, words)| words.contains("/run/wasmbox/wasmbox serve"));
    let user = Process(function_box.expect("the box runs").0).status("Uid").expect("proc(5): status");
    assert!(user.starts_with(&format!("{FIRST}\t")), "{user}");
    cri.remove(&pod);
    eventually("the shim's end", || (machine.shims() == 0).then_some(()));
    end(&machine);
}
