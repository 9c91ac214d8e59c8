//! What the box gives up before it reads the first thing that others wrote: a guest that escapes its sandbox finds itself in a process that
//! may do what serving takes, and no more.
//!
//! | given up | by |
//! |---|---|
//! | files, TCP ports, signals to others, abstract sockets | Landlock ([`access`]): what the settings name is left, and what the process itself is made of |
//! | system calls | seccomp ([`system_calls`]): those of a server with threads are left |
//! | root's rights | capabilities ([`capabilities`]), `no_new_privs` |
//!
//! All of it holds for threads and children that are started afterwards, so it comes before the first of them. There is no way back. Each is
//! as good as the kernel has it; [`GivenUp`] says how good that is. What a container's own profile and user keep from the box stays kept from it.

pub mod access;
pub mod capabilities;
pub mod system_calls;

use std::fmt;

use landlock::{ABI, LandlockStatus, PathFd, RestrictionStatus, RulesetStatus};
use rustix::io::Errno;

use crate::config::{Config, Confine};

/// What could not be given up.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    #[error("no_new_privs: {0}")]
    NoNewPrivs(Errno),
    #[error("capabilities: {0}")]
    Capabilities(Errno),
    #[error("files and ports: {0}")]
    Ruleset(#[from] landlock::RulesetError),
    #[error("files and ports: this kernel is built without Landlock")]
    NoLandlock,
    #[error("files and ports: Landlock is not enabled in this kernel (boot parameter lsm=)")]
    LandlockNotEnabled,
    #[error("system calls: {0}")]
    SystemCalls(#[from] seccompiler::Error),
}

/// Why a box that must give up all of it does not start.
#[derive(Debug, thiserror::Error)]
#[error("--confine=true (CONFINE): not given up: {0}; with --confine=auto it starts, and gives up what it can")]
pub struct Unconfined(#[from] PrivilegeError);

/// What was given up; it holds until the end of the process.
#[derive(Debug, Default)]
pub struct GivenUp {
    no_new_privs: bool,
    /// Which of its interfaces the kernel has.
    landlock: Option<ABI>,
    system_calls: bool,
    capabilities: bool,
    /// What was not, for want of what.
    pub missing: Vec<PrivilegeError>,
    /// Directories of `/proc` with a rule: they are made anew when nobody holds them, and have no rule then.
    _held: Vec<PathFd>,
}

/// Gives up, for the calling thread and those that it starts, all that a box with this configuration does not need.
///
/// # Errors
/// The first that could not be given up, if all must be ([`Confine::True`]).
pub fn give_up(config: &Config) -> Result<GivenUp, PrivilegeError> {
    let mut given_up = GivenUp::default();
    if config.confine == Confine::False {
        return Ok(given_up);
    }
    let mut tolerate = |error: PrivilegeError| {
        if config.confine == Confine::True {
            return Err(error);
        }
        given_up.missing.push(error);
        Ok(())
    };
    // The others need it, unless the process has rights that are given up, too.
    match rustix::thread::set_no_new_privs(true) {
        Ok(()) => given_up.no_new_privs = true,
        Err(errno) => tolerate(PrivilegeError::NoNewPrivs(errno))?,
    }
    match access::restrict(config) {
        Ok((status, held)) => match enforced(&status) {
            Ok(abi) => (given_up.landlock, given_up._held) = (Some(abi), held),
            Err(error) => tolerate(error)?,
        },
        Err(error) => tolerate(error.into())?,
    }
    match capabilities::drop_others(config) {
        Ok(()) => given_up.capabilities = true,
        Err(errno) => tolerate(PrivilegeError::Capabilities(errno))?,
    }
    match system_calls::restrict() {
        Ok(()) => given_up.system_calls = true,
        Err(error) => tolerate(error.into())?,
    }
    Ok(given_up)
}

fn enforced(status: &RestrictionStatus) -> Result<ABI, PrivilegeError> {
    match (&status.ruleset, status.landlock) {
        (RulesetStatus::NotEnforced, LandlockStatus::NotEnabled) => Err(PrivilegeError::LandlockNotEnabled),
        (_, LandlockStatus::Available { effective_abi, .. }) => Ok(effective_abi),
        _ => Err(PrivilegeError::NoLandlock),
    }
}

/// `none`, or for instance `no_new_privs, Landlock 7, seccomp, capabilities`.
impl fmt::Display for GivenUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let landlock = self.landlock.map(|abi| format!("Landlock {}", abi as i32));
        let parts: Vec<&str> = [
            self.no_new_privs.then_some("no_new_privs"),
            landlock.as_deref(),
            self.system_calls.then_some("seccomp"),
            self.capabilities.then_some("capabilities"),
        ]
        .into_iter()
        .flatten()
        .collect();
        if parts.is_empty() { f.write_str("none") } else { f.write_str(&parts.join(", ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_prevents_the_start_says_how_to_go_on() {
        let text = Unconfined::from(PrivilegeError::NoLandlock).to_string();
        for part in ["--confine=true (CONFINE)", "without Landlock", "--confine=auto"] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }
}
