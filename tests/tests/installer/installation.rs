//! What the installer puts on a node, and takes back.

use std::{
    fs,
    io::Read,
    os::unix::fs::{MetadataExt, symlink},
    path::Path,
};

use rustix::process::Signal;
use wasmbox_tests::{Version, eventually, on_each_version};

use super::{
    fails, has,
    host::{Host, Layout},
    owners, running, runtime,
};

on_each_version!(
    what_is_installed_goes_to_the_byte,
    containerd_finds_the_shim_by_its_name,
    changes_of_the_owner_are_mended_or_kept,
    watching_mends_and_ends_when_told,
);

fn what_is_installed_goes_to_the_byte(version: Version) {
    for systemd in [false, true] {
        let host = Host::new(version, Layout::Plain);
        let config = host.config();
        // Without a line break at its end.
        host.write(config, &owners(version, systemd));
        host.start();
        let (before, dump) = (host.files(), host.dump());

        host.run("install").ok();
        assert_eq!(host.restarts(), 1);
        let after = host.dump();
        for line in ["runtime_type = \"io.containerd.wasmbox.v1\"", "pod_annotations = [\"wasmbox.dev/*\"]"] {
            assert!(has(&after, "wasmbox", line), "{line}\n{after}");
        }
        // With options there would be no user namespaces, and none is needed.
        assert!(!runtime(&after, "wasmbox").iter().any(|line| line.starts_with("SystemdCgroup")), "{after}");
        let names_a_file = |line: &String| line.starts_with("runtime_path") && line != "runtime_path = \"\"";
        assert!(!runtime(&after, "wasmbox").iter().any(names_a_file), "{after}");
        for name in ["runc", "kata"] {
            assert_eq!(runtime(&after, name), runtime(&dump, name));
        }
        assert!(after.contains("restrict_oom_score_adj = true"));
        for name in ["wasmbox", "containerd-shim-wasmbox-v1"] {
            let there = fs::metadata(host.path("/opt/wasmbox/bin").join(name)).expect("the binary is on the node");
            assert_eq!(there.mode() & 0o7777, 0o755);
        }

        let files = host.files();
        host.run("install").ok();
        assert_eq!(host.restarts(), 1);
        assert!(files == host.files(), "the second time changed something");

        host.run("uninstall").ok();
        assert_eq!(host.restarts(), 2);
        assert!(before == host.files(), "{:#?}\n{:#?}", before.keys(), host.files().keys());
        assert_eq!(host.dump(), dump);
        host.run("uninstall").ok();
        assert_eq!(host.restarts(), 2);
    }
}

/// In the directory that its configuration names, else beside its own binary; what others have there is left alone.
fn containerd_finds_the_shim_by_its_name(version: Version) {
    const SHIM: &str = "containerd-shim-wasmbox-v1";
    let plugin = "io.containerd.internal.v1.opt";
    for (more, directory) in [
        (String::new(), "/opt/containerd/bin"),
        (
            format!("\n[plugins.'{plugin}']\npath = '/var/lib/rancher/k3s/agent/containerd'\n"),
            "/var/lib/rancher/k3s/agent/containerd/bin",
        ),
        (format!("disabled_plugins = ['{plugin}']\n"), "/usr/bin"),
    ] {
        let host = Host::new(version, Layout::Plain);
        let owners = owners(version, false);
        let text = if more.starts_with('\n') { owners + &more } else { more + &owners };
        host.write(host.config(), &text);
        host.start();
        let before = host.files();
        let link = host.path(directory).join(SHIM);
        // Of another installation, of which nothing else is left.
        symlink("/elsewhere", &link).expect("containerd made the directory");
        host.run("install").ok();
        let target = Path::new("/opt/wasmbox/bin").join(SHIM);
        assert_eq!(fs::read_link(&link).expect("a link"), target, "in {directory}");
        host.run("uninstall").ok();
        assert!(before == host.files(), "{:#?}\n{:#?}", before.keys(), host.files().keys());
        fs::write(&link, "a file").expect("a new file");
        fails(&host.run("install"), &format!("{directory}/{SHIM} is no link"));
        assert_eq!((fs::read(&link).expect("a file").as_slice(), host.restarts()), (&b"a file"[..], 2));
        host.run("uninstall").ok();
        assert!(link.is_file());
    }
}

fn changes_of_the_owner_are_mended_or_kept(version: Version) {
    let host = Host::new(version, Layout::Plain);
    let config = host.config();
    let owners_text = owners(version, false) + "\n";
    host.write(config, &owners_text);
    host.start();
    host.run("install").ok();
    let installed = host.files();

    // A configuration management puts its files back.
    host.write(config, &owners_text);
    fs::remove_file(host.path("/opt/wasmbox/bin/wasmbox")).expect("it is installed");
    let _ = fs::remove_dir_all(host.path("/etc/containerd/conf.d"));
    host.run("install").ok();
    assert!(installed == host.files());
    assert_eq!(host.restarts(), 2);

    // The owner changes cgroup driver and OCI runtime, and adds a setting behind ours.
    let changed = "SystemdCgroup = true\nBinaryName = '/usr/bin/other'";
    let edited = host.read(config).replace("SystemdCgroup = false", changed) + "[debug]\nlevel = 'info'\n";
    host.write(config, &edited);
    host.run("install").ok();
    assert_eq!(host.restarts(), 3);
    let dump = host.dump();
    assert!(has(&dump, "wasmbox", "BinaryName = \"/usr/bin/other\""), "{dump}");
    assert!(!runtime(&dump, "wasmbox").iter().any(|line| line.starts_with("SystemdCgroup")), "{dump}");
    assert!(dump.contains("level = \"info\"") || dump.contains("level = 'info'"));

    host.run("uninstall").ok();
    let expected = owners_text.replace("SystemdCgroup = false", changed) + "[debug]\nlevel = 'info'\n";
    assert_eq!(host.read(config), expected);
}

fn watching_mends_and_ends_when_told(version: Version) {
    let host = running(version);
    let mut command = host.installer("install");
    let log = fs::File::create(host.path("/tmp/log")).expect("a new file");
    let mut child = command.args(["--watch", "1"]).stderr(log).spawn().expect("nsenter");
    let is_done = |times| host.read("/tmp/log").matches("containerd has the handler").count() == times;
    eventually("the handler", || is_done(1).then_some(()));
    host.write(host.config(), &owners(version, false));
    let _ = fs::remove_dir_all(host.path("/etc/containerd/conf.d"));
    eventually("the handler again", || is_done(2).then_some(()));
    assert!(has(&host.dump(), "wasmbox", "runtime_type = \"io.containerd.wasmbox.v1\""));
    assert_eq!(host.restarts(), 2);
    // nsenter is in front of it.
    host.process("wasmbox-installer").signal(Signal::TERM);
    let status = eventually("its end", || child.try_wait().expect("the child is ours"));
    assert!(status.success(), "{status:?}");
}

/// An upgrade replaces files, and disturbs nobody: containerd runs the shim anew for each pod.
#[test]
fn other_binaries_are_replaced_without_a_restart() {
    let host = running(Version::V1_7);
    host.run("install").ok();
    let files = host.files();
    let binary = "/opt/wasmbox/bin/wasmbox";
    host.write(binary, "of an older version");
    let mut old = fs::File::open(host.path(binary)).expect("it is installed");
    host.run("install").ok();
    assert_eq!(host.restarts(), 1);
    assert!(files == host.files());
    // Who runs the old one keeps it.
    let mut text = String::new();
    old.read_to_string(&mut text).expect("an open file");
    assert_eq!(text, "of an older version");
}
