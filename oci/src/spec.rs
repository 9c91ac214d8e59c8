//! A spec (OCI runtime specification, `config.json`) kept whole: what this crate's types do not know is written back as it was read, since
//! the container manager may be newer than we are.

use oci_spec::runtime::{Hook, Mount};
use serde_json::{Map, Value};

/// The annotations that containerd's CRI plugin sets.
pub mod cri {
    /// `sandbox` or `container`.
    pub const CONTAINER_TYPE: &str = "io.kubernetes.cri.container-type";
    /// The id of the sandbox a container belongs to.
    pub const SANDBOX_ID: &str = "io.kubernetes.cri.sandbox-id";
    /// The container's name in its pod.
    pub const CONTAINER_NAME: &str = "io.kubernetes.cri.container-name";
}

/// A parsed spec.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec(Map<String, Value>);

#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    #[error("config.json is not JSON: {0}")]
    Json(#[source] serde_json::Error),
    #[error("config.json is not an object")]
    NotAnObject,
    #[error("config.json: {path} is {found}, expected {expected}")]
    Type { path: &'static str, found: &'static str, expected: &'static str },
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

impl Spec {
    /// # Errors
    /// [`SpecError`], if it is no JSON object.
    pub fn parse(text: &[u8]) -> Result<Spec, SpecError> {
        match serde_json::from_slice(text).map_err(SpecError::Json)? {
            Value::Object(object) => Ok(Spec(object)),
            _ => Err(SpecError::NotAnObject),
        }
    }

    /// The spec as `config.json`.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(&self.0).expect("a JSON object is serialisable")
    }

    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.0.get("annotations")?.get(name)?.as_str()
    }

    /// The id under which a pod's containers share one shim.
    pub fn sandbox_id(&self) -> Option<&str> {
        self.annotation(cri::SANDBOX_ID)
    }

    /// The path of the root filesystem, relative to the bundle unless absolute.
    pub fn root_path(&self) -> Option<&str> {
        self.0.get("root")?.get("path")?.as_str()
    }

    /// The container's cgroup.
    pub fn cgroups_path(&self) -> Option<&str> {
        self.0.get("linux")?.get("cgroupsPath")?.as_str()
    }

    /// Whether the container's cgroup is one that systemd makes: the path is then `SLICE:PREFIX:NAME`, as runc's `--systemd-cgroup` wants it.
    pub fn has_systemd_cgroup(&self) -> bool {
        self.cgroups_path().is_some_and(|path| !path.starts_with('/') && path.split(':').count() == 3)
    }

    /// User and group of the process; 0 where none is named.
    pub fn user(&self) -> (u32, u32) {
        let user = self.0.get("process").and_then(|process| process.get("user"));
        let id = |name| user.and_then(|user| user.get(name)?.as_u64()).and_then(|id| u32::try_from(id).ok());
        (id("uid").unwrap_or(0), id("gid").unwrap_or(0))
    }

    /// The same as the host sees them, where a user namespace maps them: `linux.uidMappings` and `linux.gidMappings`.
    pub fn host_user(&self) -> (u32, u32) {
        let (uid, gid) = self.user();
        (self.mapped("uidMappings", uid), self.mapped("gidMappings", gid))
    }

    fn mapped(&self, mappings: &str, id: u32) -> u32 {
        let ranges = self.0.get("linux").and_then(|linux| linux.get(mappings)?.as_array());
        let mapped = ranges.into_iter().flatten().find_map(|range| {
            let number = |name| range.get(name).and_then(Value::as_u64);
            let below = u64::from(id).checked_sub(number("containerID")?)?;
            (below < number("size")?).then_some(number("hostID")? + below)
        });
        mapped.and_then(|id| u32::try_from(id).ok()).unwrap_or(id)
    }

    /// Whether the container gets a new namespace of that type: else it shares the host's, or, by path, another container's.
    pub fn has_own_namespace(&self, kind: &str) -> bool {
        let namespaces = self.0.get("linux").and_then(|linux| linux.get("namespaces")).and_then(Value::as_array);
        let text = |one: &Value, name| one.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        namespaces.is_some_and(|all| all.iter().any(|one| text(one, "type") == kind && text(one, "path").is_empty()))
    }

    /// `process.args`.
    ///
    /// # Errors
    /// [`SpecError::Type`], if there are none, or they are no strings.
    pub fn args(&self) -> Result<Vec<String>, SpecError> {
        self.strings("process.args", "args")
    }

    /// `process.env`, `NAME=VALUE`; empty if absent.
    ///
    /// # Errors
    /// [`SpecError::Type`], if they are no strings.
    pub fn env(&self) -> Result<Vec<String>, SpecError> {
        let has_env = self.0.get("process").is_some_and(|process| process.get("env").is_some_and(|env| !env.is_null()));
        if has_env { self.strings("process.env", "env") } else { Ok(Vec::new()) }
    }

    fn strings(&self, path: &'static str, name: &str) -> Result<Vec<String>, SpecError> {
        let error = |found| SpecError::Type { path, found, expected: "an array of strings" };
        let value = self.0.get("process").and_then(|process| process.get(name)).ok_or(error("absent"))?;
        let values = value.as_array().ok_or_else(|| error(kind_of(value)))?;
        let text = |value: &Value| value.as_str().map(str::to_owned).ok_or_else(|| error(kind_of(value)));
        values.iter().map(text).collect()
    }

    fn process(&mut self) -> Result<&mut Map<String, Value>, SpecError> {
        object(self.0.entry("process"), "process")
    }

    pub fn set_args(&mut self, args: Vec<String>) -> Result<(), SpecError> {
        self.process()?.insert("args".into(), args.into());
        Ok(())
    }

    /// Adds `NAME=VALUE`, unless the name is set.
    pub fn default_env(&mut self, name: &str, value: &str) -> Result<(), SpecError> {
        let set = self.env()?.iter().any(|variable| variable.split('=').next() == Some(name));
        if !set {
            let env = self.process()?.entry("env");
            array(env, "process.env")?.push(format!("{name}={value}").into());
        }
        Ok(())
    }

    /// Whether something is mounted at `destination`.
    pub fn has_mount(&self, destination: &str) -> bool {
        let mounts = self.0.get("mounts").and_then(Value::as_array);
        mounts.is_some_and(|all| {
            all.iter().any(|one| one.get("destination").and_then(Value::as_str) == Some(destination))
        })
    }

    /// Mounts after all others, so that no other one hides it.
    pub fn add_mount(&mut self, mount: &Mount) -> Result<(), SpecError> {
        let mount = serde_json::to_value(mount).expect("a mount is representable in JSON");
        array(self.0.entry("mounts"), "mounts")?.push(mount);
        Ok(())
    }

    /// `hooks.createRuntime`: in the runtime's namespaces, when those of the container and its mounts are made, before `pivot_root`.
    pub fn add_create_runtime_hook(&mut self, hook: &Hook) -> Result<(), SpecError> {
        let hook = serde_json::to_value(hook).expect("a hook is representable in JSON");
        let hooks = object(self.0.entry("hooks"), "hooks")?;
        array(hooks.entry("createRuntime"), "hooks.createRuntime")?.push(hook);
        Ok(())
    }
}

fn object<'a>(entry: serde_json::map::Entry<'a>, path: &'static str) -> Result<&'a mut Map<String, Value>, SpecError> {
    let value = entry.or_insert(Value::Null);
    if value.is_null() {
        *value = Value::Object(Map::new());
    }
    let found = kind_of(value);
    value.as_object_mut().ok_or(SpecError::Type { path, found, expected: "an object" })
}

fn array<'a>(entry: serde_json::map::Entry<'a>, path: &'static str) -> Result<&'a mut Vec<Value>, SpecError> {
    let value = entry.or_insert(Value::Null);
    if value.is_null() {
        *value = Value::Array(Vec::new());
    }
    let found = kind_of(value);
    value.as_array_mut().ok_or(SpecError::Type { path, found, expected: "an array" })
}
