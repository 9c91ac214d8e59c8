//! What pods of runc's handler do, and kubelets rely on: ours do it, too.

use std::time::Duration;

use wasmbox_tests::{
    cri::{Attach, IdMapping, LinuxSandbox, RuntimeFeatures, StatusAnswer, StatusRequest, UserNamespace},
    on_each_version,
    streaming::{STDIN, STDOUT, Stream},
};

use super::*;

mod modules {
    use super::*;

    on_each_version!(a_module_ends_on_sigterm, ctrl_c_ends_a_module);
}

/// An image with a module that says something, and sleeps.
fn napping(kubelet: &Kubelet) -> String {
    let (says, print) = guest::text("napping\n");
    let naps = guest::command_with(&says, &format!("{print} (call $sleep (i64.const 3600000))"));
    let image = Image::of("naps").file("nap.wat", naps).entrypoint(&["/nap.wat"]).build();
    kubelet.containerd.import(&image);
    image.name().to_owned()
}

fn a_module_ends_on_sigterm(version: Version) {
    let kubelet = Kubelet::new(version);
    let image = napping(&kubelet);
    let pod = kubelet.pod("naps");
    let module = kubelet.cri.start(&pod, ContainerConfig::new("naps", &image, &[]));
    eventually("it naps", || kubelet.log(&pod, "naps.log").contains("napping").then_some(()));
    // Killed after the grace period, its status would be another.
    kubelet.cri.stop(&module, Duration::from_secs(100));
    assert_eq!(kubelet.cri.status(&module).exit_code, 143);
    kubelet.cri.remove(&pod);
}

fn ctrl_c_ends_a_module(version: Version) {
    let kubelet = Kubelet::new(version);
    let image = napping(&kubelet);
    let pod = kubelet.pod("naps");
    let config = ContainerConfig { stdin: true, tty: true, ..ContainerConfig::new("naps", &image, &[]) };
    let module = kubelet.cri.start(&pod, config);
    eventually("it naps", || kubelet.log(&pod, "naps.log").contains("napping").then_some(()));
    let request = Attach { container: module.clone(), stdin: true, tty: true, stdout: true, stderr: false };
    let mut stream = Stream::open(&kubelet.containerd, &kubelet.cri.stream("Attach", request));
    stream.send(STDIN, b"\x03");
    stream.until(STDOUT, "^C");
    assert_eq!(kubelet.cri.ended(&module).exit_code, 130);
    kubelet.cri.remove(&pod);
}

/// `drain_exec_sync_io_timeout`, which containerd 1.6 does not have.
fn a_probe_that_leaves_its_output_open_is_ended(version: Version) {
    let kubelet = Kubelet::new(version);
    let pod = kubelet.pod("probes");
    let container = kubelet.cri.start(&pod, busybox("sleeps", &["/bin/sleep", "1000"]));
    let refused = kubelet.cri.exec(&container, &["/bin/sh", "-c", "sleep 1000 &"]).expect_err("it is still open");
    assert!(refused.message().contains("failed to drain exec process"), "{refused}");
    let ran = kubelet.cri.exec(&container, &["/bin/sh", "-c", "echo next"]).expect("the command runs");
    assert_eq!(ran, (0, "next\n".into(), String::new()));
    kubelet.cri.remove(&pod);
}

/// From what the OCI runtime can, and the kernel, containerd tells a kubelet what it may ask of a handler; before 2.3, of runc's alone.
fn handlers_offer_what_runcs_offers(version: Version) {
    let kubelet = Kubelet::new(version);
    let status: StatusAnswer = kubelet.cri.call("Status", StatusRequest { verbose: false }).expect("Status");
    let features = |name: &str| {
        let handler = status.handlers.iter().find(|handler| handler.name == name);
        handler.unwrap_or_else(|| panic!("{name}: {:?}", status.handlers)).features
    };
    assert_eq!(features("wasmbox"), features("runc"));
    assert_eq!(features("wasmbox"), Some(RuntimeFeatures { recursive_read_only_mounts: true, user_namespaces: false }));
    // What is mounted below the volume is read-only, too.
    let volume = kubelet.containerd.node().path("/run/volume");
    fs::create_dir_all(volume.join("below")).expect("new directories");
    let busybox_path = wasmbox_tests::workspace::tool("containerd/busybox");
    let mut command = kubelet.containerd.node().command(busybox_path);
    kubelet.containerd.node().run(command.args(["mount", "-t", "tmpfs", "below", "/run/volume/below"])).ok();
    let pod = kubelet.pod("mounts");
    let mount = Mount {
        container_path: "/volume".into(),
        host_path: "/run/volume".into(),
        readonly: true,
        recursive_read_only: true,
        ..Mount::default()
    };
    let config = ContainerConfig { mounts: vec![mount], ..busybox("reads", &["/bin/sleep", "1000"]) };
    let container = kubelet.cri.start(&pod, config);
    let (code, _, error) =
        kubelet.cri.exec(&container, &["/bin/touch", "/volume/below/file"]).expect("the command runs");
    assert!(code != 0 && error.contains("Read-only file system"), "{code} {error}");
    kubelet.cri.remove(&pod);
    let mut command = kubelet.containerd.node().command(wasmbox_tests::workspace::tool("containerd/busybox"));
    kubelet.containerd.node().run(command.args(["umount", "/run/volume/below"])).ok();
}

/// `hostUsers: false`: an ordinary container and a box, each with users of the pod's own; layers of their images are the host's root's.
fn pods_have_user_namespaces(version: Version) {
    let mut containerd = Containerd::start(version);
    // That of Debian 12 maps no users of mounts.
    containerd.replace_runc(&wasmbox_tests::workspace::tool("go/runc"));
    let kubelet = Kubelet::of(containerd);
    let status: StatusAnswer = kubelet.cri.call("Status", StatusRequest { verbose: false }).expect("Status");
    let offered = status.handlers.iter().find(|handler| handler.name == "wasmbox").and_then(|handler| handler.features);
    assert!(offered.is_some_and(|features| features.user_namespaces), "{:?}", status.handlers);
    const FIRST: u32 = 300_000;
    let ids = || vec![IdMapping { host: FIRST, container: 0, length: 65536 }];
    let users = || Some(UserNamespace { mode: 0, uids: ids(), gids: ids() });
    let namespaces = |pid| Some(Namespaces { network: 0, pid, ipc: 0, users: users() });
    let mut sandbox = kubelet.sandbox("users");
    let linux = sandbox.linux.take().expect("a cgroup");
    let security = SandboxSecurity { namespaces: namespaces(0), seccomp: None };
    sandbox.linux = Some(LinuxSandbox { security: Some(security), ..linux });
    let pod = kubelet.cri.run(sandbox);
    let own = |container: ContainerConfig| {
        let security = ContainerSecurity { namespaces: namespaces(1), ..ContainerSecurity::default() };
        let linux = Some(LinuxContainer { resources: Some(memory(256)), security: Some(security) });
        kubelet.cri.start(&pod, ContainerConfig { linux, ..container })
    };
    let script = "id -u; stat -c %u /bin/busybox; echo x >/made && stat -c %u /made; echo to the log >/dev/stderr";
    let (code, out, error) = {
        let container = own(busybox("ordinary", &["/bin/sleep", "1000"]));
        let process = kubelet.process(&container);
        let uid = field(&process, "status", "Uid");
        assert!(uid.starts_with(&FIRST.to_string()), "{uid}");
        kubelet.cri.exec(&container, &["/bin/sh", "-c", script]).expect("the command runs")
    };
    assert_eq!((code, out.as_str(), error.as_str()), (0, "0\n0\n0\n", "to the log\n"));
    let wasmbox = own(kubelet.wasmbox("box"));
    assert_eq!(kubelet.ask(&pod, PORT, "/hi").text(), "hello\n");
    let uid = field(&kubelet.process(&wasmbox), "status", "Uid");
    assert!(uid.starts_with(&FIRST.to_string()), "{uid}");
    kubelet.cri.remove(&pod);
}

mod containerd_1_7 {
    #[test]
    fn a_probe_that_leaves_its_output_open_is_ended() {
        super::a_probe_that_leaves_its_output_open_is_ended(super::Version::V1_7);
    }
}

mod containerd_2_1 {
    #[test]
    fn a_probe_that_leaves_its_output_open_is_ended() {
        super::a_probe_that_leaves_its_output_open_is_ended(super::Version::V2_1);
    }
}

mod containerd_2_3 {
    use super::Version;

    #[test]
    #[ignore = "needs Go: make e2e"]
    fn a_probe_that_leaves_its_output_open_is_ended() {
        super::a_probe_that_leaves_its_output_open_is_ended(Version::V2_3);
    }

    #[test]
    #[ignore = "needs Go: make e2e"]
    fn handlers_offer_what_runcs_offers() {
        super::handlers_offer_what_runcs_offers(Version::V2_3);
    }

    #[test]
    #[ignore = "needs Go: make e2e"]
    fn pods_have_user_namespaces() {
        super::pods_have_user_namespaces(Version::V2_3);
    }
}
