//! Settings: flags over environment over a file over defaults; a wrong one stops the start and is named.

use std::fs;

use wasmbox_tests::{Request, WasmBox, guest, server::Launch, workspace};

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
        ("--port", "PORT", "http", "expected 0 to 65535"),
        ("--admin-port", "HEALTHCHECK_PORT", "-1", "-1"),
        ("--cpu-quota", "DEFAULT_CPU_QUOTA", "half", "millicores"),
        ("--memory-request", "DEFAULT_MEMORY_REQUEST", "12 potatoes", "MiB"),
        ("--memory-limit", "MEMORY_LIMIT", "much", "MiB"),
        ("--invocation-timeout", "DEFAULT_INVOCATION_TIMEOUT", "NaN", "milliseconds"),
        ("--trust-precompiled", "TRUST_PRECOMPILED", "maybe", "true, false"),
        ("--wasm-runtime", "WASM_RUNTIME", "wasmer", "wasmtime, wasmedge"),
        ("--log-format", "LOG_FORMAT", "xml", "text, json"),
        ("--allow-outbound", "ALLOW_OUTBOUND", "a b", "host:port"),
        ("--max-invocations", "MAX_INVOCATIONS", "many", "expected a whole number"),
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
        ("--max-wasm-stack", "1k", "64Ki to 64Mi"),
        ("--output-buffer-bytes", "99999999B", "0B to 16Mi"),
        ("--concurrent-resource-request", "0", "1 to"),
        ("--max-memory-request", "5120Mi", "64Ki to 4096Mi"),
        ("--log-level", "loud", "error, warn, info"),
        ("--preopen-root", "/nowhere", "an existing directory"),
    ] {
        let said = WasmBox::launch().flag(flag, value).refusal();
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
        ("prot = 1", &["prot", "'--port'"]),
        ("functions = 'x'", &["functions", "'--functions-dir'"]),
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
    for part in ["/nowhere/wasmbox.toml", "name another with --config (WASMBOX_CONFIG)"] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    assert!(WasmBox::launch().flag("--prot", 1).refusal().contains("--port"), "a similar one is proposed");
}

/// The user may have one thread, so that the first of the server's own cannot be started.
#[test]
fn a_missing_thread_is_named_with_its_limits() {
    let limits = ["prlimit", "--nproc=1", "setpriv", "--reuid=61234", "--regid=61234", "--clear-groups"];
    let said = WasmBox::launch().through(limits).refusal();
    for part in ["thread", "raise the limit on threads", "pids", "ulimit -u"] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
}

/// The values in backticks that docs/operations.md gives as examples of a kind (`SIZE`), and those settings of its tables that have it, but
/// for `--memory-limit`: flag and first variable.
fn documented(kind: &str) -> (Vec<String>, Vec<(String, String)>) {
    let document = fs::read_to_string(workspace::root().join("docs/operations.md")).expect("the document");
    let document_in_one_line = document.replace('\n', " ");
    let (_, sentence) = document_in_one_line.split_once(&format!("{kind} is ")).expect("a sentence");
    let (sentence, _) = sentence.split_once(". ").expect("its end");
    let examples = sentence.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    let settings = document.lines().filter_map(|line| {
        let (flag, rest) = line.strip_prefix("| `")?.split_once(&format!(" {kind}` | `"))?;
        Some((flag.to_owned(), rest.split('`').next()?.to_owned()))
    });
    (examples, settings.filter(|(flag, _)| flag != "--memory-limit").collect())
}

/// As flags, as variables, and in a file.
fn starts_everywhere(values: &[(String, String, String)]) {
    let launch = WasmBox::launch;
    let by_flags = values.iter().fold(launch(), |launch, (flag, _, value)| launch.flag(flag, value));
    let by_variables = values.iter().fold(launch(), |launch, (_, variable, value)| launch.env(variable, value));
    let line = |(flag, _, value): &(String, String, String)| format!("{} = '{value}'\n", flag.trim_start_matches('-'));
    let in_file = with_file(launch(), &values.iter().map(line).collect::<String>());
    for launch in [by_flags, by_variables, in_file] {
        launch.start().admin("/live").ok();
    }
}

#[test]
fn each_documented_example_starts_a_server() {
    let kinds = ["SIZE", "TIME", "QUOTA"].map(documented);
    assert_eq!(kinds.each_ref().map(|(examples, _)| examples.len()), [7, 4, 3], "what the document says is found");
    assert_eq!(kinds.each_ref().map(|(_, settings)| settings.len()), [12, 12, 2], "what the document says is found");
    for round in 0..7 {
        let value = |examples: &[String]| examples[round % examples.len()].clone();
        let values = kinds.iter().flat_map(|(examples, settings)| {
            settings.iter().map(|(flag, variable)| (flag.clone(), variable.clone(), value(examples)))
        });
        // A second and more is no period of quotas, less than 64 MiB no memory of a compiler.
        let usable = |(flag, _, value): &(String, String, String)| match flag.as_str() {
            "--cpu-period" => value == "500ms",
            "--compile-memory" => !["64Ki", "500k"].contains(&value.as_str()),
            _ => true,
        };
        starts_everywhere(&values.filter(usable).collect::<Vec<_>>());
        let limit = ("--memory-limit".to_owned(), "MEMORY_LIMIT".to_owned(), value(&kinds[0].0));
        starts_everywhere(&[limit]);
    }
    // The lines of a file, as the document shows them.
    let document = fs::read_to_string(workspace::root().join("docs/operations.md")).expect("the document");
    let (document, _) = document.split_once("SIZE is ").expect("what precedes it is about the file");
    let lines: Vec<String> =
        document.replace('\n', " ").split('`').filter(|text| text.contains(" = ")).map(str::to_owned).collect();
    assert!(lines.len() >= 3, "{lines:?}");
    for line in lines.iter().filter(|line| !line.starts_with("port")) {
        let _server = with_file(WasmBox::launch(), line).start();
    }
}

/// The kinds that have forms instead of a list of examples: each form is written out.
#[test]
fn each_documented_form_starts_a_server() {
    let document = |name: &str| {
        let path = workspace::root().join("docs").join(name);
        fs::read_to_string(path).expect("the document").replace('\n', " ")
    };
    let (operations, api) = (document("operations.md"), document("api.md"));
    let (_, hosts) = api.split_once("Both are written alike: ").expect("the forms of hosts");
    let (hosts, _) = hosts.split_once(" Without a port").expect("their end");
    let hosts: Vec<&str> = hosts.split('`').skip(1).step_by(2).collect();
    assert_eq!(hosts.len(), 6, "{hosts:?}");
    let redis = ["", ":secret@", "ada:secret@"]
        .iter()
        .flat_map(|who| ["", "/1"].map(|database| format!("redis://{who}127.0.0.1:6379{database}")));
    let forms: [(&str, &str, &str, Vec<String>); 6] = [
        (
            "--allow-outbound HOST:PORT",
            "ALLOW_OUTBOUND",
            "`*.DOMAIN:PORT` and `NETWORK/BITS:PORT`",
            vec![hosts.join(",")],
        ),
        ("--keyvalue-redis URL", "KEYVALUE_REDIS", "`redis://[[USER]:PASSWORD@]HOST:PORT[/DATABASE]`", redis.collect()),
        (
            "--otlp-endpoint URL",
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "`http://HOST:4318` or `https://...`; traces go to `/v1/traces` below it",
            ["http://127.0.0.1:4318", "http://localhost:4318/otlp", "http://[::1]:4318"].map(str::to_owned).into(),
        ),
        (
            "--otlp-traces-endpoint URL",
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            "the whole URL for traces, maybe with a query",
            ["http://127.0.0.1:4318/v1/traces?team=a"].map(str::to_owned).into(),
        ),
        (
            "--overbooking-ratio RATIO",
            "OVERBOOKING_RATIO",
            "0.1 to 100, a decimal number",
            ["0.1", "1", "1.5", "100"].map(str::to_owned).into(),
        ),
        (
            "--qp-host ADDRESS",
            "QP_HOST",
            "also written `ws://127.0.0.1`; `none` reports to nobody",
            ["127.0.0.1", "ws://127.0.0.1", "none"].map(str::to_owned).into(),
        ),
    ];
    for (setting, variable, meaning, values) in forms {
        let row = operations.split_once(&format!("| `{setting}` | `{variable}`")).expect(setting).1;
        assert!(row.split(" | `--").next().is_some_and(|row| row.contains(meaning)), "{setting}: {meaning}");
        let (flag, _) = setting.split_once(' ').expect("a kind");
        for value in values {
            starts_everywhere(&[(flag.to_owned(), variable.to_owned(), value)]);
        }
    }
    for (flag, value, expected) in [
        ("--overbooking-ratio", "0.09", "0.1 to 100"),
        ("--overbooking-ratio", "100.1", "0.1 to 100"),
        ("--overbooking-ratio", "1e2", "0.1 to 100"),
        ("--overbooking-ratio", "NaN", "0.1 to 100"),
        ("--allow-outbound", "api.example.com:0", "host:port"),
        ("--allow-outbound", "10.0.0.0/33:80", "host:port"),
        ("--allow-outbound", "*.*.example.com:80", "host:port"),
        // URLs may have a password in them, and are not shown.
        ("--keyvalue-redis", "rediss://127.0.0.1:6379", "redis://[[USER]:PASSWORD@]HOST:PORT[/DATABASE]"),
        ("--otlp-endpoint", "localhost:4318", "http://HOST:PORT"),
        ("--otlp-endpoint", "http://localhost:0", "http://HOST:PORT"),
        ("--qp-host", "http://127.0.0.1", "ws://"),
    ] {
        let said = WasmBox::launch().flag(flag, value).refusal();
        let is_url = flag == "--keyvalue-redis" || flag == "--otlp-endpoint";
        let named = if is_url { "not shown" } else { value };
        for part in [flag, named, expected] {
            assert!(said.contains(part), "{part} is not in {said}");
        }
    }
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
