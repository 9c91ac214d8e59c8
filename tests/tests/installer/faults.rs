//! A containerd that is down, refuses or is not there, and installations that ended halfway.

use std::fs;

use wasmbox_tests::{Version, on_each_version};

use super::{
    fails, has,
    host::{Host, Layout},
    owners, running,
};

on_each_version!(
    a_broken_configuration_is_not_touched,
    a_containerd_that_is_down_is_started,
    what_does_not_come_up_is_taken_back,
);

fn a_broken_configuration_is_not_touched(version: Version) {
    let host = running(version);
    host.write(host.config(), "version = 2\n[plugins\n");
    let before = host.files();
    fails(&host.run("install"), "containerd cannot use /etc/containerd/config.toml");
    assert_eq!(host.restarts(), 0);
    let mut after = host.files();
    after.retain(|name, _| !name.starts_with("opt/wasmbox"));
    assert!(before == after);
    // What was never there goes without a restart, too.
    host.run("uninstall").ok();
    assert_eq!(host.restarts(), 0);
    assert!(before == host.files());
}

fn a_containerd_that_is_down_is_started(version: Version) {
    let host = running(version);
    host.stop();
    let before = host.files();
    host.run("install").ok();
    assert_eq!(host.restarts(), 1);
    assert!(has(&host.dump(), "wasmbox", "runtime_type = \"io.containerd.wasmbox.v1\""));
    // Down again: it is left alone.
    host.stop();
    host.run("uninstall").ok();
    assert_eq!(host.restarts(), 1);
    assert!(before == host.files());
}

fn what_does_not_come_up_is_taken_back(version: Version) {
    let host = running(version);
    let before = host.files();
    let without_binaries = |host: &Host| {
        let mut files = host.files();
        files.retain(|name, _| !name.starts_with("opt/wasmbox") && !name.ends_with("containerd-shim-wasmbox-v1"));
        files
    };
    // What restarts it fails.
    host.write("/run/broken", "");
    fails(&host.run("install"), "restarting containerd");
    assert!(before == without_binaries(&host));
    fs::remove_file(host.path("/run/broken")).expect("just made");
    // And the next time it works.
    host.run("install").ok();
}

/// Killed between the edit and the restart: files say that all is done, and CRI says that it is not.
#[test]
fn an_installation_that_ended_halfway_is_finished() {
    let host = Host::new(Version::V1_7, Layout::Plain);
    let text = owners(Version::V1_7, false);
    host.write(host.config(), &text);
    host.start();
    host.run("install").ok();
    let installed = host.read(host.config());
    host.write(host.config(), &text);
    host.start();
    host.write(host.config(), &installed);
    host.run("install").ok();
    assert_eq!(host.restarts(), 1);
    // And from here on there is nothing to do.
    host.run("install").ok();
    assert_eq!(host.restarts(), 1);
}

/// A containerd that does not start with the handler gets its configuration back, and runs.
#[test]
fn a_containerd_that_refuses_gets_its_configuration_back() {
    let host = running(Version::V1_6);
    let text = host.read(host.config());
    host.write("/run/refuses", "");
    fails(&host.run("install"), "the configuration was restored");
    assert_eq!(host.read(host.config()), text);
    // Once with the handler, once without.
    assert_eq!(host.restarts(), 2);
    host.process("bin/containerd ");
}

#[test]
fn a_node_without_containerd_is_named() {
    let host = Host::new(Version::V1_6, Layout::Plain);
    fs::remove_file(host.path("/usr/bin/containerd")).expect("it is there");
    fails(&host.run("install"), "no containerd on this node");
}
