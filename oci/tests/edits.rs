//! From a spec to a WasmBox's spec, on specs that containerd wrote.

#![allow(clippy::unwrap_used)]

mod specs;

use serde_json::Value;
use wasmbox_oci::{Edit, Entry, NodeCache, Spec};

use specs::{Captured, SPECS};

fn edit() -> Edit {
    Edit {
        binary: "/opt/wasmbox/bin/wasmbox".into(),
        cache: Some(NodeCache {
            directory: "/var/lib/wasmbox/cache".into(),
            socket: "/run/bundle/compile.sock".into(),
        }),
        delegation: ("/opt/wasmbox/bin/containerd-shim-wasmbox-v1".into(), vec!["delegate-cgroup".into()]),
    }
}

fn edited(text: &str, entry: &Entry) -> Value {
    let mut spec = Spec::parse(text.as_bytes()).unwrap();
    edit().apply(&mut spec, entry).unwrap();
    serde_json::from_slice(&spec.to_json()).unwrap()
}

fn last(array: &Value, number: usize) -> &[Value] {
    let array = array.as_array().unwrap();
    &array[array.len() - number..]
}

#[test]
fn only_what_must_change_changes() {
    for Captured { name, text } in SPECS {
        let before: Value = serde_json::from_str(text).unwrap();
        let mut after = edited(text, &Entry::Serve);
        assert_eq!(after["process"]["args"], serde_json::json!(["/run/wasmbox/wasmbox", "serve"]), "{name}");
        let others = before["mounts"].as_array().unwrap();
        let known = others.len();
        let mut mounts = &after["mounts"].as_array().unwrap()[known..];
        if !others.iter().any(|mount| mount["destination"] == "/sys/fs/cgroup") {
            assert_eq!((&mounts[0]["destination"], &mounts[0]["type"]), (&"/sys/fs/cgroup".into(), &"cgroup".into()));
            assert!(mounts[0]["options"].as_array().unwrap().contains(&"ro".into()));
            mounts = &mounts[1..];
        }
        assert_eq!(mounts.len(), 5);
        assert_eq!(mounts[0]["destination"], "/run/wasmbox");
        assert_eq!((&mounts[1]["destination"], &mounts[1]["type"]), (&"/run/wasmbox/cgroup".into(), &"tmpfs".into()));
        let mounts = &mounts[1..];
        assert_eq!(mounts[1]["source"], "/opt/wasmbox/bin/wasmbox");
        assert_eq!(mounts[1]["destination"], "/run/wasmbox/wasmbox");
        assert!(mounts[1]["options"].as_array().unwrap().contains(&"ro".into()));
        assert_eq!(mounts[2]["source"], "/var/lib/wasmbox/cache");
        assert_eq!(mounts[2]["destination"], "/run/wasmbox/cache");
        assert_eq!(mounts[2]["options"], serde_json::json!(["bind", "ro", "nosuid", "nodev"]));
        assert_eq!(mounts[3]["source"], "/run/bundle/compile.sock");
        assert_eq!(mounts[3]["destination"], "/run/wasmbox/compile.sock");
        assert!(mounts[3]["options"].as_array().unwrap().contains(&"ro".into()));
        let env = last(&after["process"]["env"], 2);
        assert_eq!(env, ["NODE_CACHE_DIR=/run/wasmbox/cache", "COMPILE_SOCKET=/run/wasmbox/compile.sock"]);
        let hook = &last(&after["hooks"]["createRuntime"], 1)[0];
        assert_eq!(hook["path"], "/opt/wasmbox/bin/containerd-shim-wasmbox-v1");
        assert_eq!(hook["args"][1], "delegate-cgroup");

        // All else is as it was.
        after["process"]["args"] = before["process"]["args"].clone();
        let mounts = after["mounts"].as_array_mut().unwrap();
        mounts.truncate(known);
        let env = after["process"]["env"].as_array_mut().unwrap();
        env.truncate(env.len() - 2);
        after["hooks"]["createRuntime"].as_array_mut().unwrap().pop();
        let mut before = before.clone();
        before.as_object_mut().unwrap().entry("hooks").or_insert(serde_json::json!({ "createRuntime": [] }));
        before["process"].as_object_mut().unwrap().entry("env").or_insert(serde_json::json!([]));
        assert_eq!(after, before, "{name}");
    }
}

#[test]
fn nothing_of_ours_is_hidden_by_a_mount() {
    for Captured { name, text } in SPECS {
        let after = edited(text, &Entry::Serve);
        let places: Vec<_> = after["mounts"].as_array().unwrap().iter().map(|mount| &mount["destination"]).collect();
        let last_of_others = places.iter().rposition(|place| !place.as_str().unwrap().starts_with("/run/wasmbox"));
        let first_of_ours = places.iter().position(|place| place.as_str().unwrap().starts_with("/run/wasmbox"));
        assert!(last_of_others < first_of_ours, "{name}: {places:?}");
    }
}

#[test]
fn a_container_says_itself_which_cache_it_uses() {
    for (env, expected) in [
        (r#"["NODE_CACHE_DIR=none"]"#, &["NODE_CACHE_DIR=none", "COMPILE_SOCKET=/run/wasmbox/compile.sock"][..]),
        (r#"["COMPILE_SOCKET=","A=1"]"#, &["COMPILE_SOCKET=", "A=1", "NODE_CACHE_DIR=/run/wasmbox/cache"]),
        ("null", &["NODE_CACHE_DIR=/run/wasmbox/cache", "COMPILE_SOCKET=/run/wasmbox/compile.sock"]),
    ] {
        let after = edited(&format!(r#"{{"process":{{"args":["x"],"env":{env}}}}}"#), &Entry::Serve);
        assert_eq!(after["process"]["env"], serde_json::json!(expected), "{env}");
    }
}

#[test]
fn without_a_cache_of_the_node_nothing_is_mounted_for_it() {
    let mut spec = Spec::parse(br#"{"process":{"args":["x"]}}"#).unwrap();
    Edit { cache: None, ..edit() }.apply(&mut spec, &Entry::Serve).unwrap();
    let after: Value = serde_json::from_slice(&spec.to_json()).unwrap();
    assert_eq!(after["mounts"].as_array().unwrap().len(), 4);
    assert!(after["process"].get("env").is_none());
}

#[test]
fn what_is_not_known_is_kept() {
    let text = r#"{"process":{"args":["x"],"new":1},"linux":{"netDevices":{"eth0":{}}},"brandNew":[{"a":null}]}"#;
    let after = edited(text, &Entry::Serve);
    assert_eq!(after["process"]["new"], 1);
    assert_eq!(after["linux"]["netDevices"]["eth0"], serde_json::json!({}));
    assert_eq!(after["brandNew"], serde_json::json!([{ "a": null }]));
}

#[test]
fn a_mount_of_cgroups_stays_as_it_is() {
    let text = r#"{"process":{"args":["x"]},"mounts":[{"destination":"/sys/fs/cgroup","type":"bind","source":"/x"}]}"#;
    let after = edited(text, &Entry::Serve);
    let mounts = after["mounts"].as_array().unwrap();
    let of_cgroups = mounts.iter().filter(|mount| mount["destination"] == "/sys/fs/cgroup");
    assert_eq!(of_cgroups.collect::<Vec<_>>(), [&mounts[0]]);
    assert_eq!(mounts[0]["type"], "bind");
}

#[test]
fn hooks_of_others_stay_and_come_first() {
    let text = r#"{"process":{"args":["x"]},"hooks":{"createRuntime":[{"path":"/other"}],"poststop":[{"path":"/p"}]}}"#;
    let after = edited(text, &Entry::Serve);
    assert_eq!(after["hooks"]["createRuntime"][0]["path"], "/other");
    assert_eq!(after["hooks"]["createRuntime"].as_array().unwrap().len(), 2);
    assert_eq!(after["hooks"]["poststop"][0]["path"], "/p");
}

#[test]
fn a_module_is_run_with_the_containers_environment_and_root() {
    let text = r#"{"process":{"args":["/m.wasm"],"env":["A=1","B=x=y","=odd","odd"]}}"#;
    let entry = Entry::Run { module: "/m.wasm".into(), arguments: vec!["--help".into()] };
    let after = edited(text, &entry);
    let args: Vec<&str> =
        after["process"]["args"].as_array().unwrap().iter().map(|value| value.as_str().unwrap()).collect();
    assert_eq!(args, ["/run/wasmbox/wasmbox", "run", "--env=A", "--env=B", "--dir=/:/:rw", "--", "/m.wasm", "--help"]);
}

#[test]
fn a_malformed_spec_is_an_error_that_says_where() {
    for (text, path) in [
        (r#"{"process":{"args":["x"],"env":"A=1"}}"#, "process.env"),
        (r#"{"process":{"args":["x"]},"mounts":{}}"#, "mounts"),
        (r#"{"process":{"args":["x"]},"hooks":[]}"#, "hooks"),
        (r#"{"process":{"args":["x"]},"hooks":{"createRuntime":7}}"#, "hooks.createRuntime"),
    ] {
        let mut spec = Spec::parse(text.as_bytes()).unwrap();
        let error = edit().apply(&mut spec, &Entry::Serve).unwrap_err();
        assert!(error.to_string().contains(path), "{text}: {error}");
    }
}
