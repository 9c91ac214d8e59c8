//! `wasmbox status`: asks a box for its state, and shows it.

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
    thread,
    time::Duration,
};

use http::StatusCode;

use super::{arguments::StatusArgs, screen::Shows, session, status_screen::Screen};
use crate::{
    client::{self, ClientError},
    config::Settings,
    overview::query::Query,
    status::Status,
};

/// Between two looks of `--watch`.
const PERIOD: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    #[error(
        "no box answers at {address}: {source}; is `wasmbox serve` running? \
         --admin-port (HEALTHCHECK_PORT) or --address HOST:PORT names another admin port"
    )]
    NoAnswer { address: String, source: ClientError },
    #[error("what answers at {address} is not the admin port of a box: {reason}; --address HOST:PORT names another")]
    NoBox { address: String, reason: String },
    #[error("the output cannot be written: {0}")]
    Output(#[from] io::Error),
}

/// Shows it once, or until somebody ends it: on a terminal a screen, else a text each second.
///
/// # Errors
/// [`StatusError`], if no box answers.
pub fn status(arguments: &StatusArgs, settings: &Settings) -> Result<ExitCode, StatusError> {
    let address = arguments.place.address(settings);
    if arguments.watch && !arguments.json && io::stdout().is_terminal() && io::stdin().is_terminal() {
        session::watch(&address, Shows::All, Query::default())?;
        return Ok(ExitCode::SUCCESS);
    }
    loop {
        let status = ask(&address)?;
        let text = match (arguments.json, arguments.watch) {
            (true, false) => serde_json::to_string_pretty(&status).map_err(io::Error::from)? + "\n",
            // A line each.
            (true, true) => serde_json::to_string(&status).map_err(io::Error::from)? + "\n",
            (false, _) => Screen { address: &address, status: &status }.to_string(),
        };
        let mut output = io::stdout().lock();
        let written = output.write_all(text.as_bytes()).and_then(|()| output.flush());
        match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(ExitCode::SUCCESS),
            written => written?,
        }
        drop(output);
        if !arguments.watch {
            return Ok(ExitCode::SUCCESS);
        }
        thread::sleep(PERIOD);
    }
}

/// The state of the box whose admin port is at `address`.
///
/// # Errors
/// [`StatusError`], if none answers.
pub fn ask(address: &str) -> Result<Status, StatusError> {
    let (code, body) = client::get_blocking(address, "/status")
        .map_err(|source| StatusError::NoAnswer { address: address.into(), source })?;
    let no_box = |reason| StatusError::NoBox { address: address.into(), reason };
    if code != StatusCode::OK {
        return Err(no_box(format!("GET /status is answered with {code}")));
    }
    serde_json::from_slice(&body).map_err(|error| no_box(error.to_string()))
}
