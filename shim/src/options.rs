//! Runtime options: what a node's administrator sets for this runtime in containerd's configuration.
//!
//! CRI sends `runtimeoptions.v1.Options`: TOML, or the path of a TOML file. `ctr` may send `containerd.runc.v1.Options`, and containerd 1.7's
//! client `containerd.linux.runc.CreateOptions`. In each of them a value that is empty, zero or false says nothing, as containerd itself writes
//! all of runc's options into its default configuration.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use containerd_shim_protos::{
    protobuf::{CodedInputStream, Message, well_known_types::any::Any},
    shim::oci,
};
use serde::{Deserialize, Deserializer};

const RUNTIME_OPTIONS: &str = "runtimeoptions.v1.Options";
const RUNC_OPTIONS: &str = "containerd.runc.v1.Options";
const CREATE_OPTIONS: &str = "containerd.linux.runc.CreateOptions";
const DEFAULT_CACHE_DIR: &str = "/var/lib/wasmbox/cache";

/// What can be set. Names of containerd's runc options where they mean the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "PascalCase")]
pub struct Options {
    /// The OCI runtime: a path, or a name in PATH [default: runc].
    #[serde(deserialize_with = "unless_empty")]
    pub binary_name: Option<PathBuf>,
    /// Its state directory, in which each namespace gets one [default: /run/containerd/wasmbox].
    #[serde(deserialize_with = "unless_empty")]
    pub root: Option<PathBuf>,
    /// Cgroups by systemd.
    pub systemd_cgroup: bool,
    /// The cgroup of the shims.
    #[serde(deserialize_with = "unless_empty")]
    pub shim_cgroup: Option<String>,
    pub no_pivot_root: bool,
    pub no_new_keyring: bool,
    /// Whose the container's pipes and fifos are: the host's number of its root user, where it has a user namespace.
    pub io_uid: u32,
    pub io_gid: u32,
    /// The host's `wasmbox` [default: beside this binary].
    pub wasmbox_binary: Option<PathBuf>,
    /// The host's directory of compiled code, which boxes see read-only; `none`: none [default: /var/lib/wasmbox/cache].
    pub cache_dir: Option<PathBuf>,
    /// The most compiled code in it [default: that of `wasmbox compile-service`].
    pub cache_size: Option<String>,
    /// Variables for each box, unless its container sets them: default limits, for instance.
    pub env: BTreeMap<String, String>,
    /// The most seconds for one call of the OCI runtime [default: 60].
    pub runtime_timeout: Option<u64>,
    // Of runc's shim, for what this one cannot do: they are accepted where they say nothing.
    criu_path: String,
    criu_image_path: String,
    criu_work_path: String,
    task_api_address: String,
    task_api_version: u32,
}

/// containerd writes options that are not set as empty strings.
fn unless_empty<'de, D: Deserializer<'de>, T: From<String>>(text: D) -> Result<Option<T>, D::Error> {
    Ok(not_empty(String::deserialize(text)?))
}

fn not_empty<T: From<String>>(text: String) -> Option<T> {
    Some(text).filter(|text| !text.is_empty()).map(T::from)
}

#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    #[error("runtime options of type {type_url:?}: expected {RUNTIME_OPTIONS}, {RUNC_OPTIONS} or {CREATE_OPTIONS}")]
    Type { type_url: String },
    #[error("runtime options of type {type_url} cannot be read: {source}")]
    Protobuf { type_url: String, source: containerd_shim_protos::protobuf::Error },
    #[error("runtime options in {place}: {source}")]
    Toml { place: String, source: Box<toml::de::Error> },
    #[error("runtime options file {}: {source}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("runtime option {name}: not supported; remove it")]
    Unsupported { name: &'static str },
}

/// `runtimeoptions.v1.Options`.
#[derive(Debug, Default)]
struct RuntimeOptions {
    config_path: String,
    config_body: Vec<u8>,
}

impl RuntimeOptions {
    fn parse(bytes: &[u8]) -> containerd_shim_protos::protobuf::Result<RuntimeOptions> {
        const CONFIG_PATH: u32 = (2 << 3) | 2;
        const CONFIG_BODY: u32 = (3 << 3) | 2;
        let mut options = RuntimeOptions::default();
        let mut input = CodedInputStream::from_bytes(bytes);
        while let Some(tag) = input.read_raw_tag_or_eof()? {
            match tag {
                CONFIG_PATH => options.config_path = input.read_string()?,
                CONFIG_BODY => options.config_body = input.read_bytes()?,
                other => containerd_shim_protos::protobuf::rt::skip_field_for_tag(other, &mut input)?,
            }
        }
        Ok(options)
    }
}

fn name(any: &Any) -> &str {
    any.type_url.rsplit('/').next().unwrap_or_default()
}

impl Options {
    /// Whether these are runtime options.
    pub fn are_in(any: &Any) -> bool {
        [RUNTIME_OPTIONS, RUNC_OPTIONS, CREATE_OPTIONS].contains(&name(any))
    }

    /// # Errors
    /// [`OptionsError`], naming what is not understood.
    pub fn from_any(any: &Any) -> Result<Options, OptionsError> {
        let type_url = any.type_url.clone();
        match name(any) {
            "" => Ok(Options::default()),
            RUNTIME_OPTIONS => {
                let options =
                    RuntimeOptions::parse(&any.value).map_err(|source| OptionsError::Protobuf { type_url, source })?;
                if !options.config_body.is_empty() {
                    return Options::from_toml(
                        &String::from_utf8_lossy(&options.config_body),
                        "containerd's configuration",
                    );
                }
                if options.config_path.is_empty() {
                    return Ok(Options::default());
                }
                let path = Path::new(&options.config_path);
                let text =
                    fs::read_to_string(path).map_err(|source| OptionsError::File { path: path.to_owned(), source })?;
                Options::from_toml(&text, &options.config_path)
            }
            RUNC_OPTIONS => {
                let options = oci::Options::parse_from_bytes(&any.value)
                    .map_err(|source| OptionsError::Protobuf { type_url, source })?;
                Options::from_runc(options).supported()
            }
            CREATE_OPTIONS => Options::parse_create(&any.value)
                .map_err(|source| OptionsError::Protobuf { type_url, source })?
                .supported(),
            _ => Err(OptionsError::Type { type_url }),
        }
    }

    /// The host's directory of compiled code, if there is to be one.
    pub fn cache_dir(&self) -> Option<PathBuf> {
        let directory = self.cache_dir.clone().unwrap_or_else(|| DEFAULT_CACHE_DIR.into());
        (directory != Path::new("none")).then_some(directory)
    }

    /// # Errors
    /// [`OptionsError::Unsupported`], naming the first that asks for what cannot be done.
    fn supported(self) -> Result<Options, OptionsError> {
        let set = [
            ("CriuPath", !self.criu_path.is_empty()),
            ("CriuImagePath", !self.criu_image_path.is_empty()),
            ("CriuWorkPath", !self.criu_work_path.is_empty()),
            ("TaskApiAddress", !self.task_api_address.is_empty()),
            ("TaskApiVersion", self.task_api_version != 0),
        ];
        match set.into_iter().find(|(_, asks)| *asks) {
            Some((name, _)) => Err(OptionsError::Unsupported { name }),
            None => Ok(self),
        }
    }

    fn from_toml(text: &str, place: &str) -> Result<Options, OptionsError> {
        toml::from_str::<Options>(text)
            .map_err(|source| OptionsError::Toml { place: place.to_owned(), source: Box::new(source) })?
            .supported()
    }

    fn from_runc(options: oci::Options) -> Options {
        Options {
            binary_name: not_empty(options.binary_name),
            root: not_empty(options.root),
            systemd_cgroup: options.systemd_cgroup,
            shim_cgroup: not_empty(options.shim_cgroup),
            no_pivot_root: options.no_pivot_root,
            no_new_keyring: options.no_new_keyring,
            io_uid: options.io_uid,
            io_gid: options.io_gid,
            criu_image_path: options.criu_image_path,
            criu_work_path: options.criu_work_path,
            task_api_address: options.task_api_address,
            task_api_version: options.task_api_version,
            ..Options::default()
        }
    }

    /// Of `containerd.linux.runc.CreateOptions`, but for what that says of making checkpoints.
    fn parse_create(bytes: &[u8]) -> containerd_shim_protos::protobuf::Result<Options> {
        const fn number(field: u32) -> u32 {
            field << 3
        }
        const fn text(field: u32) -> u32 {
            (field << 3) | 2
        }
        const NO_PIVOT_ROOT: u32 = number(8);
        const NO_NEW_KEYRING: u32 = number(9);
        const SHIM_CGROUP: u32 = text(10);
        const IO_UID: u32 = number(11);
        const IO_GID: u32 = number(12);
        const CRIU_WORK_PATH: u32 = text(13);
        const CRIU_IMAGE_PATH: u32 = text(14);
        let mut options = Options::default();
        let mut input = CodedInputStream::from_bytes(bytes);
        while let Some(tag) = input.read_raw_tag_or_eof()? {
            match tag {
                NO_PIVOT_ROOT => options.no_pivot_root = input.read_bool()?,
                NO_NEW_KEYRING => options.no_new_keyring = input.read_bool()?,
                SHIM_CGROUP => options.shim_cgroup = not_empty(input.read_string()?),
                IO_UID => options.io_uid = input.read_uint32()?,
                IO_GID => options.io_gid = input.read_uint32()?,
                CRIU_WORK_PATH => options.criu_work_path = input.read_string()?,
                CRIU_IMAGE_PATH => options.criu_image_path = input.read_string()?,
                other => containerd_shim_protos::protobuf::rt::skip_field_for_tag(other, &mut input)?,
            }
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests;
