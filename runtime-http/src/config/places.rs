//! Where things are: directories, addresses, the log.

use std::{env, ffi::OsString, path::PathBuf};

use super::{
    ConfigError, NodeSettings,
    settings::{port_number, settings},
};
use crate::{limits::ByteSize, logging::LogFormat};

/// Where compiled code is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheDir {
    /// Written `none`.
    None,
    Path(PathBuf),
}

impl From<OsString> for CacheDir {
    fn from(text: OsString) -> Self {
        if text == "none" { CacheDir::None } else { CacheDir::Path(text.into()) }
    }
}

settings! {
    /// Where things are.
    pub struct PlaceSettings {
        /// Directory of the functions: NAME.wasm, NAME.wat, and NAME.toml with a function's settings [default: ./functions]
        #[arg(long, value_name = "DIR")]
        functions_dir: PathBuf = ["FUNCTIONS_DIR"],
        /// Address of the function port [default: 0.0.0.0]
        #[arg(long, value_name = "ADDRESS")]
        host: String = ["WEBSERVER_HOST"],
        /// Port of the functions [default: 8095]
        #[arg(long, value_parser = port_number)]
        port: u16 = ["WEBSERVER_PORT", "PORT"],
        /// Directory of compiled code, private to this user; `none` compiles anew at each start [default: $XDG_CACHE_HOME/wasmbox or ~/.cache/wasmbox]
        #[arg(long, value_name = "DIR")]
        cache_dir: CacheDir = ["CACHE_DIR"],
        /// Directory of code that the node compiled, read-only for this box; `none` does without [default: none]
        #[arg(long, value_name = "DIR")]
        node_cache_dir: CacheDir = ["NODE_CACHE_DIR"],
        /// Socket of the node's compile service, which fills that directory [default: none]
        #[arg(long, value_name = "SOCKET")]
        compile_socket: PathBuf = ["COMPILE_SOCKET"],
        /// Value of the answers' header `Pod` [default: the host's name]
        #[arg(long, value_name = "NAME")]
        pod_name: String = ["POD_NAME"],
        /// error, warn, info, debug or trace; also by target: info,guest=off [default: info]
        #[arg(long, value_name = "LEVEL")]
        log_level: String = ["LOG_LEVEL"],
        /// How log lines look [default: text]
        #[arg(long, value_name = "FORMAT")]
        log_format: LogFormat = ["LOG_FORMAT"],
        /// What one function may write to the log a second, and twice as much at once; 0: as much as it likes [default: 1Mi]
        #[arg(long, value_name = "SIZE")]
        function_log_rate: ByteSize = ["FUNCTION_LOG_RATE"],
    }
}

impl PlaceSettings {
    pub fn host(&self) -> &str {
        self.host.as_deref().unwrap_or("0.0.0.0")
    }

    pub fn port(&self) -> u16 {
        self.port.unwrap_or(8095)
    }

    /// What the node offers.
    pub(super) fn node(&self) -> Result<Option<NodeSettings>, ConfigError> {
        match (&self.node_cache_dir, &self.compile_socket) {
            (Some(CacheDir::Path(cache_dir)), compile_socket) => {
                Ok(Some(NodeSettings { cache_dir: cache_dir.clone(), compile_socket: compile_socket.clone() }))
            }
            (Some(CacheDir::None), _) | (None, None) => Ok(None),
            (None, Some(socket)) => Err(ConfigError::Value {
                name: "--compile-socket",
                value: socket.display().to_string(),
                expected: "--node-cache-dir, too: what is compiled is found there".into(),
            }),
        }
    }
}

/// XDG Base Directory Specification.
pub fn default_cache_dir() -> Option<PathBuf> {
    let directory = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = directory("XDG_CACHE_HOME").or_else(|| directory("HOME").map(|home| home.join(".cache")))?;
    Some(base.join("wasmbox"))
}
