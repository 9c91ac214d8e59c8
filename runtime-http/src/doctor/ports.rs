//! The ports. A box that runs already is what they may be in use by: it is asked, and not disturbed.

use std::{io, net::TcpListener};

use super::Finding;
use crate::{client, config::Config, terminal};

pub fn functions(config: &Config) -> Finding {
    free(&config.host, config.port, "--port (WEBSERVER_PORT)", |address| {
        let (status, body) = client::get_blocking(address, "/-/live").ok()?;
        (status.is_success() && body == b"live\n").then(|| "in use by a box that runs".into())
    })
}

pub fn admin(config: &Config) -> Finding {
    free(&config.admin_host, config.admin_port, "--admin-port (HEALTHCHECK_PORT)", |address| {
        let box_there = terminal::status::ask(address).ok()?;
        Some(format!("in use by a box that runs (version {}, pid {})", box_there.version, box_there.pid))
    })
}

/// `ask` says which box has it, if one has.
fn free(host: &str, port: u16, setting: &str, ask: impl Fn(&str) -> Option<String>) -> Finding {
    let address = client::address(host, port);
    match TcpListener::bind(&address) {
        Ok(_) if port == 0 => Finding::ok(format!("{address}: any free port")),
        Ok(_) => Finding::ok(format!("{address} is free")),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => match ask(&client::reachable(host, port)) {
            Some(user) => Finding::ok(format!("{address} is {user}")),
            None => Finding::fail(
                format!("{address} is in use, not by a box"),
                format!("end what uses it (ss -ltnp shows it), or choose another with {setting}"),
            ),
        },
        Err(error) => Finding::fail(format!("{address}: {error}"), format!("choose another with {setting}")),
    }
}
