//! The environment of what the shim starts: made, not inherited.
//!
//! containerd's own environment is the one that its unit gave it, and the shim gets a copy. Some of that is addressed to one process alone:
//! with `NOTIFY_SOCKET`, runc waits until the container reports that it is ready; with `LISTEN_FDS`, it passes descriptors on that are others
//! by now. And some is nobody's business: proxies' passwords, the names of the journal's streams.

use std::{env, ffi::OsStr, process::Command};

/// What is passed on, if it is set:
/// - where programs and their libraries are: containerd's plugin `opt` sets both for what it starts
/// - where temporary files go
/// - how many threads containerd grants a shim, which is meant for the OCI runtime, too
/// - where systemd's buses are, which the OCI runtime asks for scopes; on a rootless node they are the user's
const PASSED_ON: [&str; 7] = [
    "PATH",
    "LD_LIBRARY_PATH",
    "TMPDIR",
    "GOMAXPROCS",
    "DBUS_SYSTEM_BUS_ADDRESS",
    "DBUS_SESSION_BUS_ADDRESS",
    "XDG_RUNTIME_DIR",
];

/// A command with an environment of [`PASSED_ON`] alone.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().envs(PASSED_ON.iter().filter_map(|name| Some((name, env::var_os(name)?))));
    command
}
