//! Asking a box for what it does now.

use std::net::ToSocketAddrs;

use http::StatusCode;

use super::plain;
use super::status::StatusError;
use crate::{
    client,
    overview::{Overview, query::Query},
};

/// What the box whose admin port is at `address` does.
///
/// # Errors
/// [`StatusError`], if none answers.
pub fn ask(address: &str, query: &Query) -> Result<Overview, StatusError> {
    let path = format!("/overview.json?{query}");
    let get = |address: &str| {
        client::get_blocking(address, &path).map_err(|source| StatusError::NoAnswer { address: address.into(), source })
    };
    let (mut code, mut body) = get(address)?;
    // By a name that a browser must not come by. What is asked here is what that name leads to.
    if code == StatusCode::MISDIRECTED_REQUEST
        && let Some(found) = address.to_socket_addrs().ok().and_then(|mut found| found.next())
    {
        (code, body) = get(&found.to_string())?;
    }
    let no_box = |reason| StatusError::NoBox { address: address.into(), reason };
    if code != StatusCode::OK {
        let said = plain(String::from_utf8_lossy(&body).trim());
        return Err(no_box(format!("GET /overview.json is answered with {code}: {said}")));
    }
    serde_json::from_slice(&body).map_err(|error| no_box(error.to_string()))
}
