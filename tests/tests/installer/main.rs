//! The node installer on nodes with a real containerd, each version.

mod host;
mod pods;

use std::{fs, io::Read, os::unix::fs::MetadataExt};

use host::{Host, Layout, TEMPLATE_2, TEMPLATE_3};
use pods::{they_outlive_containerd, they_outlive_the_mending_of_an_older_installation, what_containerd_lost_is_named};
use rustix::process::{Pid, Signal, kill_process};
use wasmbox_tests::eventually;

/// Directories of `target/tools`.
const V1_6: &str = "containerd/1.6";
const V1_7: &str = "containerd/1.7";
const V2_1: &str = "containerd/2.1";
const V2_3: &str = "go/containerd-2.3";

macro_rules! on_each_version {
    ($($test:ident),* $(,)?) => {
        mod containerd_1_6 { $(#[test] fn $test() { super::$test(super::V1_6); })* }
        mod containerd_1_7 { $(#[test] fn $test() { super::$test(super::V1_7); })* }
        mod containerd_2_1 { $(#[test] fn $test() { super::$test(super::V2_1); })* }
        mod containerd_2_3 { $(#[test] #[ignore = "needs Go: make e2e"] fn $test() { super::$test(super::V2_3); })* }
    };
}

on_each_version!(
    what_is_installed_goes_to_the_byte,
    a_node_without_a_configuration,
    changes_of_the_owner_are_mended_or_kept,
    a_broken_configuration_is_not_touched,
    a_containerd_that_is_down_is_started,
    what_does_not_come_up_is_taken_back,
    templates_are_edited_where_the_file_is_rendered,
    watching_mends_and_ends_when_told,
    containerd_finds_the_shim_by_its_name,
    they_outlive_containerd,
    what_containerd_lost_is_named,
);

// 1.6 reads `runtime_path`, but does not heed it.
mod containerd_1_7_and_later {
    #[test]
    fn they_outlive_the_mending_of_an_older_installation_1_7() {
        super::they_outlive_the_mending_of_an_older_installation(super::V1_7);
    }

    #[test]
    fn they_outlive_the_mending_of_an_older_installation_2_1() {
        super::they_outlive_the_mending_of_an_older_installation(super::V2_1);
    }

    #[test]
    #[ignore = "needs Go: make e2e"]
    fn they_outlive_the_mending_of_an_older_installation_2_3() {
        super::they_outlive_the_mending_of_an_older_installation(super::V2_3);
    }
}

fn is_2(version: &str) -> bool {
    version.contains("2.")
}

/// A configuration as an administrator has it: comments, settings, another runtime, and none of what is there by default.
fn owners(version: &str, systemd: bool) -> String {
    let (number, plugin) =
        if is_2(version) { (3, "io.containerd.cri.v1.runtime") } else { (2, "io.containerd.grpc.v1.cri") };
    format!(
        "# Ours. Ask ops before you change it.\nversion = {number}\n\n[plugins.'{plugin}']\n\trestrict_oom_score_adj = true\n\
         [plugins.'{plugin}'.containerd.runtimes.runc]\nruntime_type = 'io.containerd.runc.v2'\n\
         [plugins.'{plugin}'.containerd.runtimes.runc.options]\nSystemdCgroup = {systemd}\n\
         [plugins.'{plugin}'.containerd.runtimes.kata]\nruntime_type = 'io.containerd.kata.v2'   # slow"
    )
}

/// What the effective configuration says of a runtime, sorted: versions order it differently.
fn runtime(dump: &str, name: &str) -> Vec<String> {
    let mut is_in = false;
    let mut lines = Vec::new();
    for line in dump.lines().map(str::trim) {
        if line.starts_with('[') {
            is_in = line.contains(&format!(".runtimes.{name}]")) || line.contains(&format!(".runtimes.{name}."));
        } else if is_in {
            lines.push(line.replace('\'', "\""));
        }
    }
    lines.sort();
    lines
}

fn has(dump: &str, name: &str, line: &str) -> bool {
    runtime(dump, name).iter().any(|other| other == line)
}

fn what_is_installed_goes_to_the_byte(version: &str) {
    for systemd in [false, true] {
        let host = Host::new(version, Layout::Plain);
        let config = host.config();
        // Without a line break at its end.
        host.write(config, &owners(version, systemd));
        host.start();
        let (before, dump) = (host.files(), host.dump());

        let ran = host.run("install");
        assert_eq!(ran.code, 0, "{ran:?}");
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
        let ran = host.run("install");
        assert_eq!((ran.code, host.restarts()), (0, 1), "{ran:?}");
        assert!(files == host.files(), "the second time changed something");

        let ran = host.run("uninstall");
        assert_eq!((ran.code, host.restarts()), (0, 2), "{ran:?}");
        assert!(before == host.files(), "{:#?}\n{:#?}", before.keys(), host.files().keys());
        assert_eq!(host.dump(), dump);
        let ran = host.run("uninstall");
        assert_eq!((ran.code, host.restarts()), (0, 2), "{ran:?}");
    }
}

/// In the directory that its configuration names, else beside its own binary; what others have there is left alone.
fn containerd_finds_the_shim_by_its_name(version: &str) {
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
        std::os::unix::fs::symlink("/elsewhere", &link).expect("containerd made the directory");
        assert_eq!(host.run("install").code, 0);
        let target = std::path::Path::new("/opt/wasmbox/bin").join(SHIM);
        assert_eq!(fs::read_link(&link).expect("a link"), target, "in {directory}");
        assert_eq!(host.run("uninstall").code, 0);
        assert!(before == host.files(), "{:#?}\n{:#?}", before.keys(), host.files().keys());
        fs::write(&link, "a file").expect("a new file");
        let ran = host.run("install");
        assert!(ran.code != 0 && ran.stderr.contains(&format!("{directory}/{SHIM} is no link")), "{ran:?}");
        assert_eq!((fs::read(&link).expect("a file").as_slice(), host.restarts()), (&b"a file"[..], 2));
        assert_eq!(host.run("uninstall").code, 0);
        assert!(link.is_file());
    }
}

fn a_node_without_a_configuration(version: &str) {
    let host = Host::new(version, Layout::Plain);
    host.start();
    let (before, dump) = (host.files(), host.dump());
    let ran = host.run("install");
    assert_eq!(ran.code, 0, "{ran:?}");
    let after = host.dump();
    assert!(has(&after, "wasmbox", "runtime_type = \"io.containerd.wasmbox.v1\""));
    // The built-in one is still there.
    assert_eq!(runtime(&after, "runc"), runtime(&dump, "runc"));
    let ran = host.run("install");
    assert_eq!((ran.code, host.restarts()), (0, 1), "{ran:?}");
    let ran = host.run("uninstall");
    assert_eq!(ran.code, 0, "{ran:?}");
    let after = host.files();
    let left: Vec<_> = after.keys().filter(|name| !before.contains_key(*name)).collect();
    // An empty directory is all that may stay.
    assert!(left.is_empty() || left == [std::path::Path::new("etc/containerd")], "{left:?}");
    assert_eq!(host.dump(), dump);
}

fn changes_of_the_owner_are_mended_or_kept(version: &str) {
    let host = Host::new(version, Layout::Plain);
    let config = host.config();
    let owners_text = owners(version, false) + "\n";
    host.write(config, &owners_text);
    host.start();
    assert_eq!(host.run("install").code, 0);
    let installed = host.files();

    // A configuration management puts its files back.
    host.write(config, &owners_text);
    fs::remove_file(host.path("/opt/wasmbox/bin/wasmbox")).expect("it is installed");
    let _ = fs::remove_dir_all(host.path("/etc/containerd/conf.d"));
    let ran = host.run("install");
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(installed == host.files());
    assert_eq!(host.restarts(), 2);

    // The owner changes cgroup driver and OCI runtime, and adds a setting behind ours.
    let changed = "SystemdCgroup = true\nBinaryName = '/usr/bin/other'";
    let edited = host.read(config).replace("SystemdCgroup = false", changed) + "[debug]\nlevel = 'info'\n";
    host.write(config, &edited);
    let ran = host.run("install");
    assert_eq!((ran.code, host.restarts()), (0, 3), "{ran:?}");
    let dump = host.dump();
    assert!(has(&dump, "wasmbox", "BinaryName = \"/usr/bin/other\""), "{dump}");
    assert!(!runtime(&dump, "wasmbox").iter().any(|line| line.starts_with("SystemdCgroup")), "{dump}");
    assert!(dump.contains("level = \"info\"") || dump.contains("level = 'info'"));

    assert_eq!(host.run("uninstall").code, 0);
    let expected = owners_text.replace("SystemdCgroup = false", changed) + "[debug]\nlevel = 'info'\n";
    assert_eq!(host.read(config), expected);
}

fn a_broken_configuration_is_not_touched(version: &str) {
    let host = Host::new(version, Layout::Plain);
    host.write(host.config(), &owners(version, false));
    host.start();
    host.write(host.config(), "version = 2\n[plugins\n");
    let before = host.files();
    let ran = host.run("install");
    assert_ne!(ran.code, 0, "{ran:?}");
    assert!(ran.stderr.contains("containerd cannot use /etc/containerd/config.toml"), "{ran:?}");
    assert_eq!(host.restarts(), 0);
    let mut after = host.files();
    after.retain(|name, _| !name.starts_with("opt/wasmbox"));
    assert!(before == after);
    // What was never there goes without a restart, too.
    let ran = host.run("uninstall");
    assert_eq!((ran.code, host.restarts()), (0, 0), "{ran:?}");
    assert!(before == host.files());
}

fn a_containerd_that_is_down_is_started(version: &str) {
    let host = Host::new(version, Layout::Plain);
    host.write(host.config(), &owners(version, false));
    host.start();
    host.stop();
    let before = host.files();
    let ran = host.run("install");
    assert_eq!((ran.code, host.restarts()), (0, 1), "{ran:?}");
    assert!(has(&host.dump(), "wasmbox", "runtime_type = \"io.containerd.wasmbox.v1\""));
    // Down again: it is left alone.
    host.stop();
    let ran = host.run("uninstall");
    assert_eq!((ran.code, host.restarts()), (0, 1), "{ran:?}");
    assert!(before == host.files());
}

fn what_does_not_come_up_is_taken_back(version: &str) {
    let host = Host::new(version, Layout::Plain);
    host.write(host.config(), &owners(version, false));
    host.start();
    let before = host.files();
    let without_binaries = |host: &Host| {
        let mut files = host.files();
        files.retain(|name, _| !name.starts_with("opt/wasmbox") && !name.ends_with("containerd-shim-wasmbox-v1"));
        files
    };
    // What restarts it fails.
    host.write("/run/broken", "");
    let ran = host.run("install");
    assert_ne!(ran.code, 0, "{ran:?}");
    assert!(ran.stderr.contains("restarting containerd"), "{ran:?}");
    assert!(before == without_binaries(&host));
    fs::remove_file(host.path("/run/broken")).expect("just made");
    // And the next time it works.
    let ran = host.run("install");
    assert_eq!(ran.code, 0, "{ran:?}");
}

fn templates_are_edited_where_the_file_is_rendered(version: &str) {
    let template = if is_2(version) { TEMPLATE_3 } else { TEMPLATE_2 };
    // None of the owner's, one of theirs.
    for owners_template in [None, Some("# Our template\n{{ template \"base\" . }}\n")] {
        let host = Host::new(version, Layout::K3s);
        let base = owners(version, true) + "\n[grpc]\naddress = '/run/k3s/containerd/containerd.sock'\n";
        host.write("/base.toml", &base);
        host.write(host.config(), &base);
        if let Some(text) = owners_template {
            host.write(template, text);
        }
        host.start();
        let (before, dump) = (host.files(), host.dump());
        let ran = host.run("install");
        assert_eq!(ran.code, 0, "{ran:?}");
        let after = host.dump();
        assert!(has(&after, "wasmbox", "runtime_type = \"io.containerd.wasmbox.v1\""), "{after}");
        assert_eq!(runtime(&after, "kata"), runtime(&dump, "kata"));
        let ran = host.run("install");
        assert_eq!((ran.code, host.restarts()), (0, 1), "{ran:?}");
        let ran = host.run("uninstall");
        assert_eq!((ran.code, host.restarts()), (0, 2), "{ran:?}");
        assert!(before == host.files(), "{:#?}\n{:#?}", before.keys(), host.files().keys());
    }
}

fn watching_mends_and_ends_when_told(version: &str) {
    let host = Host::new(version, Layout::Plain);
    host.write(host.config(), &owners(version, false));
    host.start();
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
    let installer = host.process("wasmbox-installer");
    let pid = Pid::from_raw(i32::try_from(installer).expect("a process number")).expect("not 0");
    kill_process(pid, Signal::TERM).expect("it runs");
    let status = eventually("its end", || child.try_wait().expect("the child is ours"));
    assert!(status.success(), "{status:?}");
}

#[test]
#[ignore = "needs Go: make e2e"]
fn they_have_users_of_their_own() {
    pods::they_have_users_of_their_own(V2_3);
}

/// Where imported files are merged, the owner's file stays as it is.
#[test]
fn a_file_of_its_own_where_that_leaves_the_others_alone() {
    let host = Host::new(V2_1, Layout::Plain);
    let text = format!("imports = ['/etc/containerd/conf.d/*.toml']\n{}", owners(V2_1, true));
    host.write(host.config(), &text);
    host.write("/etc/containerd/conf.d/debug.toml", "version = 3\n[debug]\nlevel = 'info'\n");
    host.start();
    let before = host.files();
    let ran = host.run("install");
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(host.read(host.config()), text);
    assert!(host.path("/etc/containerd/conf.d/wasmbox.toml").exists());
    assert_eq!(host.run("uninstall").code, 0);
    assert!(before == host.files());
}

/// Up to 1.7 an imported file would replace what the main one says of CRI.
#[test]
fn no_file_of_its_own_where_that_would_replace_the_others() {
    for version in [V1_6, V1_7] {
        let host = Host::new(version, Layout::Plain);
        let text = format!("imports = ['/etc/containerd/conf.d/*.toml']\n{}", owners(version, true));
        host.write(host.config(), &text);
        fs::create_dir(host.path("/etc/containerd/conf.d")).expect("a new directory");
        host.start();
        let (before, dump) = (host.files(), host.dump());
        let ran = host.run("install");
        assert_eq!(ran.code, 0, "{ran:?}");
        assert!(!host.path("/etc/containerd/conf.d/wasmbox.toml").exists());
        let after = host.dump();
        assert_eq!(runtime(&after, "kata"), runtime(&dump, "kata"));
        assert_eq!(host.run("uninstall").code, 0);
        assert!(before == host.files());
    }
}

/// The runtime that is built in goes when a file names another: the installer writes it down.
#[test]
fn a_configuration_that_names_no_runtime_keeps_the_built_in_one() {
    for version in [V1_6, V1_7, V2_1] {
        let host = Host::new(version, Layout::Plain);
        let number = if is_2(version) { 3 } else { 2 };
        host.write(host.config(), &format!("version = {number}\n"));
        host.start();
        let (before, dump) = (host.files(), host.dump());
        assert!(has(&dump, "runc", "runtime_type = \"io.containerd.runc.v2\""));
        let ran = host.run("install");
        assert_eq!(ran.code, 0, "{ran:?}");
        assert_eq!(runtime(&host.dump(), "runc"), runtime(&dump, "runc"));
        assert_eq!(host.run("uninstall").code, 0);
        assert!(before == host.files());
    }
}

/// Files of version 2 on containerd 2, and of before there were versions on 1.x.
#[test]
fn older_forms_of_the_file() {
    for (version, text) in [
        (V2_1, owners(V1_7, true)),
        (V1_6, "[plugins.cri]\nrestrict_oom_score_adj = true\n[plugins.cri.containerd.runtimes.runc]\nruntime_type = 'io.containerd.runc.v2'\n".to_owned()),
    ] {
        let host = Host::new(version, Layout::Plain);
        host.write(host.config(), &text);
        host.start();
        let (before, dump) = (host.files(), host.dump());
        let ran = host.run("install");
        assert_eq!(ran.code, 0, "{ran:?}");
        let after = host.dump();
        assert_eq!(runtime(&after, "runc"), runtime(&dump, "runc"));
        assert!(has(&after, "wasmbox", "runtime_type = \"io.containerd.wasmbox.v1\""));
        assert_eq!(host.run("uninstall").code, 0);
        assert!(before == host.files());
    }
}

/// Killed between the edit and the restart: files say that all is done, and CRI says that it is not.
#[test]
fn an_installation_that_ended_halfway_is_finished() {
    let host = Host::new(V1_7, Layout::Plain);
    let text = owners(V1_7, false);
    host.write(host.config(), &text);
    host.start();
    assert_eq!(host.run("install").code, 0);
    let installed = host.read(host.config());
    host.write(host.config(), &text);
    host.start();
    host.write(host.config(), &installed);
    let ran = host.run("install");
    assert_eq!((ran.code, host.restarts()), (0, 1), "{ran:?}");
    // And from here on there is nothing to do.
    let ran = host.run("install");
    assert_eq!((ran.code, host.restarts()), (0, 1), "{ran:?}");
}

/// An upgrade replaces files, and disturbs nobody: containerd runs the shim anew for each pod.
#[test]
fn other_binaries_are_replaced_without_a_restart() {
    let host = Host::new(V1_7, Layout::Plain);
    host.write(host.config(), &owners(V1_7, false));
    host.start();
    assert_eq!(host.run("install").code, 0);
    let files = host.files();
    let binary = "/opt/wasmbox/bin/wasmbox";
    host.write(binary, "of an older version");
    let mut old = fs::File::open(host.path(binary)).expect("it is installed");
    let ran = host.run("install");
    assert_eq!((ran.code, host.restarts()), (0, 1), "{ran:?}");
    assert!(files == host.files());
    // Who runs the old one keeps it.
    let mut text = String::new();
    old.read_to_string(&mut text).expect("an open file");
    assert_eq!(text, "of an older version");
}

/// A containerd that does not start with the handler gets its configuration back, and runs.
#[test]
fn a_containerd_that_refuses_gets_its_configuration_back() {
    let host = Host::new(V1_6, Layout::Plain);
    host.write(host.config(), &owners(V1_6, false));
    host.start();
    let text = host.read(host.config());
    host.write("/run/refuses", "");
    let ran = host.run("install");
    assert_ne!(ran.code, 0, "{ran:?}");
    assert!(ran.stderr.contains("the configuration was restored"), "{ran:?}");
    assert_eq!(host.read(host.config()), text);
    // Once with the handler, once without.
    assert_eq!(host.restarts(), 2);
    assert!(host.process("bin/containerd ") > 0);
}

#[test]
fn a_node_without_containerd_is_named() {
    let host = Host::new(V1_6, Layout::Plain);
    fs::remove_file(host.path("/usr/bin/containerd")).expect("it is there");
    let ran = host.run("install");
    assert_ne!(ran.code, 0);
    assert!(ran.stderr.contains("no containerd on this node"), "{ran:?}");
}
