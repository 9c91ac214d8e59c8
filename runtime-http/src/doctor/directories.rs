//! The directories of functions and of compiled code.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rustix::fs::{Access, access};

use super::Finding;
use crate::{
    artifacts::cache_directory::{self, CacheError},
    boot,
    config::places::default_cache_dir,
    config::{CacheDir, Config},
};

pub fn functions(config: &Config) -> Finding {
    let path = absolute(&config.functions_dir);
    let path = path.display();
    let remedy = "create it, or name another with --functions-dir (FUNCTIONS_DIR)";
    match boot::functions_dir(config) {
        Ok(directory) => match directory.list() {
            Ok(names) if names.is_empty() => Finding::warn(format!("{path} has no function"), "put .wasm files there"),
            Ok(names) => Finding::ok(format!("{path}, {} files", names.len())),
            Err(error) => Finding::fail(format!("{path}: {error}"), "let the box's user read it"),
        },
        Err(boot::BootError::FunctionsDir { source, .. }) => Finding::fail(format!("{path}: {source}"), remedy),
        Err(boot::BootError::NotADirectory { .. }) => Finding::fail(format!("{path} is not a directory"), remedy),
        Err(error) => Finding::fail(error.to_string(), remedy),
    }
}

/// One that is named must work; without the default one, modules are compiled at each start.
pub fn cache(config: &Config) -> Finding {
    let remedy = "let it belong to the box's user, mode 0700; or name another with --cache-dir (CACHE_DIR), or none";
    match &config.cache_dir {
        Some(CacheDir::None) => Finding::ok("none, as configured: modules are compiled at each start"),
        Some(CacheDir::Path(path)) => {
            let path = absolute(path);
            match usable(&path) {
                Ok(state) => Finding::ok(format!("{}, {state}", path.display())),
                Err(reason) => Finding::fail(format!("{} {reason}", path.display()), remedy),
            }
        }
        None if config.node.is_some() => Finding::ok("none of its own: there is the node's"),
        None => match default_cache_dir() {
            Some(path) => match usable(&path) {
                Ok(state) => Finding::ok(format!("{}, {state}", path.display())),
                Err(reason) => {
                    Finding::warn(format!("{} {reason}: modules are compiled at each start", path.display()), remedy)
                }
            },
            None => Finding::warn(
                "neither XDG_CACHE_HOME nor HOME is set: modules are compiled at each start",
                "name a directory with --cache-dir (CACHE_DIR)",
            ),
        },
    }
}

/// In a pod the shim names it.
pub fn node_cache(config: &Config) -> Finding {
    let Some(node) = &config.node else { return Finding::ok("none, as configured: this box compiles itself") };
    let path = absolute(&node.cache_dir);
    match cache_directory::check_mapped_directory(&path) {
        Ok(()) => Finding::ok(format!("{}, read-only", path.display())),
        Err(error) => Finding::fail(error.to_string(), "let the shim mount it (docs/shim.md), or name none"),
    }
}

/// What the box would find; nothing is made.
fn usable(path: &Path) -> Result<&'static str, String> {
    match cache_directory::check_directory(path) {
        Ok(()) => writable(path).map(|()| "private and writable"),
        Err(CacheError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            let above = path.ancestors().find(|above| fs::metadata(above).is_ok()).unwrap_or(Path::new("/"));
            writable(above).map(|()| "will be made").map_err(|_| format!("cannot be made in {}", above.display()))
        }
        Err(CacheError::Io { source, .. }) => Err(format!("cannot be used: {source}")),
        Err(CacheError::Unsafe { reason, .. } | CacheError::UnsafeNode { reason, .. }) => Err(reason),
    }
}

/// As the process sees it: a relative one depends on where the box is started.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn writable(path: &Path) -> Result<(), String> {
    access(path, Access::WRITE_OK | Access::EXEC_OK).map_err(|error| format!("cannot be written: {error}"))
}
