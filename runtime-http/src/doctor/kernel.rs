//! System calls, and what the kernel lets a process have.

use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags, openat2},
    process::{Resource, getrlimit},
};
use wasmtime::PoolingAllocationConfig;

use super::Finding;
use crate::{
    config::{Config, Confine},
    engine::tier::Tiers,
    engine::{EngineError, Engines},
    privileges,
};

/// Descriptors beside those of connections: the log, event loops, modules that are read, guests' directories.
const OTHER_FILES: u64 = 256;

pub fn version(_: &Config) -> Finding {
    let kernel = rustix::system::uname();
    let release = format!("{} {}", kernel.sysname().to_string_lossy(), kernel.release().to_string_lossy());
    // Without it no function is opened.
    match openat2(CWD, ".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::BENEATH) {
        Ok(_) => Finding::ok(release),
        Err(error) => Finding::fail(
            format!("{release}, openat2: {error}"),
            "use Linux 5.6 or newer, and a seccomp profile that allows openat2",
        ),
    }
}

pub fn pagemap_scan(_: &Config) -> Finding {
    if PoolingAllocationConfig::is_pagemap_scan_available() {
        Finding::ok("PAGEMAP_SCAN: only dirtied pages of an instance are reset")
    } else {
        Finding::warn(
            "no PAGEMAP_SCAN: instances with much memory are reset more slowly",
            "use Linux 6.7 or newer, and a seccomp profile that allows ioctl on /proc/self/pagemap",
        )
    }
}

/// Makes the engines, as `serve` does.
pub fn mappings(config: &Config) -> Finding {
    match Engines::new(config.engine, config.tiers == Tiers::Auto) {
        Ok(_) => Finding::ok(format!("room for {} invocations at once", config.engine.invocations)),
        Err(EngineError::TooManyMappings { invocations, needed, available, fits }) => Finding::fail(
            format!("vm.max_map_count is {available}, {invocations} invocations need {needed}"),
            format!("sysctl -w vm.max_map_count={needed}, or --max-invocations {fits}"),
        ),
        Err(EngineError::Engine { invocations, source }) => Finding::fail(
            // In one line.
            format!("no room for {invocations} invocations: {source:#}").replace('\n', " "),
            "lower --max-invocations, and set no limit on addresses",
        ),
    }
}

pub fn address_space(_: &Config) -> Finding {
    match getrlimit(Resource::As).current {
        None => Finding::ok("not limited"),
        Some(bytes) => Finding::fail(
            format!("limited to {bytes} bytes; the pools reserve thousands of GiB, which cost nothing"),
            "ulimit -v unlimited (systemd: LimitAS=infinity)",
        ),
    }
}

pub fn open_files(config: &Config) -> Finding {
    let needed = config.budgets.connections as u64 + OTHER_FILES;
    match getrlimit(Resource::Nofile).maximum {
        None => Finding::ok("not limited"),
        Some(most) if most >= needed => Finding::ok(format!("at most {most}")),
        Some(most) => Finding::warn(
            format!("at most {most}, {} connections need {needed}", config.budgets.connections),
            format!("ulimit -Hn {needed} (systemd: LimitNOFILE={needed}), or lower --max-connections"),
        ),
    }
}

/// Gives up what `serve` does, on a thread that ends with it.
pub fn confinement(config: &Config) -> Finding {
    if config.confine == Confine::False {
        return Finding::ok("nothing is given up, as configured");
    }
    let tried = std::thread::scope(|scope| scope.spawn(|| privileges::give_up(config)).join());
    match tried {
        Ok(Ok(given_up)) if given_up.missing.is_empty() => Finding::ok(format!("given up at the start: {given_up}")),
        Ok(Ok(given_up)) => {
            let missing: Vec<String> = given_up.missing.iter().map(ToString::to_string).collect();
            Finding::warn(
                format!("given up at the start: {given_up}; not given up: {}", missing.join("; ")),
                "use Linux 6.12 or newer with Landlock among its security modules (boot parameter lsm=), and a container's seccomp \
                 profile that allows landlock_* and seccomp",
            )
        }
        Ok(Err(error)) => Finding::fail(error.to_string(), "--confine=auto (CONFINE) does without"),
        Err(_) => Finding::fail("giving up privileges panicked", "--confine=false (CONFINE)"),
    }
}
