//! Bundles and calls that are garbage.

use std::fs;

use wasmbox_tests::{Containerd, Image, Version};

use super::{clear_fifos, remove_all};

#[test]
fn a_garbage_bundle_is_refused_saying_why() {
    let containerd = Containerd::start(Version::V1_6);
    let shim = containerd.directory().join("bin/containerd-shim-wasmbox-v1");
    let bundle = containerd.directory().join("bundle");
    fs::create_dir(&bundle).expect("a new directory");
    let start = |words: &[&str], input: &str| {
        let mut command = containerd.command("/bin/sh");
        command.args(["-c", "cd $0 && exec $@"]).arg(&bundle).arg(&shim);
        command.env("TTRPC_ADDRESS", "/run/containerd/containerd.sock.ttrpc");
        command.args(["-namespace", "default", "-address", "/run/containerd/containerd.sock", "-id", "one"]);
        containerd.node().run_with(command.args(words), input)
    };
    for (config, said) in [
        (None, "config.json"),
        (Some("no JSON"), "config.json is not JSON"),
        (Some("[]"), "config.json is not an object"),
        (Some("\u{1}\u{2}"), "config.json is not JSON"),
        (Some(""), "config.json is not JSON"),
    ] {
        if let Some(config) = config {
            fs::write(bundle.join("config.json"), config).expect("our own file");
        }
        let ran = start(&["start"], "");
        assert!(ran.code != 0 && ran.stderr.contains(said), "{config:?}: {ran:?}");
        // `delete` does what it can.
        assert_eq!(start(&["-bundle", &bundle.display().to_string(), "delete"], "").code, 0);
    }
    let ran = start(&["sing"], "");
    assert!(ran.code != 0 && ran.stderr.contains("\"sing\""), "{ran:?}");
    let ran = start(&[], "");
    assert!(ran.code != 0 && ran.stderr.contains("start or delete"), "{ran:?}");
    // Through containerd: a spec that is one, and cannot be run.
    let image = Image::busybox();
    containerd.import(&image);
    let config = containerd.directory().join("spec.json");
    for (spec, said) in [
        (r#"{"ociVersion": "1.0.2"}"#, "process.args is absent"),
        (
            r#"{"ociVersion": "1.0.2", "process": {"args": ["/bin/true"]}, "annotations": {"wasmbox.dev/container": ""}}"#,
            "annotation wasmbox.dev/container=\"\": expected",
        ),
        (
            r#"{"ociVersion": "1.0.2", "process": {"args": ["/bin/true"], "cwd": "/"}, "root": {"path": "nowhere"}}"#,
            "OCI runtime create failed: ",
        ),
    ] {
        fs::write(&config, spec).expect("our own file");
        let ran = containerd.run(&["--config", &config.display().to_string(), "two"]);
        assert!(ran.code != 0 && ran.stderr.contains(said), "{spec}: {ran:?}");
        remove_all(&containerd);
    }
    clear_fifos(&containerd);
}
