//! Where functions keep values.

use std::{fmt, path::PathBuf, str::FromStr};

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo};

use crate::limits::ByteSize;

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
