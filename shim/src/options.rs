//! Runtime options: what a node's administrator sets for this runtime in containerd's configuration.
//!
//! CRI sends `runtimeoptions.v1.Options`: TOML, or the path of a TOML file. `ctr` may send `containerd.runc.v1.Options`.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use containerd_shim_protos::{
    protobuf::{CodedInputStream, Message, well_known_types::any::Any},
    shim::oci,
};
use serde::Deserialize;

const RUNTIME_OPTIONS: &str = "runtimeoptions.v1.Options";
const RUNC_OPTIONS: &str = "containerd.runc.v1.Options";
const DEFAULT_CACHE_DIR: &str = "/var/lib/wasmbox/cache";

/// What can be set. Names of containerd's runc options where they mean the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "PascalCase")]
pub struct Options {
    /// The OCI runtime: a path, or a name in PATH [default: runc].
    pub binary_name: Option<PathBuf>,
    /// Its state directory, in which each namespace gets one [default: /run/containerd/wasmbox].
    pub root: Option<PathBuf>,
    /// Cgroups by systemd.
    pub systemd_cgroup: bool,
    /// The cgroup of the shims.
    pub shim_cgroup: Option<String>,
    pub no_pivot_root: bool,
    pub no_new_keyring: bool,
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
}

#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    #[error("runtime options of type {type_url:?}: expected {RUNTIME_OPTIONS} or {RUNC_OPTIONS}")]
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
        [RUNTIME_OPTIONS, RUNC_OPTIONS].contains(&name(any))
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
                Options::from_runc(options)
            }
            _ => Err(OptionsError::Type { type_url }),
        }
    }

    /// The host's directory of compiled code, if there is to be one.
    pub fn cache_dir(&self) -> Option<PathBuf> {
        let directory = self.cache_dir.clone().unwrap_or_else(|| DEFAULT_CACHE_DIR.into());
        (directory != Path::new("none")).then_some(directory)
    }

    fn from_toml(text: &str, place: &str) -> Result<Options, OptionsError> {
        toml::from_str(text).map_err(|source| OptionsError::Toml { place: place.to_owned(), source: Box::new(source) })
    }

    fn from_runc(options: oci::Options) -> Result<Options, OptionsError> {
        for (name, set) in [
            ("CriuImagePath", !options.criu_image_path.is_empty()),
            ("CriuWorkPath", !options.criu_work_path.is_empty()),
            ("IoUid", options.io_uid != 0),
            ("IoGid", options.io_gid != 0),
        ] {
            if set {
                return Err(OptionsError::Unsupported { name });
            }
        }
        let path = |text: String| Some(text).filter(|text| !text.is_empty());
        Ok(Options {
            binary_name: path(options.binary_name).map(Into::into),
            root: path(options.root).map(Into::into),
            systemd_cgroup: options.systemd_cgroup,
            shim_cgroup: path(options.shim_cgroup),
            no_pivot_root: options.no_pivot_root,
            no_new_keyring: options.no_new_keyring,
            ..Options::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime_options(path: &str, body: &str) -> Any {
        let mut value = Vec::new();
        {
            let mut output = containerd_shim_protos::protobuf::CodedOutputStream::vec(&mut value);
            output.write_string(1, "a type").unwrap();
            output.write_string(2, path).unwrap();
            output.write_bytes(3, body.as_bytes()).unwrap();
            output.flush().unwrap();
        }
        Any { type_url: RUNTIME_OPTIONS.into(), value, ..Any::default() }
    }

    #[test]
    fn toml_in_the_configuration() {
        let options = Options::from_any(&runtime_options(
            "",
            "BinaryName = '/usr/bin/crun'\nSystemdCgroup = true\n[Env]\nDEFAULT_CPU_QUOTA = '250'\n",
        ))
        .unwrap();
        assert_eq!(options.binary_name.as_deref(), Some(Path::new("/usr/bin/crun")));
        assert!(options.systemd_cgroup);
        assert_eq!(options.env["DEFAULT_CPU_QUOTA"], "250");
    }

    #[test]
    fn the_nodes_cache_is_on_unless_it_is_switched_off() {
        let cache_dir = |body| Options::from_any(&runtime_options("", body)).unwrap().cache_dir();
        assert_eq!(cache_dir("SystemdCgroup = true").as_deref(), Some(Path::new("/var/lib/wasmbox/cache")));
        assert_eq!(cache_dir("CacheDir = '/data/code'").as_deref(), Some(Path::new("/data/code")));
        assert_eq!(cache_dir("CacheDir = 'none'"), None);
    }

    #[test]
    fn what_is_not_known_is_named() {
        let error = Options::from_any(&runtime_options("", "BinryName = 'x'")).unwrap_err();
        assert!(error.to_string().contains("BinryName"), "{error}");
        let error = Options::from_any(&runtime_options("/nowhere.toml", "")).unwrap_err();
        assert!(error.to_string().contains("/nowhere.toml"), "{error}");
        let other = Any { type_url: "types.example/other.Options".into(), ..Any::default() };
        assert!(Options::from_any(&other).unwrap_err().to_string().contains("other.Options"));
        let criu = oci::Options { criu_work_path: "/x".into(), ..oci::Options::default() };
        let criu = Any { type_url: RUNC_OPTIONS.into(), value: criu.write_to_bytes().unwrap(), ..Any::default() };
        assert!(Options::from_any(&criu).unwrap_err().to_string().contains("CriuWorkPath"));
    }

    #[test]
    fn options_of_runc() {
        let runc = oci::Options { binary_name: "crun".into(), systemd_cgroup: true, ..oci::Options::default() };
        let any = Any { type_url: RUNC_OPTIONS.into(), value: runc.write_to_bytes().unwrap(), ..Any::default() };
        let options = Options::from_any(&any).unwrap();
        assert_eq!(options.binary_name.as_deref(), Some(Path::new("crun")));
        assert!(options.systemd_cgroup);
        assert_eq!(Options::from_any(&Any::default()).unwrap(), Options::default());
    }
}
