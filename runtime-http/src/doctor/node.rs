//! What a node needs so that pods run boxes: the shim where containerd looks for it, and a runtime handler. A box itself needs none of
//! it: nothing here fails.

use std::{
    env,
    ffi::OsString,
    fs,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rustix::fs::{Access, access};

use super::Finding;
use crate::config::Config;

pub const SHIM: &str = "containerd-shim-wasmbox-v1";
/// The runtime's type: from it containerd derives the shim's name.
const RUNTIME_TYPE: &str = "io.containerd.wasmbox.v1";
/// The plugin that puts a directory of programs in front of containerd's PATH, and where that is by default.
const OPT: &str = "io.containerd.internal.v1.opt";
const OPT_PATH: &str = "/opt/containerd";

/// This node's containerd.
struct Containerd {
    path: PathBuf,
    /// The daemon's number, if it runs.
    running: Option<u32>,
    /// What it was told to read, if not the default.
    config: Option<PathBuf>,
    /// Where it looks for shims.
    search: OsString,
}

impl Containerd {
    fn find() -> Option<Containerd> {
        Containerd::running().or_else(|| {
            let search = env::var_os("PATH")?;
            let path = program("containerd", env::split_paths(&search))?;
            Some(Containerd { path, running: None, config: None, search })
        })
    }

    /// As the kernel tells of the daemon: proc(5).
    fn running() -> Option<Containerd> {
        let entries = fs::read_dir("/proc").ok()?.flatten();
        let mut pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let is_daemon = |pid: &u32| {
            fs::read(format!("/proc/{pid}/comm")).is_ok_and(|name| name == b"containerd\n")
                && fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|words| !words.is_empty())
        };
        let pid = pids.find(is_daemon)?;
        let words = |file: &str| -> Vec<OsString> {
            let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            bytes.split(|&byte| byte == 0).map(|word| OsString::from_vec(word.to_vec())).collect()
        };
        let path = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_else(|_| PathBuf::from(&words("cmdline")[0]));
        // Of another user's daemon this cannot be read; then it is probably as ours.
        let search = words("environ")
            .into_iter()
            .find_map(|variable| variable.to_str()?.strip_prefix("PATH=").map(OsString::from))
            .or_else(|| env::var_os("PATH"))?;
        let mut arguments = words("cmdline").into_iter().skip(1).map(|word| word.to_string_lossy().into_owned());
        let mut config = None;
        while let Some(argument) = arguments.next() {
            match argument.trim_start_matches('-').split_once('=') {
                _ if !argument.starts_with('-') => {}
                Some(("config" | "c", path)) => config = Some(path.into()),
                None if ["--config", "-config", "-c"].contains(&argument.as_str()) => {
                    config = arguments.next().map(PathBuf::from);
                }
                Some(_) | None => {}
            }
        }
        Some(Containerd { path, running: Some(pid), config, search })
    }

    /// Its configuration as it understands it, defaults and imports included.
    fn configuration(&self) -> Result<toml::Table, String> {
        let mut command = Command::new(&self.path);
        if let Some(config) = &self.config {
            command.arg("--config").arg(config);
        }
        toml::from_str(&said(command.args(["config", "dump"]))?).map_err(|error| error.to_string())
    }

    /// Where it looks for a shim by its name, in this order.
    fn search(&self) -> Vec<PathBuf> {
        let configuration = self.configuration().unwrap_or_default();
        let path = |configuration: &toml::Table| {
            Some(configuration.get("plugins")?.get(OPT)?.get("path")?.as_str()?.to_owned())
        };
        let opt = path(&configuration).unwrap_or_else(|| OPT_PATH.into());
        let mut directories = vec![Path::new(&opt).join("bin")];
        directories.extend(env::split_paths(&self.search));
        directories.extend(self.path.parent().map(Path::to_owned));
        directories
    }

    fn shim(&self) -> Shim {
        if let Some(path) = program(SHIM, self.search()) {
            return Shim::Named(path);
        }
        let configuration = self.configuration().unwrap_or_default();
        let path = ours(&configuration).and_then(|(_, runtime)| runtime.get("runtime_path")?.as_str());
        let path = path.filter(|path| !path.is_empty()).map(PathBuf::from);
        path.filter(|path| is_program(path)).map_or(Shim::None, Shim::ByPath)
    }
}

/// How containerd comes to the shim.
enum Shim {
    /// By its name.
    Named(PathBuf),
    /// Only by what the handler says.
    ByPath(PathBuf),
    None,
}

pub fn containerd(_: &Config) -> Finding {
    let Some(containerd) = Containerd::find() else {
        return Finding::ok("not in PATH; only nodes need it");
    };
    // `containerd github.com/containerd/containerd v1.7.24 88bf19b2105c8b17560993bee28a01ddc2f97182`
    let version = said(Command::new(&containerd.path).arg("--version")).ok();
    let version = version.as_deref().and_then(|line| line.split(' ').nth(2)).unwrap_or("does not tell its version");
    let running = containerd.running.map_or("does not run".into(), |pid| format!("runs, pid {pid}"));
    Finding::ok(format!("{} {version}, {running}", containerd.path.display()))
}

/// Whether containerd finds it, and it fits to this binary.
pub fn shim(_: &Config) -> Finding {
    let Some(containerd) = Containerd::find() else {
        return Finding::ok("not needed without containerd");
    };
    let path = match containerd.shim() {
        Shim::Named(path) => path,
        Shim::ByPath(path) => {
            return Finding::warn(
                format!(
                    "{}, by the handler's runtime_path alone: containerd 2.3 loses the pods when it starts anew",
                    path.display()
                ),
                format!("link it into {OPT_PATH}/bin, then remove runtime_path (wasmbox-installer install does both)"),
            );
        }
        Shim::None => {
            let search =
                containerd.search().iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(":");
            return Finding::ok(format!("{SHIM} is not where containerd looks ({search}); only nodes need it"));
        }
    };
    let version = said(Command::new(&path).arg("-v")).unwrap_or_else(|error| error);
    let version = version.lines().find_map(|line| line.trim().strip_prefix("Version: v")).unwrap_or("unknown");
    let own = env!("CARGO_PKG_VERSION");
    if version != own {
        return Finding::warn(
            format!("{} has version {version}, this wasmbox {own}", path.display()),
            "install both of one version (make install)",
        );
    }
    let beside = path.canonicalize().unwrap_or_else(|_| path.clone()).with_file_name("wasmbox");
    if !is_program(&beside) {
        return Finding::warn(
            format!("{} is there, {} is not", path.display(), beside.display()),
            "install both binaries (make install), or name the other in the runtime option WasmboxBinary",
        );
    }
    Finding::ok(format!("{} {version}", path.display()))
}

/// Whether Kubernetes can choose it.
pub fn handler(_: &Config) -> Finding {
    let Some(containerd) = Containerd::find().filter(|containerd| !matches!(containerd.shim(), Shim::None)) else {
        return Finding::ok("not needed without the shim");
    };
    let configuration = match containerd.configuration() {
        Ok(configuration) => configuration,
        Err(error) => {
            return Finding::warn(
                format!("containerd's configuration cannot be had: {error}"),
                "see what `containerd config dump` says",
            );
        }
    };
    let Some((name, runtime)) = ours(&configuration) else {
        return Finding::warn(
            format!("no runtime handler has the type {RUNTIME_TYPE}: `ctr` runs boxes, Kubernetes does not"),
            "add one to containerd's configuration, as docs/shim.md shows, and restart containerd",
        );
    };
    let is_2 = configuration.get("version").and_then(toml::Value::as_integer).is_some_and(|version| version >= 3);
    if is_2 && runtime.get("options").is_some_and(|options| options.get("SystemdCgroup").is_some()) {
        return Finding::warn(
            format!(
                "{name} has the option SystemdCgroup: containerd 2 refuses pods with a user namespace (hostUsers: false)"
            ),
            "remove it with its table, and restart containerd (wasmbox-installer install does both): the cgroup's path tells the driver",
        );
    }
    Finding::ok(format!("{name}, of type {RUNTIME_TYPE}"))
}

/// Where the OCI runtime keeps the state of our containers, by the handler's options.
pub fn state_directory() -> PathBuf {
    let configuration = Containerd::find().and_then(|containerd| containerd.configuration().ok()).unwrap_or_default();
    let root = ours(&configuration).and_then(|(_, runtime)| runtime.get("options")?.get("Root")?.as_str());
    root.filter(|root| !root.is_empty()).unwrap_or("/run/containerd/wasmbox").into()
}

/// The handler of our type.
fn ours(configuration: &toml::Table) -> Option<(&String, &toml::Value)> {
    handlers(configuration)
        .find(|(_, runtime)| runtime.get("runtime_type").and_then(toml::Value::as_str) == Some(RUNTIME_TYPE))
}

/// All runtime handlers: `plugins.*.containerd.runtimes`, of whichever version the configuration is.
fn handlers(configuration: &toml::Table) -> impl Iterator<Item = (&String, &toml::Value)> {
    let plugins =
        configuration.get("plugins").and_then(toml::Value::as_table).into_iter().flat_map(toml::Table::values);
    plugins.filter_map(|plugin| plugin.get("containerd")?.get("runtimes")?.as_table()).flatten()
}

/// What a program says on its standard output; or why it says nothing.
fn said(command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}

/// The first of that name that may be run.
fn program(name: &str, directories: impl IntoIterator<Item = PathBuf>) -> Option<PathBuf> {
    directories
        .into_iter()
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(name))
        .find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    path.is_file() && access(path, Access::EXEC_OK).is_ok()
}
