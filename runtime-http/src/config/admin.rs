//! Where the admin port is: for the box, and for who asks it.

use super::settings::{port_number, settings};

settings! {
    /// Where the admin port is.
    pub struct AdminSettings {
        /// Address of the admin port (/, /live, /ready, /status, /overview.json, /metrics, /functions) [default: 0.0.0.0]
        #[arg(long, value_name = "ADDRESS")]
        admin_host: String = ["HEALTHCHECK_HOST"],
        /// Admin port [default: 8086]
        #[arg(long, value_name = "PORT", value_parser = port_number)]
        admin_port: u16 = ["HEALTHCHECK_PORT"],
    }
}

impl AdminSettings {
    pub fn host(&self) -> &str {
        self.admin_host.as_deref().unwrap_or("0.0.0.0")
    }

    pub fn port(&self) -> u16 {
        self.admin_port.unwrap_or(8086)
    }
}
