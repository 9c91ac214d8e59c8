use clap::{CommandFactory, FromArgMatches};

use proptest::prelude::*;

use super::{
    settings::{Alone, variables},
    *,
};
use crate::traces::sampler::SamplerKind;

fn environment(variables: &[(&str, &str)]) -> Result<Settings, ConfigError> {
    Settings::from_environment(|name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into()))
}

fn flags(arguments: &[&str]) -> Settings {
    Alone::from_arg_matches(&Alone::command().try_get_matches_from(arguments).unwrap()).unwrap().settings
}

#[test]
fn each_setting_has_a_variable_and_each_variable_a_setting() {
    let flags: Vec<String> = Alone::command()
        .get_arguments()
        .filter_map(|argument| argument.get_long().map(str::to_owned))
        .filter(|flag| flag != "help")
        .collect();
    let named: Vec<String> = variables().map(|(setting, _)| setting.replace('_', "-")).collect();
    assert_eq!(flags, named);
    let mut names: Vec<&str> = variables().flat_map(|(_, names)| names).copied().collect();
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all, "a variable sets one thing");
}

#[test]
fn the_originals_names_and_their_order() {
    let settings =
        environment(&[("PORT", "1"), ("WEBSERVER_PORT", "2"), ("WASM_RUNTIME", "wasmedge"), ("LOG_LEVEL", "")])
            .unwrap();
    assert_eq!(settings.places.port, Some(2));
    assert_eq!(settings.modules.wasm_runtime, Some(WasmRuntime::Wasmedge));
    assert_eq!(settings.places.log_level, None);
    assert_eq!(environment(&[("PORT", "1")]).unwrap().places.port, Some(1));
}

#[test]
fn a_bad_variable_names_itself_its_value_and_what_is_expected() {
    let message = environment(&[("DEFAULT_CPU_QUOTA", "lots")]).unwrap_err().to_string();
    assert!(
        message.contains("DEFAULT_CPU_QUOTA")
            && message.contains("lots")
            && message.contains("millicores (500 or 500m)"),
        "{message}"
    );
    let message = environment(&[("PORT", "70000")]).unwrap_err().to_string();
    assert!(message.contains("PORT=\"70000\"") && message.contains("65535"), "{message}");
    let message = environment(&[("WASM_RUNTIME", "v8")]).unwrap_err().to_string();
    assert!(message.contains("wasmtime") && message.contains("wasmedge"), "{message}");
}

#[test]
fn flags_over_environment_over_file() {
    let file = Settings::from_toml(
        "port = 1\nhost = 'a'\ncpu-quota = 250\nmemory-request = '64Mi'\nallow-outbound = ['x:1', 'y:2']",
    )
    .unwrap();
    let flags = flags(&["--port=3"]);
    let all = flags.over(environment(&[("PORT", "2"), ("DEFAULT_CPU_QUOTA", "0.5")]).unwrap().over(file));
    assert_eq!((all.places.port, all.places.host.as_deref()), (Some(3), Some("a")));
    let config = Config::new(all).unwrap();
    assert_eq!((config.defaults.cpu_quota.millicores(), config.defaults.memory.mebibytes()), (500, 64));
    assert_eq!(config.outbound.allow, ["x:1".parse().unwrap(), "y:2".parse().unwrap()]);
}

#[test]
fn capacity_follows_from_memory_and_overbooking() {
    let units = |variables: &[(&str, &str)]| Config::new(environment(variables).unwrap()).unwrap().capacity.units;
    let limit = ("MEMORY_LIMIT", "300Mi");
    assert_eq!(units(&[limit]), 300);
    assert_eq!(units(&[limit, ("OVERBOOKING_RATIO", "2.5")]), 750);
    assert_eq!(units(&[limit, ("OVERBOOKING_RATIO", "2.5"), ("CONCURRENT_RESOURCE_REQUEST", "10")]), 10);
    assert_eq!(units(&[("MEMORY_LIMIT", "64Ki"), ("OVERBOOKING_RATIO", "0.1")]), 1);
    let file = Settings::from_toml("memory-limit = '1Gi'\noverbooking-ratio = 1.5").unwrap();
    assert_eq!(Config::new(file).unwrap().capacity.units, 1536);
    for bad in ["0", "-1", "NaN", "1e1", "101"] {
        let message = environment(&[("OVERBOOKING_RATIO", bad)]).unwrap_err().to_string();
        assert!(message.contains("OVERBOOKING_RATIO") && message.contains("from 0.1 to 100"), "{message}");
    }
}

#[test]
fn what_is_wrong_in_the_file_is_named() {
    for (file, parts) in [
        ("prot = 1", &["prot", "--port"][..]),
        ("port = [1]", &["port", "expected a text, a number"]),
        ("port = -1", &["port", "-1"]),
        ("[port]", &["port", "expected a text, a number"]),
        ("cache-size = 1.5", &["cache-size", "1.5", "MiB"]),
        ("help = true", &["help"]),
        ("\"port=1\" = 1", &["port=1"]),
        ("port = 1\nport = 2", &["line 2"]),
    ] {
        let message = Settings::from_toml(file).unwrap_err();
        for part in parts {
            assert!(message.contains(part), "{file}: {message}");
        }
    }
}

#[test]
fn a_number_with_a_point_keeps_it() {
    let quota = |file: &str| Settings::from_toml(file).unwrap().invocation.cpu_quota.unwrap().millicores();
    assert_eq!((quota("cpu-quota = 2.0"), quota("cpu-quota = 0.5"), quota("cpu-quota = 2")), (2000, 500, 2));
}

#[test]
fn paths_need_not_be_text() {
    use std::os::unix::ffi::OsStrExt;
    let odd = std::ffi::OsStr::from_bytes(b"/srv/\xff");
    let odd_flag = std::ffi::OsStr::from_bytes(b"--functions-dir=/srv/\xff");
    let matches = Alone::command().try_get_matches_from([odd_flag]).unwrap();
    let flags = Alone::from_arg_matches(&matches).unwrap().settings;
    let environment = Settings::from_environment(|name| (name == "CACHE_DIR").then(|| odd.to_owned())).unwrap();
    let config = Config::new(flags.over(environment)).unwrap();
    assert_eq!((config.functions_dir, config.cache_dir), (odd.into(), Some(CacheDir::Path(odd.into()))));
    let message = Settings::from_environment(|name| (name == "LOG_LEVEL").then(|| odd.to_owned())).unwrap_err();
    assert!(message.to_string().contains("LOG_LEVEL"), "{message}");
}

#[test]
fn values_out_of_bounds_are_named() {
    for (flag, message) in [
        ("--max-invocations=0", "--max-invocations 0: expected 1 to 10000"),
        ("--preopen-root=/no/such", "--preopen-root /no/such: expected an existing directory"),
        ("--max-memory-request=5Gi", "--max-memory-request 5120Mi: expected 64Ki to 4096Mi"),
        ("--output-buffer-bytes=99999999", "--output-buffer-bytes 99999999B: expected 0B to 16Mi"),
        ("--max-wasm-stack=1000", "--max-wasm-stack 1k: expected 64Ki to 64Mi"),
        ("--cpu-period=2s", "--cpu-period 2000: expected 1 to 1000"),
    ] {
        assert_eq!(Config::new(flags(&[flag])).unwrap_err().to_string(), message);
    }
}

/// One request leaves half of the box to others; what an operator says is not doubted.
#[test]
fn a_request_may_ask_for_half_of_the_box() {
    let caps = |arguments: &[&str]| {
        let caps = Config::new(flags(arguments)).unwrap().caps;
        (caps.memory.bytes() >> 20, caps.timeout.duration().as_secs())
    };
    let of = |units: &str| caps(&[&format!("--concurrent-resource-request={units}")]).0;
    assert_eq!([of("1024"), of("2000"), of("8192"), of("100000")], [512, 1000, 4096, 4096]);
    assert_eq!(caps(&[]).1, 300);
    let config = Config::new(flags(&["--concurrent-resource-request=300"])).unwrap();
    assert!(config.caps.memory >= config.defaults.memory, "what is asked for by nobody is granted");
    // Explicit ones.
    assert_eq!(caps(&["--concurrent-resource-request=1000", "--memory-request=800"]).0, 800);
    assert_eq!(caps(&["--concurrent-resource-request=1000", "--max-memory-request=1000"]).0, 1000);
    assert_eq!(caps(&["--invocation-timeout=10m"]).1, 600);
    assert_eq!(caps(&["--max-invocation-timeout=15m"]).1, 900);
    assert_eq!(caps(&["--invocation-timeout=10m", "--max-invocation-timeout=1m"]).1, 60);
}

#[test]
fn what_slots_keep_is_a_small_part_of_the_memory() {
    const GIB: u64 = 1 << 30;
    assert_eq!(keep_resident(16 * GIB, 1000), 2 << 20, "the most");
    for (limit, invocations) in [(GIB / 4, 256), (GIB / 4, 1), (GIB, 1000), (64 << 20, 10_000)] {
        assert!(keep_resident(limit, invocations) as u64 * u64::from(invocations) <= limit / 8);
    }
    let small = Config::new(flags(&["--memory-limit=256.5"])).unwrap();
    assert_eq!(small.thresholds.memory_limit, (256 << 20) + (512 << 10));
    assert_eq!(
        (small.capacity.units, small.engine.invocations),
        (256, 256),
        "as many as there are units: their advance is 16 MiB"
    );
    let narrow = Config::new(flags(&["--memory-limit=256", "--concurrent-resource-request=16"])).unwrap();
    assert_eq!(narrow.engine.invocations, 16, "each occupies a unit at least");
}

#[test]
fn the_marks_of_memory_are_in_order() {
    let message = Config::new(flags(&["--memory-high=0.9", "--memory-eviction=0.8"])).unwrap_err().to_string();
    assert_eq!(message, "--memory-high 0.9: expected at most --memory-eviction, 0.8");
    for variable in ["GC_UTILIZATION_TRESHOLD", "GC_UTILIZATION_THRESHOLD"] {
        let config = Config::new(environment(&[(variable, "0.5")]).unwrap()).unwrap();
        assert_eq!(config.thresholds.reclaim.get(), 0.5);
    }
}

#[test]
fn what_may_be_a_secret_is_not_shown() {
    const SECRET: &str = "Bearer-t0psecret";
    for (setting, value) in [
        ("otlp_headers", "t0psecret"),
        ("otlp_headers", "a=%00t0psecret"),
        ("otlp_endpoint", "https://host:x?api-key=t0psecret"),
        ("otlp_traces_endpoint", "https://t0psecret@host/"),
        ("keyvalue_redis", "rediss://user:t0psecret@host/0"),
    ] {
        let (_, names) = variables().find(|(name, _)| *name == setting).unwrap();
        let flag = setting.replace('_', "-");
        let message = environment(&[(names[0], value)]).unwrap_err().to_string();
        assert!(message.contains(names[0]) && message.contains("not ") && !message.contains("t0psecret"), "{message}");
        let message = Settings::from_toml(&format!("{flag} = '{value}'")).unwrap_err();
        assert!(message.contains(&flag) && !message.contains("t0psecret"), "{message}");
        let error = Alone::command().try_get_matches_from([format!("--{flag}={value}")]).unwrap_err();
        let message = without_secrets(error).to_string();
        assert!(message.contains(&flag) && message.contains("not ") && !message.contains("t0psecret"), "{message}");
    }
    for typo in [format!("--otlp-header=a={SECRET}"), format!("--otlp-headers={SECRET}")] {
        let error = Alone::command().try_get_matches_from([&typo]).unwrap_err();
        assert!(!without_secrets(error).to_string().contains(SECRET), "{typo}");
    }
    let message = Settings::from_toml(&format!("port = 1\notlp-headers = 'a={SECRET}\n")).unwrap_err();
    assert!(message.contains("line 2") && !message.contains(SECRET), "{message}");
    let query = flags(&["--otlp-endpoint=http://host:4318/?api-key=t0psecret"]);
    let message = Config::new(query).unwrap_err().to_string();
    assert!(message.contains("expected no query") && !message.contains("t0psecret"), "{message}");
    let config = Config::new(flags(&["--otlp-traces-endpoint=http://host:4318/?api-key=t0psecret"])).unwrap();
    assert!(!format!("{:?}", config.traces).contains("t0psecret"));
}

#[test]
fn opentelemetrys_variables_mean_what_it_says() {
    let endpoint = |settings: Settings| Config::new(settings).unwrap().traces.map(|traces| traces.endpoint.to_string());
    let base = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://base:4318");
    let whole = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://whole:4318/x");
    let env = |variables: &[(&str, &str)]| environment(variables).unwrap();
    assert_eq!(endpoint(env(&[base])).as_deref(), Some("http://base:4318/v1/traces"));
    assert_eq!(endpoint(env(&[base, whole])).as_deref(), Some("http://whole:4318/x"));
    // A flag is stronger than any variable, a variable than any line of the file.
    let flag = || flags(&["--otlp-endpoint=http://flag:4318"]);
    let file = || Settings::from_toml("otlp-traces-endpoint = 'http://file:4318/'").unwrap();
    assert_eq!(endpoint(flag().over(env(&[whole]).over(file()))).as_deref(), Some("http://flag:4318/v1/traces"));
    let both = ["otlp-endpoint = 'http://base:4318'", "otlp-traces-endpoint = 'http://file:4318/'"];
    for both in [both, [both[1], both[0]]] {
        assert_eq!(endpoint(Settings::from_toml(&both.join("\n")).unwrap()).as_deref(), Some("http://file:4318/"));
    }
    assert_eq!(endpoint(env(&[base]).over(file())).as_deref(), Some("http://base:4318/v1/traces"));
    for off in [("OTEL_SDK_DISABLED", "TRUE"), ("OTEL_TRACES_EXPORTER", "none")] {
        assert_eq!(endpoint(env(&[base, whole, off]).over(file())), None);
        assert_eq!(endpoint(Settings::default().over(env(&[off]).over(file()))), None);
        assert_eq!(endpoint(flag().over(env(&[off]))).as_deref(), Some("http://flag:4318/v1/traces"));
    }
    for on in [("OTEL_SDK_DISABLED", "false"), ("OTEL_SDK_DISABLED", "1"), ("OTEL_TRACES_EXPORTER", "otlp")] {
        assert!(endpoint(env(&[base, on])).is_some());
    }
    let odd = [base, ("OTEL_TRACES_SAMPLER", "jaeger_remote"), ("OTEL_TRACES_SAMPLER_ARG", "many")];
    let config = Config::new(Settings::default().over(env(&odd).over(file()))).unwrap();
    let sampler = config.traces.unwrap().sampler;
    assert_eq!((sampler.kind, sampler.ratio.get()), (SamplerKind::ParentBasedAlwaysOn, 1.0));
    assert_eq!(config.ignored.len(), 2);
    for ((name, value), said) in odd[1..].iter().zip(&config.ignored) {
        assert!(said.contains(name) && said.contains(value), "{said}");
    }
    let upper = env(&[base, ("OTEL_TRACES_SAMPLER", "Always_Off")]);
    assert_eq!(Config::new(upper).unwrap().traces.unwrap().sampler.kind, SamplerKind::AlwaysOff);
}

/// What people write as values, right and wrong.
fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => "[0-9]{1,12}([.][0-9]{1,4})?(Ki|Mi|Gi|k|M|G|B|ms|s|m)?",
        2 => "true|false|auto|none|pinned|fresh|json|text|wasmedge|info,guest=off|ws://127.0.0.1|a:1,b:2|::1|/tmp|/tmp,/",
        1 => "[ -~]{1,12}",
        1 => "\\PC{1,8}",
    ]
}

proptest! {
    /// Whichever value a setting is given, all three sources say the same of it, and what is made of it is a configuration or a message.
    #[test]
    fn a_setting_means_the_same_wherever_it_stands(index in any::<prop::sample::Index>(), value in value()) {
        let all: Vec<_> = variables().collect();
        let (setting, names) = *index.get(&all);
        let flag = setting.replace('_', "-");
        let by_flag = Alone::command()
            .try_get_matches_from([format!("--{flag}={value}")])
            .and_then(|matches| Alone::from_arg_matches(&matches))
            .map(|alone| alone.settings);
        let by_variable = environment(&[(names[0], &value)]);
        let mut table = toml::Table::new();
        table.insert(flag.clone(), value.clone().into());
        let by_file = Settings::from_toml(&table.to_string());
        match by_flag {
            Ok(settings) => {
                prop_assert_ne!(&settings, &Settings::default());
                prop_assert_eq!(Some(&settings), by_variable.as_ref().ok());
                prop_assert_eq!(Some(&settings), by_file.as_ref().ok());
                // Over itself and over nothing it is itself.
                prop_assert_eq!(&settings.clone().over(settings.clone()), &settings);
                prop_assert_eq!(&settings.clone().over(Settings::default()), &settings);
                prop_assert_eq!(&Settings::default().over(settings.clone()), &settings);
                if let Err(error) = Config::new(settings) {
                    prop_assert!(error.to_string().contains(": expected "), "{}", error);
                }
            }
            Err(_) => {
                let message = by_variable.map_or_else(|error| error.to_string(), |settings| settings.ignored.concat());
                prop_assert!(message.contains(names[0]), "{}", message);
                let message = by_file.unwrap_err();
                prop_assert!(message.contains(&flag), "{}", message);
            }
        }
    }
}
