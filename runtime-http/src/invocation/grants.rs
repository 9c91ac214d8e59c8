//! What the operator and the function's settings open to a guest beyond computing.

use std::path::PathBuf;

use serde::Deserialize;

#[derive(Debug, Default)]
pub struct Grants {
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    pub preopens: Vec<Preopen>,
    pub outbound_hosts: Vec<OutboundHost>,
}

/// A directory of the host that the guest sees.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Preopen {
    /// Absolute, below one of the operator's preopen roots.
    pub host: PathBuf,
    /// Where the guest sees it.
    pub guest: String,
    /// Read-only unless `true`.
    #[serde(default)]
    pub writable: bool,
}

/// A host and port that plain HTTP may go to, written `host:port`, or `host` for port 80.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OutboundHost {
    /// Lower case.
    pub host: String,
    pub port: u16,
}

impl std::str::FromStr for OutboundHost {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let authority: http::uri::Authority =
            text.parse().map_err(|error| format!("{text:?} is not host:port ({error})"))?;
        if authority.host().is_empty() || authority.as_str().contains('@') {
            return Err(format!("{text:?} is not host:port"));
        }
        Ok(OutboundHost { host: authority.host().to_ascii_lowercase(), port: authority.port_u16().unwrap_or(80) })
    }
}

impl<'de> Deserialize<'de> for OutboundHost {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl serde::Serialize for OutboundHost {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}:{}", self.host, self.port))
    }
}
