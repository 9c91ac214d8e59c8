//! A WasmBox's spec, rewritten: its process becomes the node's `wasmbox`, and a place is made for its cgroups. User, capabilities, seccomp,
//! namespaces, limits, mounts and all else stay as they were asked for.

use std::path::{Path, PathBuf};

use oci_spec::{
    OciSpecError,
    runtime::{Hook, HookBuilder, Mount, MountBuilder},
};

use crate::{
    kind::Entry,
    spec::{Spec, SpecError},
};

/// Where everything of ours is in the container: a tmpfs, so that nothing is written to the image's filesystem.
pub const DIRECTORY: &str = "/run/wasmbox";
/// The node's binary.
pub const BINARY: &str = "/run/wasmbox/wasmbox";
/// The container's subtree of cgroups.
pub const CGROUP: &str = "/run/wasmbox/cgroup";
/// Compiled code of the node, read-only.
pub const CACHE: &str = "/run/wasmbox/cache";
/// Where the box has more compiled.
pub const COMPILE_SOCKET: &str = "/run/wasmbox/compile.sock";
/// Where a container sees its own cgroups, by the specification's example and by Kubernetes.
const CGROUPS: &str = "/sys/fs/cgroup";
/// Seconds for the hook: it makes a directory and a mount.
const HOOK_TIMEOUT: i64 = 10;

/// What the node offers a box.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// The host's `wasmbox`.
    pub binary: PathBuf,
    /// The host's compiled code, if boxes share it.
    pub cache: Option<NodeCache>,
    /// What delegates a subtree of cgroups: an executable of the host and its arguments, without the name.
    pub delegation: (PathBuf, Vec<String>),
}

/// Compiled code of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeCache {
    /// The host's directory.
    pub directory: PathBuf,
    /// The socket of this container's own, behind which the host compiles.
    pub socket: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum EditError {
    #[error(transparent)]
    Spec(#[from] SpecError),
    #[error("mount or hook: {0}")]
    Part(#[from] OciSpecError),
}

impl Edit {
    /// Rewrites `spec` for `entry`.
    ///
    /// # Errors
    /// [`EditError`], if the spec is not of the specification's form.
    pub fn apply(&self, spec: &mut Spec, entry: &Entry) -> Result<(), EditError> {
        let args = args(entry, &spec.env()?);
        spec.set_args(args)?;
        // `ctr` leaves it out; the box reads its own limits and usage there.
        if !spec.has_mount(CGROUPS) {
            spec.add_mount(&mount(Path::new("cgroup"), "cgroup", CGROUPS, &["ro", "nosuid", "noexec", "nodev"])?)?;
        }
        spec.add_mount(&tmpfs(DIRECTORY)?)?;
        // A place for the hook, which makes none: it is somebody else where users have other numbers.
        spec.add_mount(&tmpfs(CGROUP)?)?;
        spec.add_mount(&bind(&self.binary, BINARY, &["bind", "ro", "nosuid", "nodev"])?)?;
        if let Some(cache) = &self.cache {
            // Code is mapped to be run: no `noexec`. And `ro` would not hold for mounts below it: no `rbind`.
            spec.add_mount(&bind(&cache.directory, CACHE, &["bind", "ro", "nosuid", "nodev"])?)?;
            spec.add_mount(&bind(&cache.socket, COMPILE_SOCKET, &["bind", "ro", "nosuid", "nodev", "noexec"])?)?;
            spec.default_env("NODE_CACHE_DIR", CACHE)?;
            spec.default_env("COMPILE_SOCKET", COMPILE_SOCKET)?;
        }
        spec.add_create_runtime_hook(&self.hook()?)?;
        Ok(())
    }

    fn hook(&self) -> Result<Hook, OciSpecError> {
        let (path, arguments) = &self.delegation;
        let mut args = vec![path.to_string_lossy().into_owned()];
        args.extend(arguments.iter().cloned());
        HookBuilder::default().path(path).args(args).timeout(HOOK_TIMEOUT).build()
    }
}

fn args(entry: &Entry, env: &[String]) -> Vec<String> {
    let mut args = vec![BINARY.to_owned()];
    match entry {
        Entry::AsGiven { arguments } => args.extend(arguments.iter().cloned()),
        Entry::Serve => args.push("serve".into()),
        Entry::Run { module, arguments } => {
            args.push("run".into());
            // Images with a module as entrypoint expect the container's environment and root, as with other Wasm shims. By its names: command
            // lines are for everybody to read.
            let names = env.iter().filter_map(|variable| variable.split_once('=')).map(|(name, _)| name);
            args.extend(names.filter(|name| !name.is_empty()).map(|name| format!("--env={name}")));
            args.extend(["--dir=/:/:rw".into(), "--".into(), module.clone()]);
            args.extend(arguments.iter().cloned());
        }
    }
    args
}

fn tmpfs(destination: &str) -> Result<Mount, OciSpecError> {
    let options = ["nosuid", "nodev", "mode=755", "size=64k"];
    mount(Path::new("tmpfs"), "tmpfs", destination, &options)
}

fn bind(source: &Path, destination: &str, options: &[&str]) -> Result<Mount, OciSpecError> {
    mount(source, "bind", destination, options)
}

fn mount(source: &Path, kind: &str, destination: &str, options: &[&str]) -> Result<Mount, OciSpecError> {
    let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
    MountBuilder::default().source(source).typ(kind).destination(destination).options(options).build()
}
