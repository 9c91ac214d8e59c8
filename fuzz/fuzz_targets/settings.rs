//! Per-function settings, written by whoever can write the functions directory: they grant nothing that the operator does not.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wasmbox_fuzz::{
    limits::{CpuQuota, InvocationTimeout, LimitCaps, Limits, MemoryRequest},
    store::settings::{FunctionSettings, OperatorGrants},
};

fuzz_target!(|text: &str| {
    let caps = LimitCaps {
        cpu_quota: CpuQuota::from_millicores(2_000).expect("within bounds"),
        memory: MemoryRequest::from_bytes(1 << 30).expect("within bounds"),
        timeout: InvocationTimeout::DEFAULT,
    };
    match FunctionSettings::parse("fuzzed.toml", text, caps, &OperatorGrants::default()) {
        Ok((settings, preopens)) => {
            assert!(preopens.is_empty() && settings.preopens.is_empty() && settings.allowed_outbound_hosts.is_empty());
            let (limits, capped) = (settings.limits.over_defaults(Limits::default()), settings.caps.over_caps(caps));
            assert!(capped.cpu_quota <= caps.cpu_quota && limits.cpu_quota <= caps.cpu_quota);
            assert!(capped.memory <= caps.memory && limits.memory <= caps.memory);
            assert!(capped.timeout <= caps.timeout && limits.timeout <= caps.timeout);
            assert!(settings.args.iter().all(|argument| !argument.contains('\0')));
            assert!(settings.env.keys().all(|name| !name.is_empty() && !name.contains(['=', '\0'])));
        }
        Err(bad) => assert!(bad.to_string().starts_with("fuzzed.toml: ")),
    }
});
