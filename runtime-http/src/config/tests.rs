use clap::CommandFactory;

use super::{settings::Alone, *};

fn environment(variables: &[(&str, &str)]) -> Result<Settings, ConfigError> {
    Settings::from_environment(|name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into()))
}

#[test]
fn each_setting_has_a_variable_and_each_variable_a_setting() {
    let flags: Vec<String> = Alone::command()
        .get_arguments()
        .filter_map(|argument| argument.get_long().map(str::to_owned))
        .filter(|flag| flag != "help")
        .collect();
    let named: Vec<&str> = ENVIRONMENT.iter().map(|(setting, _)| *setting).collect();
    for flag in &flags {
        assert!(named.contains(&flag.as_str()), "--{flag} has no environment variable");
    }
    assert_eq!(flags.len(), named.len());
}

#[test]
fn the_originals_names_and_their_order() {
    let settings =
        environment(&[("PORT", "1"), ("WEBSERVER_PORT", "2"), ("WASM_RUNTIME", "wasmedge"), ("LOG_LEVEL", "")])
            .unwrap();
    assert_eq!(settings.port, Some(2));
    assert_eq!(settings.wasm_runtime, Some(WasmRuntime::Wasmedge));
    assert_eq!(settings.log_level, None);
    assert_eq!(environment(&[("PORT", "1")]).unwrap().port, Some(1));
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
    let file: Settings =
        toml::from_str("port = 1\nhost = 'a'\ncpu-quota = 250\nmemory-request = '64Mi'\nallow-outbound = ['x:1']")
            .unwrap();
    let flags = Settings { port: Some(3), ..Settings::default() };
    let all = flags.over(environment(&[("PORT", "2"), ("DEFAULT_CPU_QUOTA", "0.5")]).unwrap().over(file));
    assert_eq!((all.port, all.host.as_deref()), (Some(3), Some("a")));
    let config = Config::new(all).unwrap();
    assert_eq!((config.defaults.cpu_quota.millicores(), config.defaults.memory.mebibytes()), (500, 64));
    assert_eq!(config.allow_outbound, [OutboundHost { host: "x".into(), port: 1 }]);
}

#[test]
fn capacity_follows_from_memory_and_overbooking() {
    let units = |variables: &[(&str, &str)]| Config::new(environment(variables).unwrap()).unwrap().capacity.units;
    let limit = ("MEMORY_LIMIT", "300Mi");
    assert_eq!(units(&[limit]), 300);
    assert_eq!(units(&[limit, ("OVERBOOKING_RATIO", "2.5")]), 750);
    assert_eq!(units(&[limit, ("OVERBOOKING_RATIO", "2.5"), ("CONCURRENT_RESOURCE_REQUEST", "10")]), 10);
    assert_eq!(units(&[("MEMORY_LIMIT", "64Ki"), ("OVERBOOKING_RATIO", "0.1")]), 1);
    let file: Settings = toml::from_str("memory-limit = '1Gi'\noverbooking-ratio = 1.5").unwrap();
    assert_eq!(Config::new(file).unwrap().capacity.units, 1536);
    for bad in ["0", "-1", "NaN", "1e1", "101"] {
        let message = environment(&[("OVERBOOKING_RATIO", bad)]).unwrap_err().to_string();
        assert!(message.contains("OVERBOOKING_RATIO") && message.contains("from 0.1 to 100"), "{message}");
    }
}

#[test]
fn a_misspelt_key_in_the_file_is_an_error() {
    assert!(toml::from_str::<Settings>("prot = 1").unwrap_err().to_string().contains("prot"));
}

#[test]
fn values_out_of_bounds_are_named() {
    let message = Config::new(Settings { max_invocations: Some(0), ..Settings::default() }).unwrap_err().to_string();
    assert_eq!(message, "--max-invocations 0: expected 1 to 10000");
    let message = Config::new(Settings { preopen_roots: Some(vec!["/no/such".into()]), ..Settings::default() })
        .unwrap_err()
        .to_string();
    assert_eq!(message, "--preopen-root /no/such: expected an existing directory");
}

#[test]
fn what_slots_keep_is_a_small_part_of_the_memory() {
    const GIB: u64 = 1 << 30;
    assert_eq!(keep_resident(16 * GIB, 1000), 2 << 20, "the most");
    for (limit, invocations) in [(GIB / 4, 256), (GIB / 4, 1), (GIB, 1000), (64 << 20, 10_000)] {
        assert!(keep_resident(limit, invocations) as u64 * u64::from(invocations) <= limit / 8);
    }
    let small = Config::new(Settings { memory_limit: Some("256.5".parse().unwrap()), ..Settings::default() }).unwrap();
    assert_eq!(small.thresholds.memory_limit, (256 << 20) + (512 << 10));
    assert_eq!((small.capacity.units, small.engine.invocations), (256, 256), "each occupies a unit at least");
}

#[test]
fn the_marks_of_memory_are_in_order() {
    let share = |text: &str| Some(text.parse().unwrap());
    let settings = Settings { memory_high: share("0.9"), memory_eviction: share("0.8"), ..Settings::default() };
    let message = Config::new(settings).unwrap_err().to_string();
    assert_eq!(message, "--memory-high 0.9: expected at most --memory-eviction, 0.8");
    for variable in ["GC_UTILIZATION_TRESHOLD", "GC_UTILIZATION_THRESHOLD"] {
        let config = Config::new(environment(&[(variable, "0.5")]).unwrap()).unwrap();
        assert_eq!(config.thresholds.reclaim.get(), 0.5);
    }
}
