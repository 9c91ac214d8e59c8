//! What a node needs so that pods run boxes. A box itself needs none of it: nothing here fails.

use std::{
    env,
    path::PathBuf,
    process::{Command, Stdio},
};

use rustix::fs::{Access, access};

use super::Finding;
use crate::config::Config;

const SHIM: &str = "containerd-shim-wasmbox-v1";

pub fn containerd(_: &Config) -> Finding {
    let Some(path) = program("containerd") else {
        return Finding::ok("not in PATH; only nodes need it");
    };
    let output = Command::new(&path).arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).output();
    // `containerd github.com/containerd/containerd v1.7.24 88bf19b2105c8b17560993bee28a01ddc2f97182`
    let version =
        output.ok().and_then(|output| Some(String::from_utf8(output.stdout).ok()?.split(' ').nth(2)?.to_owned()));
    Finding::ok(format!("{} {}", path.display(), version.unwrap_or_else(|| "does not tell its version".into())))
}

pub fn shim(_: &Config) -> Finding {
    match program(SHIM) {
        Some(path) => Finding::ok(path.display().to_string()),
        None => Finding::ok(format!("{SHIM} is not in PATH; only nodes need it")),
    }
}

/// The first of that name in PATH that may be run.
fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(name))
        .find(|path| path.is_file() && access(path, Access::EXEC_OK).is_ok())
}
