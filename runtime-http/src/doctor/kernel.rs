//! System calls, and what the kernel lets a process have.

use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags, openat2},
    process::{Resource, getrlimit},
};
use wasmtime::PoolingAllocationConfig;

use super::Finding;
use crate::{config::Config, engine::EngineError};

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

/// Makes the engine, as `serve` does.
pub fn mappings(config: &Config) -> Finding {
    match config.engine.engine() {
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
