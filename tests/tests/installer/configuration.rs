//! containerd's configuration, in the forms that owners and distributions give it.

use std::{fs, path::Path};

use wasmbox_tests::{Version, on_each_version};

use super::{
    has,
    host::{Host, Layout, TEMPLATE_2, TEMPLATE_3},
    owners, runtime,
};

on_each_version!(a_node_without_a_configuration, templates_are_edited_where_the_file_is_rendered,);

fn a_node_without_a_configuration(version: Version) {
    let host = Host::new(version, Layout::Plain);
    host.start();
    let (before, dump) = (host.files(), host.dump());
    host.run("install").ok();
    let after = host.dump();
    assert!(has(&after, "wasmbox", "runtime_type = \"io.containerd.wasmbox.v1\""));
    // The built-in one is still there.
    assert_eq!(runtime(&after, "runc"), runtime(&dump, "runc"));
    host.run("install").ok();
    assert_eq!(host.restarts(), 1);
    host.run("uninstall").ok();
    let after = host.files();
    let left: Vec<_> = after.keys().filter(|name| !before.contains_key(*name)).collect();
    // An empty directory is all that may stay.
    assert!(left.is_empty() || left == [Path::new("etc/containerd")], "{left:?}");
    assert_eq!(host.dump(), dump);
}

fn templates_are_edited_where_the_file_is_rendered(version: Version) {
    let template = if version.is_2() { TEMPLATE_3 } else { TEMPLATE_2 };
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
        host.run("install").ok();
        let after = host.dump();
        assert!(has(&after, "wasmbox", "runtime_type = \"io.containerd.wasmbox.v1\""), "{after}");
        assert_eq!(runtime(&after, "kata"), runtime(&dump, "kata"));
        host.run("install").ok();
        assert_eq!(host.restarts(), 1);
        host.run("uninstall").ok();
        assert_eq!(host.restarts(), 2);
        assert!(before == host.files(), "{:#?}\n{:#?}", before.keys(), host.files().keys());
    }
}

/// Where imported files are merged, the owner's file stays as it is.
#[test]
fn a_file_of_its_own_where_that_leaves_the_others_alone() {
    let host = Host::new(Version::V2_1, Layout::Plain);
    let text = format!("imports = ['/etc/containerd/conf.d/*.toml']\n{}", owners(Version::V2_1, true));
    host.write(host.config(), &text);
    host.write("/etc/containerd/conf.d/debug.toml", "version = 3\n[debug]\nlevel = 'info'\n");
    host.start();
    let before = host.files();
    host.run("install").ok();
    assert_eq!(host.read(host.config()), text);
    assert!(host.path("/etc/containerd/conf.d/wasmbox.toml").exists());
    host.run("uninstall").ok();
    assert!(before == host.files());
}

/// Up to 1.7 an imported file would replace what the main one says of CRI.
#[test]
fn no_file_of_its_own_where_that_would_replace_the_others() {
    for version in [Version::V1_6, Version::V1_7] {
        let host = Host::new(version, Layout::Plain);
        let text = format!("imports = ['/etc/containerd/conf.d/*.toml']\n{}", owners(version, true));
        host.write(host.config(), &text);
        fs::create_dir(host.path("/etc/containerd/conf.d")).expect("a new directory");
        host.start();
        let (before, dump) = (host.files(), host.dump());
        host.run("install").ok();
        assert!(!host.path("/etc/containerd/conf.d/wasmbox.toml").exists());
        let after = host.dump();
        assert_eq!(runtime(&after, "kata"), runtime(&dump, "kata"));
        host.run("uninstall").ok();
        assert!(before == host.files());
    }
}

/// The runtime that is built in goes when a file names another: the installer writes it down.
#[test]
fn a_configuration_that_names_no_runtime_keeps_the_built_in_one() {
    for version in [Version::V1_6, Version::V1_7, Version::V2_1] {
        let host = Host::new(version, Layout::Plain);
        host.write(host.config(), &format!("version = {}\n", version.configuration_version()));
        host.start();
        let (before, dump) = (host.files(), host.dump());
        assert!(has(&dump, "runc", "runtime_type = \"io.containerd.runc.v2\""));
        host.run("install").ok();
        assert_eq!(runtime(&host.dump(), "runc"), runtime(&dump, "runc"));
        host.run("uninstall").ok();
        assert!(before == host.files());
    }
}

/// Files of version 2 on containerd 2, and of before there were versions on 1.x.
#[test]
fn older_forms_of_the_file() {
    for (version, text) in [
        (Version::V2_1, owners(Version::V1_7, true)),
        (Version::V1_6, "[plugins.cri]\nrestrict_oom_score_adj = true\n[plugins.cri.containerd.runtimes.runc]\nruntime_type = 'io.containerd.runc.v2'\n".to_owned()),
    ] {
        let host = Host::new(version, Layout::Plain);
        host.write(host.config(), &text);
        host.start();
        let (before, dump) = (host.files(), host.dump());
        host.run("install").ok();
        let after = host.dump();
        assert_eq!(runtime(&after, "runc"), runtime(&dump, "runc"));
        assert!(has(&after, "wasmbox", "runtime_type = \"io.containerd.wasmbox.v1\""));
        host.run("uninstall").ok();
        assert!(before == host.files());
    }
}
