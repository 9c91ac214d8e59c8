//! Root's rights: a box that runs as root needs few of them, one that does not has none.

use rustix::{
    io::Errno,
    thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities},
};

use crate::config::Config;

/// The first port that needs no right.
const UNPRIVILEGED_PORT: u16 = 1024;

/// Leaves those rights that the process has and serving takes, and makes none inheritable.
///
/// # Errors
/// The kernel's.
pub fn drop_others(config: &Config) -> Result<(), Errno> {
    let had = capabilities(None)?;
    let left = needed(config);
    set_capabilities(
        None,
        CapabilitySets {
            effective: had.effective & left,
            permitted: had.permitted & left,
            inheritable: CapabilitySet::empty(),
        },
    )
}

fn needed(config: &Config) -> CapabilitySet {
    // Functions, and what guests may write, may belong to any user; a lease shows whether somebody writes a file (fcntl(2), F_SETLEASE).
    let files =
        CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH | CapabilitySet::FOWNER | CapabilitySet::LEASE;
    let low = [config.port, config.admin_port].iter().any(|port| *port != 0 && *port < UNPRIVILEGED_PORT);
    if low { files | CapabilitySet::NET_BIND_SERVICE } else { files }
}
