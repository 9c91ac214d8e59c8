//! HTTP requests that functions send.

use std::path::PathBuf;

use super::{ConfigError, settings::settings, within};
use crate::{invocation::OutboundGrant, limits::ConfigDuration, sandbox::outbound::OutboundConfig};

settings! {
    /// HTTP requests that functions send.
    pub struct OutboundSettings {
        /// HOST:PORT, *.DOMAIN:PORT or NETWORK/BITS:PORT that functions' settings may open to their guests; may be given several times [default: none]
        #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
        allow_outbound: Vec<OutboundGrant> = ["ALLOW_OUTBOUND"],
        /// Certificates (PEM) of those who may vouch for servers of https, instead of the system's [default: the system's]
        #[arg(long, value_name = "FILE")]
        outbound_ca: PathBuf = ["OUTBOUND_CA"],
        /// How long a connection of a function's to a server may be idle, ms or with unit; 0 keeps none [default: 15s]
        #[arg(long, value_name = "TIME")]
        outbound_idle_timeout: ConfigDuration = ["OUTBOUND_IDLE_TIMEOUT"],
    }
}

impl OutboundSettings {
    pub(super) fn resolve(self) -> Result<OutboundConfig, ConfigError> {
        let idle = self.outbound_idle_timeout.unwrap_or(ConfigDuration::from_secs(15));
        within("--outbound-idle-timeout", idle.duration().as_millis(), 0, 600_000)?;
        Ok(OutboundConfig {
            allow: self.allow_outbound.unwrap_or_default(),
            ca: self.outbound_ca,
            idle: idle.duration(),
        })
    }
}
