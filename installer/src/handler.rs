//! The handler `wasmbox` as it is to be in containerd's configuration.

use toml::{Table, Value};

use crate::dump::{Dump, HANDLER};

pub const RUNTIME_TYPE: &str = "io.containerd.wasmbox.v1";
const ANNOTATIONS: &str = "wasmbox.dev/*";

/// Cgroup driver and OCI runtime are those of the node's ordinary containers: a pod has both kinds, in one cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handler {
    systemd_cgroup: bool,
    binary_name: Option<String>,
}

impl Handler {
    pub fn new(dump: &Dump) -> Handler {
        let ordinary = dump.runtime("runc").or_else(|| dump.runtime(dump.default_runtime()?));
        let options = ordinary.and_then(|runtime| runtime.get("options")).and_then(Value::as_table);
        let option = |name: &str| options.and_then(|options| options.get(name));
        Handler {
            systemd_cgroup: option("SystemdCgroup").and_then(Value::as_bool).unwrap_or(false),
            binary_name: option("BinaryName").and_then(Value::as_str).filter(|name| !name.is_empty()).map(Into::into),
        }
    }

    /// As a table, for a file whose runtimes belong to `plugin`.
    pub fn text(&self, plugin: &str) -> String {
        let string = |text: &str| Value::String(text.into());
        let table = format!("plugins.\"{plugin}\".containerd.runtimes.{HANDLER}");
        let mut text = format!(
            "[{table}]\nruntime_type = \"{RUNTIME_TYPE}\"\n\
             pod_annotations = [\"{ANNOTATIONS}\"]\ncontainer_annotations = [\"{ANNOTATIONS}\"]\n\
             [{table}.options]\nSystemdCgroup = {}\n",
            self.systemd_cgroup
        );
        if let Some(name) = &self.binary_name {
            text += &format!("BinaryName = {}\n", string(name));
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
            && options.and_then(|options| options.get("SystemdCgroup")) == Some(&Value::Boolean(self.systemd_cgroup))
            && options.and_then(|options| options.get("BinaryName")).and_then(Value::as_str)
                == self.binary_name.as_deref()
    }
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
