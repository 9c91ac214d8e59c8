//! Settings: flags over environment over a file over defaults; a wrong one stops the start and is named.

use std::fs;

use wasmbox_tests::{Request, WasmBox, guest, server::Launch};

/// The capacity in MiB that a server says it has: what `memory-limit` sets, wherever it comes from.
fn capacity(launch: Launch) -> String {
    let server = launch.start();
    let line = server.logged(&["serving", "capacity_mib="]);
    let (_, value) = line.split_once("capacity_mib=").expect("it was looked for");
    value.split(' ').next().expect("a word").to_owned()
}

fn with_file(launch: Launch, content: &str) -> Launch {
    let path = launch.directory().join("wasmbox.toml");
    fs::write(&path, content).expect("a file");
    launch.flag("--config", path.display())
}

#[test]
fn flags_over_environment_over_file_over_defaults() {
    let file = "memory-limit = '300Mi'\npod-name = 'of the file'\n";
    let all = || with_file(WasmBox::launch().env("MEMORY_LIMIT", "200"), file);
    assert_eq!(capacity(all().flag("--memory-limit", 100)), "100");
    assert_eq!(capacity(all()), "200");
    assert_eq!(capacity(with_file(WasmBox::launch(), file)), "300");
    // An empty variable counts as not set.
    assert_eq!(capacity(with_file(WasmBox::launch().env("MEMORY_LIMIT", ""), file)), "300");
    assert_ne!(capacity(WasmBox::launch()), "300");
    // Each setting for itself: the pod's name is that of the file, though the limit is the flag's.
    let server = all().flag("--memory-limit", 100).function("hello.wat", guest::hello()).start();
    let answer = server.call(Request::get("/hello").header("Memory-Request", "1"), "").ok();
    assert_eq!(answer.header("pod"), "of the file");
    // The file named by the environment.
    let launch = WasmBox::launch();
    let path = launch.directory().join("named.toml");
    fs::write(&path, file).expect("a file");
    assert_eq!(capacity(launch.env("WASMBOX_CONFIG", path.display())), "300");
}

#[test]
fn a_wrong_value_is_named_wherever_it_comes_from() {
    for (flag, variable, value, expected) in [
        ("--port", "WEBSERVER_PORT", "65536", "65535"),
        ("--port", "PORT", "http", "invalid"),
        ("--admin-port", "HEALTHCHECK_PORT", "-1", "-1"),
        ("--cpu-quota", "DEFAULT_CPU_QUOTA", "half", "millicores"),
        ("--memory-request", "DEFAULT_MEMORY_REQUEST", "12 potatoes", "MiB"),
        ("--memory-limit", "MEMORY_LIMIT", "much", "MiB"),
        ("--invocation-timeout", "DEFAULT_INVOCATION_TIMEOUT", "NaN", "milliseconds"),
        ("--trust-precompiled", "TRUST_PRECOMPILED", "maybe", "true, false"),
        ("--wasm-runtime", "WASM_RUNTIME", "wasmer", "wasmtime, wasmedge"),
        ("--log-format", "LOG_FORMAT", "xml", "text, json"),
        ("--allow-outbound", "ALLOW_OUTBOUND", "a b", "host:port"),
        ("--max-invocations", "MAX_INVOCATIONS", "many", "invalid"),
    ] {
        let said = WasmBox::launch().flag(flag, value).refusal();
        for part in [flag, value, expected] {
            assert!(said.contains(part), "{part} is not in {said}");
        }
        let said = WasmBox::launch().env(variable, value).refusal();
        for part in [variable, value, expected] {
            assert!(said.contains(part), "{part} is not in {said}");
        }
    }
}

#[test]
fn a_value_out_of_bounds_is_named_with_them() {
    for (flag, value, bounds) in [
        ("--max-invocations", "0", "1 to 10000"),
        ("--max-invocations", "10001", "1 to 10000"),
        ("--io-threads", "0", "1 to 64"),
        ("--compile-jobs", "65", "1 to 64"),
        ("--max-connections", "0", "1 to 1000000"),
        ("--max-wasm-stack", "1000", "65536 to 67108864"),
        ("--output-buffer-bytes", "99999999", "0 to 16777216"),
        ("--concurrent-resource-request", "0", "1 to"),
        ("--max-memory-request", "5Gi", "4294967296"),
        ("--log-level", "loud", "error, warn, info"),
        ("--preopen-root", "/nowhere", "an existing directory"),
    ] {
        let said = WasmBox::launch().flag(flag, value).refusal();
        // An amount is said in bytes.
        let value = if value == "5Gi" { "5368709120" } else { value };
        for part in [flag, value, bounds] {
            // Its environment variable names a setting as well as its flag does.
            let variable = flag.trim_start_matches('-').replace('-', "_").to_uppercase();
            assert!(said.contains(part) || (part == flag && said.contains(&variable)), "{part} is not in {said}");
        }
    }
}

#[test]
fn a_wrong_file_is_named() {
    for (content, parts) in [
        ("port = ", &["line 1"][..]),
        ("prot = 1", &["prot", "port"]),
        ("memory-request = 'lots'", &["memory-request", "MiB"]),
        ("port = 'http'", &["port"]),
        ("[port]\n", &["port"]),
    ] {
        let said = with_file(WasmBox::launch(), content).refusal();
        for part in [&["wasmbox.toml"], parts].concat() {
            assert!(said.contains(part), "{part} is not in {said}");
        }
    }
    let said = WasmBox::launch().flag("--config", "/nowhere/wasmbox.toml").refusal();
    assert!(said.contains("/nowhere/wasmbox.toml"), "{said}");
    assert!(WasmBox::launch().flag("--prot", 1).refusal().contains("--port"), "a similar one is proposed");
}

/// A manifest of the original WasmBox works unchanged: each of its variables is known or does no harm.
#[test]
fn the_originals_environment() {
    let mut launch = WasmBox::launch().function("hello.wat", guest::hello());
    for (name, value) in [
        ("WEBSERVER_HOST", "127.0.0.1"),
        ("WEBSERVER_PORT", "0"),
        ("PORT", "1"),
        ("WASM_RUNTIME", "wasmedge"),
        ("READINESS_WINDOW", "60"),
        ("READINESS_UTILIZATION_TRESHOLD", "0.8"),
        ("READINESS_RAND_TRESHOLD", "40"),
        ("GC_UTILIZATION_TRESHOLD", "0.5"),
        ("MEMORY_LIMIT", "4096"),
        ("ENABLE_MEM_PRE_ALLOCATION", "false"),
        ("MEM_PRE_ALLOCATION_RATIO", "0.5"),
        ("HEALTHCHECK_HOST", "127.0.0.1"),
        ("HEALTHCHECK_PORT", "0"),
        ("REPORTING_PERIOD_MS", "1000"),
        ("QP_HOST", "ws://127.0.0.1"),
        ("QP_PORT", "1"),
        ("MAX_RETRIES", "3"),
        ("RETRY_DELAY_SEC", "1"),
        ("METRICS_COLLECTION_WINDOW", "10"),
        ("ENABLE_CGROUPS", "auto"),
        ("POD_UID", "c4a8a5ac-6a5c-4dc6-8bf6-b5f6c2b2ab11"),
        ("LOG_LEVEL", "info"),
    ] {
        launch = launch.env(name, value);
    }
    let server = launch.start();
    server.get("/hello").ok();
    server.logged(&["serving", "capacity_mib=4096"]);
    assert_eq!(server.log().matches("WASM_RUNTIME=wasmedge").count(), 1);
}

#[test]
fn ports_of_the_environment() {
    let free = || {
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port").port()
    };
    let port = free();
    let server = WasmBox::launch().env("WEBSERVER_PORT", port).env("PORT", "1").start();
    assert_eq!(server.address().port(), port);
    let admin = free();
    let server = WasmBox::launch().env("HEALTHCHECK_PORT", admin).start();
    assert_eq!(server.admin_address().port(), admin);
    server.admin("/ready").ok();
}
