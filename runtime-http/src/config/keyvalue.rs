//! Where functions keep values.

use std::{fmt, path::PathBuf, str::FromStr};

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo};

use super::{ConfigError, settings::settings, within};
use crate::limits::ByteSize;

settings! {
    /// Where functions keep values.
    pub struct KeyvalueSettings {
        /// Directory in which functions keep values (wasi:keyvalue), private to this user; one box at a time [default: none]
        #[arg(long, value_name = "DIR")]
        keyvalue_dir: PathBuf = ["KEYVALUE_DIR"],
        /// Redis or Valkey in which functions keep values instead: redis://USER:PASSWORD@HOST:PORT/DATABASE, of which the host alone is needed [default: none]
        #[arg(long, value_name = "URL")]
        keyvalue_redis: RedisUrl = ["KEYVALUE_REDIS"],
        /// The most that one function may keep, keys and 64 bytes for each included [default: 64Mi]
        #[arg(long, value_name = "SIZE")]
        keyvalue_quota: ByteSize = ["KEYVALUE_QUOTA"],
    }
}

/// The address of a server, maybe with a password.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    text: String,
    host: String,
    port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not redis://[[USER]:PASSWORD@]HOST:PORT[/DATABASE]")]
pub struct BadRedisUrl;

impl FromStr for RedisUrl {
    type Err = BadRedisUrl;

    fn from_str(text: &str) -> Result<Self, BadRedisUrl> {
        let info = text.into_connection_info().map_err(|_| BadRedisUrl)?;
        match info.addr() {
            ConnectionAddr::Tcp(host, port) => Ok(RedisUrl { text: text.into(), host: host.clone(), port: *port }),
            // TLS and Unix sockets.
            _ => Err(BadRedisUrl),
        }
    }
}

impl RedisUrl {
    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn connection(&self) -> ConnectionInfo {
        self.text.as_str().into_connection_info().expect("it was read before")
    }
}

/// Without the password.
impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "redis://{}:{}", self.host, self.port)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyvaluePlace {
    Directory(PathBuf),
    Redis(RedisUrl),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyvalueConfig {
    /// `None`: functions keep nothing.
    pub place: Option<KeyvaluePlace>,
    /// Of one function.
    pub quota: ByteSize,
}

impl KeyvalueConfig {
    pub fn directory(&self) -> Option<&PathBuf> {
        match &self.place {
            Some(KeyvaluePlace::Directory(path)) => Some(path),
            Some(KeyvaluePlace::Redis(_)) | None => None,
        }
    }

    pub fn redis(&self) -> Option<&RedisUrl> {
        match &self.place {
            Some(KeyvaluePlace::Redis(url)) => Some(url),
            Some(KeyvaluePlace::Directory(_)) | None => None,
        }
    }
}

impl KeyvalueSettings {
    pub(super) fn resolve(self) -> Result<KeyvalueConfig, ConfigError> {
        let quota = self.keyvalue_quota.unwrap_or(ByteSize::of_mebibytes(64));
        within("--keyvalue-quota", quota, ByteSize::of_bytes(1 << 10), ByteSize::of_mebibytes(1 << 20))?;
        let place = match (self.keyvalue_dir, self.keyvalue_redis) {
            (None, None) => None,
            (Some(path), None) => Some(KeyvaluePlace::Directory(path)),
            (None, Some(url)) => Some(KeyvaluePlace::Redis(url)),
            (Some(path), Some(_)) => {
                return Err(ConfigError::Value {
                    name: "--keyvalue-dir",
                    value: path.display().to_string(),
                    expected: "no --keyvalue-redis beside it".into(),
                });
            }
        };
        Ok(KeyvalueConfig { place, quota })
    }
}
