use super::*;

fn runtime_options(path: &str, body: &str) -> Any {
    let mut value = Vec::new();
    {
        let mut output = containerd_shim_protos::protobuf::CodedOutputStream::vec(&mut value);
        output.write_string(1, "a type").unwrap();
        output.write_string(2, path).unwrap();
        output.write_bytes(3, body.as_bytes()).unwrap();
        output.flush().unwrap();
    }
    Any { type_url: RUNTIME_OPTIONS.into(), value, ..Any::default() }
}

#[test]
fn toml_in_the_configuration() {
    let options = Options::from_any(&runtime_options(
        "",
        "BinaryName = '/usr/bin/crun'\nSystemdCgroup = true\n[Env]\nDEFAULT_CPU_QUOTA = '250'\n",
    ))
    .unwrap();
    assert_eq!(options.binary_name.as_deref(), Some(Path::new("/usr/bin/crun")));
    assert!(options.systemd_cgroup);
    assert_eq!(options.env["DEFAULT_CPU_QUOTA"], "250");
}

#[test]
fn the_nodes_cache_is_on_unless_it_is_switched_off() {
    let cache_dir = |body| Options::from_any(&runtime_options("", body)).unwrap().cache_dir();
    assert_eq!(cache_dir("SystemdCgroup = true").as_deref(), Some(Path::new("/var/lib/wasmbox/cache")));
    assert_eq!(cache_dir("CacheDir = '/data/code'").as_deref(), Some(Path::new("/data/code")));
    assert_eq!(cache_dir("CacheDir = 'none'"), None);
}

#[test]
fn what_is_not_known_is_named() {
    let error = Options::from_any(&runtime_options("", "BinryName = 'x'")).unwrap_err();
    assert!(error.to_string().contains("BinryName"), "{error}");
    let error = Options::from_any(&runtime_options("/nowhere.toml", "")).unwrap_err();
    assert!(error.to_string().contains("/nowhere.toml"), "{error}");
    let other = Any { type_url: "types.example/other.Options".into(), ..Any::default() };
    assert!(Options::from_any(&other).unwrap_err().to_string().contains("other.Options"));
    let criu = oci::Options { criu_work_path: "/x".into(), ..oci::Options::default() };
    let criu = Any { type_url: RUNC_OPTIONS.into(), value: criu.write_to_bytes().unwrap(), ..Any::default() };
    assert!(Options::from_any(&criu).unwrap_err().to_string().contains("CriuWorkPath"));
    let error = Options::from_any(&runtime_options("", "CriuImagePath = '/x'")).unwrap_err();
    assert!(error.to_string().contains("CriuImagePath"), "{error}");
}

#[test]
fn what_containerd_writes_for_runc_says_nothing() {
    let defaults = "BinaryName = ''\nCriuImagePath = ''\nCriuPath = ''\nCriuWorkPath = ''\nIoGid = 0\nIoUid = 0\n\
                    NoNewKeyring = false\nNoPivotRoot = false\nRoot = ''\nShimCgroup = ''\nSystemdCgroup = false\n";
    assert_eq!(Options::from_any(&runtime_options("", defaults)).unwrap(), Options::default());
}

#[test]
fn options_of_the_client_of_containerd_1_7() {
    let any = |write: &dyn Fn(&mut containerd_shim_protos::protobuf::CodedOutputStream<'_>)| {
        let mut value = Vec::new();
        {
            let mut output = containerd_shim_protos::protobuf::CodedOutputStream::vec(&mut value);
            write(&mut output);
            output.flush().unwrap();
        }
        Any { type_url: CREATE_OPTIONS.into(), value, ..Any::default() }
    };
    let options = Options::from_any(&any(&|output| {
        output.write_bool(1, true).unwrap();
        output.write_string(7, "soft").unwrap();
        output.write_bool(8, true).unwrap();
        output.write_bool(9, true).unwrap();
        output.write_string(10, "/shims").unwrap();
        output.write_uint32(11, 65536).unwrap();
        output.write_uint32(12, 65537).unwrap();
    }));
    let expected = Options {
        no_pivot_root: true,
        no_new_keyring: true,
        shim_cgroup: Some("/shims".into()),
        io_uid: 65536,
        io_gid: 65537,
        ..Options::default()
    };
    assert_eq!(options.unwrap(), expected);
    let error = Options::from_any(&any(&|output| output.write_string(14, "/images").unwrap())).unwrap_err();
    assert!(error.to_string().contains("CriuImagePath"), "{error}");
}

#[test]
fn options_of_runc() {
    let runc = oci::Options { binary_name: "crun".into(), systemd_cgroup: true, ..oci::Options::default() };
    let any = Any { type_url: RUNC_OPTIONS.into(), value: runc.write_to_bytes().unwrap(), ..Any::default() };
    let options = Options::from_any(&any).unwrap();
    assert_eq!(options.binary_name.as_deref(), Some(Path::new("crun")));
    assert!(options.systemd_cgroup);
    assert_eq!(Options::from_any(&Any::default()).unwrap(), Options::default());
}
