//! What containerd makes of its configuration: `containerd config dump`, with defaults and imports. It is asked about drafts, too: what
//! it cannot read, or reads otherwise than meant, never becomes the configuration.

use std::{
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use toml::{Table, Value};

/// The plugin that has the runtimes, in configurations of version 3 and later.
pub const PLUGIN_3: &str = "io.containerd.cri.v1.runtime";
/// In those of version 2.
pub const PLUGIN_2: &str = "io.containerd.grpc.v1.cri";
/// Before there were versions.
pub const PLUGIN_1: &str = "cri";
/// The plugin for programs that belong to containerd, whose directory it makes.
const OPT: &str = "io.containerd.internal.v1.opt";
pub const HANDLER: &str = "wasmbox";

#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    #[error("{}: {source}", containerd.display())]
    Run { containerd: PathBuf, source: io::Error },
    #[error("containerd cannot use {}: {reason}", config.display())]
    Refused { config: PathBuf, reason: String },
    #[error("`containerd config dump` of {}: {source}", config.display())]
    Toml { config: PathBuf, source: Box<toml::de::Error> },
    #[error("`containerd config dump` of {}: there are no CRI runtimes in it; is the plugin disabled?", config.display())]
    NoCri { config: PathBuf },
}

/// The effective configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Dump {
    root: Table,
    plugin: &'static str,
}

impl Dump {
    /// # Errors
    /// [`DumpError`], with what containerd says.
    pub fn read(containerd: &Path, config: &Path) -> Result<Dump, DumpError> {
        let path = config.to_str().unwrap_or_default();
        if config.exists() {
            return Dump::ask(containerd, config, &["--config", path, "config", "dump"]);
        }
        // Without a file, 2.x has imports all the same; 1.x has defaults alone, and no dump of them.
        Dump::ask(containerd, config, &["config", "dump"])
            .or_else(|_| Dump::ask(containerd, config, &["config", "default"]))
    }

    fn ask(containerd: &Path, config: &Path, arguments: &[&str]) -> Result<Dump, DumpError> {
        let output = Command::new(containerd)
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .map_err(|source| DumpError::Run { containerd: containerd.to_owned(), source })?;
        let config = config.to_owned();
        let text = String::from_utf8_lossy(&output.stdout);
        // Some versions report a broken file and end well, with nothing on standard output.
        if !output.status.success() || text.trim().is_empty() {
            let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(DumpError::Refused { config, reason });
        }
        Dump::parse(&text, config)
    }

    fn parse(text: &str, config: PathBuf) -> Result<Dump, DumpError> {
        let root: Table =
            text.parse().map_err(|source| DumpError::Toml { config: config.clone(), source: Box::new(source) })?;
        let plugin = [PLUGIN_3, PLUGIN_2].into_iter().find(|plugin| runtimes(&root, plugin).is_some());
        plugin.map(|plugin| Dump { root, plugin }).ok_or(DumpError::NoCri { config })
    }

    /// Of this form, not of the file: containerd writes its newest.
    pub fn version(&self) -> i64 {
        self.root.get("version").and_then(Value::as_integer).unwrap_or(1)
    }

    /// Directories of which all `.toml` files are imported.
    pub fn import_directories(&self) -> Vec<PathBuf> {
        let imports = self.root.get("imports").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let patterns = imports.iter().filter_map(Value::as_str).map(Path::new);
        patterns
            .filter(|pattern| pattern.is_absolute() && pattern.file_name().is_some_and(|name| name == "*.toml"))
            .filter_map(Path::parent)
            .map(Path::to_owned)
            .collect()
    }

    /// Where its plugin `opt` has programs, which containerd puts in front of its PATH. None, if the plugin is disabled.
    pub fn opt_programs(&self) -> Option<PathBuf> {
        let disabled =
            self.root.get("disabled_plugins").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        if disabled.iter().any(|plugin| plugin.as_str() == Some(OPT)) {
            return None;
        }
        let path = self.root.get("plugins")?.get(OPT)?.get("path")?.as_str()?;
        Some(Path::new(path).join("bin"))
    }

    pub fn runtime(&self, name: &str) -> Option<&Table> {
        runtimes(&self.root, self.plugin)?.get(name)?.as_table()
    }

    pub fn runtime_names(&self) -> impl Iterator<Item = &str> {
        runtimes(&self.root, self.plugin).into_iter().flat_map(|runtimes| runtimes.keys().map(String::as_str))
    }

    pub fn default_runtime(&self) -> Option<&str> {
        self.root.get("plugins")?.get(self.plugin)?.get("containerd")?.get("default_runtime_name")?.as_str()
    }

    /// Without our handler, and without the list of imported files, which has names alone.
    pub fn others(&self) -> Table {
        let mut root = self.root.clone();
        root.remove("imports");
        if let Some(runtimes) = root
            .get_mut("plugins")
            .and_then(|plugins| plugins.get_mut(self.plugin)?.get_mut("containerd")?.get_mut("runtimes"))
            .and_then(Value::as_table_mut)
        {
            runtimes.remove(HANDLER);
        }
        root
    }
}

fn runtimes<'a>(root: &'a Table, plugin: &str) -> Option<&'a Table> {
    root.get("plugins")?.get(plugin)?.get("containerd")?.get("runtimes")?.as_table()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_understood() {
        for (version, plugin) in [(2, PLUGIN_2), (3, PLUGIN_3), (4, PLUGIN_3)] {
            let text = format!(
                "version = {version}\nimports = ['/etc/containerd/conf.d/*.toml', '/etc/containerd/config.toml']\n\
                 [plugins.'{plugin}'.containerd.runtimes.runc]\nruntime_type = 'io.containerd.runc.v2'\n\
                 [plugins.'{plugin}'.containerd.runtimes.wasmbox]\nruntime_type = 'x'\n"
            );
            let dump = Dump::parse(&text, "c".into()).unwrap();
            assert_eq!((dump.version(), dump.plugin), (version, plugin));
            assert_eq!(dump.import_directories(), [PathBuf::from("/etc/containerd/conf.d")]);
            assert!(dump.runtime("wasmbox").is_some());
            let others = Dump { root: dump.others(), plugin };
            assert!(others.runtime("wasmbox").is_none() && others.runtime("runc").is_some());
        }
        assert!(matches!(Dump::parse("version = 2\n", "c".into()), Err(DumpError::NoCri { .. })));
    }
}
