//! The handler `wasmbox` as it is to be in containerd's configuration.

use toml::{Table, Value};

use crate::dump::{Dump, HANDLER};

pub const RUNTIME_TYPE: &str = "io.containerd.wasmbox.v1";
const ANNOTATIONS: &str = "wasmbox.dev/*";

/// The OCI runtime is that of the node's ordinary containers. There are no other options, and with runc none at all: of a handler with a
/// table of options containerd 2 refuses pods with a user namespace. The cgroup driver needs none: the shim takes it from the cgroup's path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handler {
    binary_name: Option<String>,
}

impl Handler {
    pub fn new(dump: &Dump) -> Handler {
        let ordinary = dump.runtime("runc").or_else(|| dump.runtime(dump.default_runtime()?));
        let options = ordinary.and_then(|runtime| runtime.get("options")).and_then(Value::as_table);
        Handler { binary_name: binary_name(options).map(Into::into) }
    }

    /// As a table, for a file whose runtimes belong to `plugin`.
    pub fn text(&self, plugin: &str) -> String {
        let string = |text: &str| Value::String(text.into());
        let table = format!("plugins.\"{plugin}\".containerd.runtimes.{HANDLER}");
        let mut text = format!(
            "[{table}]\nruntime_type = \"{RUNTIME_TYPE}\"\n\
             pod_annotations = [\"{ANNOTATIONS}\"]\ncontainer_annotations = [\"{ANNOTATIONS}\"]\n"
        );
        if let Some(name) = &self.binary_name {
            text += &format!("[{table}.options]\nBinaryName = {}\n", string(name));
        }
        text
    }

    /// Whether it is in the configuration, as it is to be.
    pub fn is_in(&self, dump: &Dump) -> bool {
        let Some(runtime) = dump.runtime(HANDLER) else { return false };
        let options = runtime.get("options").and_then(Value::as_table);
        let annotations = Value::Array(vec![Value::String(ANNOTATIONS.into())]);
        runtime.get("runtime_type").and_then(Value::as_str) == Some(RUNTIME_TYPE)
            // By its name, for the reason that `link` tells.
            && runtime.get("runtime_path").and_then(Value::as_str).is_none_or(str::is_empty)
            && runtime.get("pod_annotations") == Some(&annotations)
            && runtime.get("container_annotations") == Some(&annotations)
            && binary_name(options) == self.binary_name.as_deref()
    }
}

/// Whether the handler in this text is of an earlier version, which named the cgroup driver.
pub fn is_outdated(text: &str) -> bool {
    text.contains(&format!(".runtimes.{HANDLER}.options]\nSystemdCgroup = "))
}

/// Empty is containerd's way to say that it is not set.
fn binary_name(options: Option<&Table>) -> Option<&str> {
    options?.get("BinaryName")?.as_str().filter(|name| !name.is_empty())
}

/// A runtime as containerd has it by itself, in a form to write down.
pub fn runtime_text(plugin: &str, name: &str, runtime: &Table) -> String {
    let table = |value: Table, name: &str| (name.to_owned(), Value::Table(value));
    let runtimes = Table::from_iter([table(runtime.clone(), name)]);
    let containerd = Table::from_iter([table(runtimes, "runtimes")]);
    let cri = Table::from_iter([table(containerd, "containerd")]);
    let plugins = Table::from_iter([table(cri, plugin)]);
    Table::from_iter([table(plugins, "plugins")]).to_string()
}
