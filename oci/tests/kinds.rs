//! From specs to kinds.

#![allow(clippy::unwrap_used)]

mod specs;

use serde_json::{Value, json};
use wasmbox_oci::{Entry, Kind, KindError, Spec};

use specs::{Captured, SPECS};

fn spec(args: &[&str], annotations: &[(&str, &str)]) -> Spec {
    let annotations: serde_json::Map<String, Value> =
        annotations.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
    let spec = json!({ "ociVersion": "1.0.2", "process": { "args": args, "cwd": "/" }, "annotations": annotations });
    Spec::parse(spec.to_string().as_bytes()).unwrap()
}

const TYPE: &str = "io.kubernetes.cri.container-type";
const NAME: &str = "io.kubernetes.cri.container-name";
const OURS: &str = "wasmbox.dev/container";

fn as_given(arguments: &[&str]) -> Kind {
    Kind::WasmBox(Entry::AsGiven { arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect() })
}

/// What is read in specs that containerd wrote.
#[test]
fn captured_specs_are_understood() {
    let sandbox = "5".repeat(64);
    let pod = Some(sandbox.as_str());
    let serve = || as_given(&["serve", "--functions-dir", "/functions"]);
    for Captured { name, text } in SPECS {
        let spec = Spec::parse(text.as_bytes()).unwrap();
        let (kind, group, user, variable) = match name.split('-').next().unwrap() {
            "sandbox" => (Kind::Sandbox, pod, (0, 0), None),
            "sidecar" => (Kind::Ordinary, pod, (65532, 65532), Some("HOSTNAME=hello-00001-deployment-0")),
            "box" => (serve(), pod, (1000, 1000), Some("PORT=8095")),
            "ctr" => (serve(), None, (0, 0), None),
            other => panic!("{other} is not expected"),
        };
        assert_eq!(Kind::of(&spec).unwrap(), kind, "{name}");
        assert_eq!(spec.sandbox_id(), group, "{name}");
        assert_eq!(spec.user(), user, "{name}");
        assert_eq!(spec.root_path(), Some("rootfs"), "{name}");
        assert!(variable.is_none_or(|variable| spec.env().unwrap().iter().any(|known| known == variable)), "{name}");
        assert!(spec.has_own_namespace("mount") && !spec.has_own_namespace("user"), "{name}");
        // A pod's is named by its path; of `ctr run --net-host` it is the host's.
        assert!(!spec.has_own_namespace("network"), "{name}");
        assert!(spec.has_own_namespace("pid"), "{name}");
    }
}

#[test]
fn users_are_mapped_to_the_hosts() {
    for (mappings, host) in [
        (json!(null), (1000, 2000)),
        (json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]), (101_000, 102_000)),
        (
            json!([{ "containerID": 0, "hostID": 7, "size": 1 }, { "containerID": 1000, "hostID": 9, "size": 1 }]),
            (9, 2000),
        ),
    ] {
        let spec = json!({
            "process": { "user": { "uid": 1000, "gid": 2000 } },
            "linux": { "uidMappings": mappings, "gidMappings": mappings },
        });
        assert_eq!(Spec::parse(spec.to_string().as_bytes()).unwrap().host_user(), host, "{mappings}");
    }
}

#[test]
fn the_path_of_a_cgroup_says_who_makes_it() {
    for (path, is_systemds) in [
        (json!("kubepods-besteffort-pod7a1e.slice:cri-containerd:5555"), true),
        (json!("/kubepods/besteffort/pod7a1e/5555"), false),
        (json!("/default/a:b:c"), false),
        (json!("5555"), false),
        (json!(null), false),
    ] {
        let spec = Spec::parse(json!({ "linux": { "cgroupsPath": path } }).to_string().as_bytes()).unwrap();
        assert_eq!(spec.has_systemd_cgroup(), is_systemds, "{path}");
    }
}

#[test]
fn the_entrypoint_decides() {
    let run = |module: &str, arguments: &[&str]| {
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        Kind::WasmBox(Entry::Run { module: module.into(), arguments })
    };
    for (args, kind) in [
        (&["wasmbox", "serve"][..], as_given(&["serve"])),
        (&["/usr/bin/wasmbox", "serve", "--port", "80"], as_given(&["serve", "--port", "80"])),
        (&["wasmbox"], as_given(&[])),
        (&["/app/hello.wasm", "a", "b"], run("/app/hello.wasm", &["a", "b"])),
        (&["hello.wat"], run("hello.wat", &[])),
        (&["/bin/sh", "-c", "wasmbox serve"], Kind::Ordinary),
        (&["/wasmbox/sh"], Kind::Ordinary),
        (&["/bin/wasmbox-init"], Kind::Ordinary),
        (&[".wasm"], Kind::Ordinary),
        (&["/x/.wat"], Kind::Ordinary),
        (&["hello.wasm.sh"], Kind::Ordinary),
        (&[], Kind::Ordinary),
    ] {
        assert_eq!(Kind::of(&spec(args, &[])).unwrap(), kind, "{args:?}");
    }
}

#[test]
fn the_annotation_overrides_it() {
    for (args, annotations, kind) in [
        (&["wasmbox", "serve"][..], &[(OURS, "false")][..], Kind::Ordinary),
        (&["/old/server"], &[(OURS, "true")], Kind::WasmBox(Entry::Serve)),
        (&["wasmbox", "serve"], &[(OURS, "true")], as_given(&["serve"])),
        (&["/old/server"], &[(OURS, "user-container"), (NAME, "user-container")], Kind::WasmBox(Entry::Serve)),
        (&["/old/server"], &[(OURS, "other, user-container"), (NAME, "user-container")], Kind::WasmBox(Entry::Serve)),
        // The others of the same pod see the same annotation.
        (&["/ko-app/queue"], &[(OURS, "user-container"), (NAME, "queue-proxy")], Kind::Ordinary),
        (&["wasmbox", "serve"], &[(OURS, "user-container"), (NAME, "queue-proxy")], Kind::Ordinary),
        // Without CRI a container has no name.
        (&["/old/server"], &[(OURS, "user-container")], Kind::Ordinary),
    ] {
        assert_eq!(Kind::of(&spec(args, annotations)).unwrap(), kind, "{args:?} {annotations:?}");
    }
}

#[test]
fn a_sandbox_is_never_a_box() {
    let annotations = [(TYPE, "sandbox"), (OURS, "true")];
    assert_eq!(Kind::of(&spec(&["wasmbox", "serve"], &annotations)).unwrap(), Kind::Sandbox);
    assert_eq!(Kind::of(&spec(&["/pause"], &annotations)).unwrap(), Kind::Sandbox);
}

#[test]
fn an_annotation_that_says_nothing_is_an_error() {
    for value in ["", " ", "yes please", "True", "a,,b", "-x_", &"a".repeat(64)] {
        let error = Kind::of(&spec(&["wasmbox"], &[(OURS, value)])).unwrap_err();
        assert!(matches!(error, KindError::Annotation { .. }), "{value:?}");
        assert!(error.to_string().contains("wasmbox.dev/container"), "{error}");
    }
}

#[test]
fn a_spec_without_a_process_is_an_error() {
    for text in ["{}", r#"{"process":{}}"#, r#"{"process":{"args":"x"}}"#, r#"{"process":{"args":[1]}}"#] {
        let error = Kind::of(&Spec::parse(text.as_bytes()).unwrap()).unwrap_err();
        assert!(error.to_string().contains("process.args"), "{error}");
    }
    assert!(Spec::parse(b"[]").is_err());
    assert!(Spec::parse(b"{").is_err());
}
