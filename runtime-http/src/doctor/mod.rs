//! `wasmbox doctor`: what of the machine, the container and the configuration works for a box, and the remedy for what does not.
//!
//! Each check looks at one thing, leaves nothing behind, and gives a [`Finding`]. [`CHECKS`] is all of them.
//!
//! - [`kernel`]: system calls, and the limits of a process
//! - [`container`]: cgroups and their limits
//! - [`directories`]: functions, compiled code
//! - [`ports`]: whether they are free
//! - [`node`]: what a node needs to run boxes in pods; [`orphans`]: what of it runs and is nobody's
//! - [`first`]: the box beside which it runs, in a container

pub mod container;
pub mod directories;
pub mod first;
pub mod kernel;
pub mod node;
pub mod orphans;
pub mod ports;

use std::{
    fmt,
    io::{self, Write},
    process::ExitCode,
};

use crate::config::Config;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckStatus {
    Ok,
    /// The box runs, but with less.
    Warn,
    /// The box does not start, or not as it is configured.
    Fail,
}

/// What a check found, in one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub status: CheckStatus,
    pub found: String,
    /// What to do about it; there is one unless all is well.
    pub remedy: Option<String>,
}

/// One thing that is looked at.
pub struct Check {
    pub name: &'static str,
    pub examine: fn(&Config) -> Finding,
}

/// In the order in which they are shown. What can be tried is tried, not looked up.
pub const CHECKS: &[Check] = &[
    Check { name: "kernel", examine: kernel::version },
    Check { name: "page scan", examine: kernel::pagemap_scan },
    Check { name: "mappings", examine: kernel::mappings },
    Check { name: "addresses", examine: kernel::address_space },
    Check { name: "open files", examine: kernel::open_files },
    Check { name: "confine", examine: kernel::confinement },
    Check { name: "cgroups", examine: container::cgroups },
    Check { name: "quotas", examine: container::quotas },
    Check { name: "memory", examine: container::memory },
    Check { name: "cpu", examine: container::cpu },
    Check { name: "threads", examine: container::threads },
    Check { name: "pressure", examine: container::pressure },
    Check { name: "functions", examine: directories::functions },
    Check { name: "cache", examine: directories::cache },
    Check { name: "node cache", examine: directories::node_cache },
    Check { name: "port", examine: ports::functions },
    Check { name: "admin port", examine: ports::admin },
    Check { name: "containerd", examine: node::containerd },
    Check { name: "shim", examine: node::shim },
    Check { name: "handler", examine: node::handler },
    Check { name: "orphans", examine: orphans::orphans },
];

impl Finding {
    pub fn ok(found: impl Into<String>) -> Finding {
        Finding { status: CheckStatus::Ok, found: found.into(), remedy: None }
    }

    pub fn warn(found: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding { status: CheckStatus::Warn, found: found.into(), remedy: Some(remedy.into()) }
    }

    pub fn fail(found: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding { status: CheckStatus::Fail, found: found.into(), remedy: Some(remedy.into()) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.found)?;
        match &self.remedy {
            Some(remedy) => write!(f, " -> {remedy}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for CheckStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            CheckStatus::Ok => "ok",
            CheckStatus::Warn => "warn",
            CheckStatus::Fail => "FAIL",
        })
    }
}

/// Prints a line for each check; exit code 1 if one failed.
///
/// # Errors
/// If the output cannot be written.
pub fn doctor(config: &Config) -> io::Result<ExitCode> {
    let mut output = io::stdout().lock();
    let (mut warnings, mut failures) = (0, 0);
    for check in CHECKS {
        let finding = (check.examine)(config);
        match finding.status {
            CheckStatus::Ok => {}
            CheckStatus::Warn => warnings += 1,
            CheckStatus::Fail => failures += 1,
        }
        writeln!(output, "{:<4}  {:<10}  {finding}", finding.status, check.name)?;
    }
    writeln!(output, "{} checks, {warnings} with a warning, {failures} failed", CHECKS.len())?;
    Ok(if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
