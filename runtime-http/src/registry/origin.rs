//! Who is talked to: scheme, host and port of an address; and where one address leads from another.

use std::{fmt, net::SocketAddr};

use http::Uri;
use tokio::net::lookup_host;

use super::RegistryError;
use crate::{excerpt::excerpt, invocation::Host};

/// The most addresses of a name that are tried.
const MOST_ADDRESSES: usize = 8;

/// Credentials for one are not shown to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    pub is_tls: bool,
    pub host: Host,
    port: u16,
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}://{}", if self.is_tls { "https" } else { "http" }, self.authority())
    }
}

/// Host and port of `HOST` or `HOST:PORT`, where an address of IPv6 is in brackets. `None` if it is neither.
pub fn host_and_port(authority: &str) -> Option<(Host, Option<u16>)> {
    let (host, port) = match authority.rsplit_once(':') {
        // The colon of an address of IPv6 is none of a port.
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let host = Host::parse(host)?;
    let Some(port) = port else { return Some((host, None)) };
    let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port.parse().ok().filter(|&port| is_number && port != 0)?;
    Some((host, Some(port)))
}

/// Whether it is this machine: then nobody is between.
pub fn is_local(host: &Host) -> bool {
    match host {
        Host::Name(name) => name == "localhost",
        Host::Address(address) => address.is_loopback(),
    }
}

impl Origin {
    /// Of `HOST` or `HOST:PORT`. The usual port is the same as none.
    ///
    /// # Errors
    /// [`RegistryError::Address`], if it is neither.
    pub fn new(is_tls: bool, authority: &str) -> Result<Origin, RegistryError> {
        let usual = if is_tls { 443 } else { 80 };
        let reason = "it has no host, or none with a port from 1 to 65535";
        let wrong = || RegistryError::Address { url: excerpt(authority), reason };
        let (host, port) = host_and_port(authority).ok_or_else(wrong)?;
        Ok(Origin { is_tls, host, port: port.unwrap_or(usual) })
    }

    /// # Errors
    /// [`RegistryError::Address`], if it is no address of http or https.
    pub fn of(address: &Uri) -> Result<Origin, RegistryError> {
        let wrong = |reason| RegistryError::Address { url: excerpt(address), reason };
        let is_tls = match address.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wrong("it begins with neither https:// nor http://")),
        };
        let authority = address.authority().ok_or_else(|| wrong("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("it has a user's name in it"));
        }
        Origin::new(is_tls, authority.as_str())
    }

    /// Host, and port if it is not the usual one.
    pub fn authority(&self) -> String {
        match (self.is_tls, self.port) {
            (true, 443) | (false, 80) => self.host.to_string(),
            (_, port) => format!("{}:{port}", self.host),
        }
    }

    /// Whether nobody else reads what is sent there.
    pub fn is_private(&self) -> bool {
        self.is_tls || is_local(&self.host)
    }

    /// Where to connect to, as the C library sorts it.
    ///
    /// # Errors
    /// In words, if there is no address.
    pub async fn addresses(&self) -> Result<Vec<SocketAddr>, String> {
        let name = match &self.host {
            Host::Address(address) => return Ok(vec![SocketAddr::new(*address, self.port)]),
            Host::Name(name) => name,
        };
        let found = lookup_host((name.as_str(), self.port)).await.map_err(|error| error.to_string())?;
        let found: Vec<SocketAddr> = found.take(MOST_ADDRESSES).collect();
        if found.is_empty() { Err("its name has no address".into()) } else { Ok(found) }
    }
}

/// # Errors
/// [`RegistryError::Address`]
pub fn parse(address: &str) -> Result<Uri, RegistryError> {
    let reason = "it cannot be read";
    address.parse().map_err(|_| RegistryError::Address { url: excerpt(address), reason })
}

/// Where `location` leads from `base`.
///
/// # Errors
/// [`RegistryError::Address`], if it is no address, or less safe than this one.
pub fn resolve(base: &Uri, location: &str) -> Result<Uri, RegistryError> {
    let from = Origin::of(base)?;
    let address = if location.starts_with('/') && !location.starts_with("//") {
        parse(&format!("{from}{location}"))?
    } else {
        parse(location)?
    };
    let to = Origin::of(&address)?;
    if from.is_tls && !to.is_tls {
        let reason = "it leads from https to http";
        return Err(RegistryError::Address { url: excerpt(address), reason });
    }
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(address: &str) -> Result<Origin, String> {
        Origin::of(&parse(address).unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_usual_port_is_none() {
        for (address, other) in [
            ("https://r.example/", "https://R.example:443/x"),
            ("http://r.example/", "http://r.example:80/"),
            ("https://[::1]/", "https://[0:0::1]:443/"),
        ] {
            assert_eq!(origin(address), origin(other), "{address}");
        }
        assert_eq!(origin("https://r.example:443/").unwrap().to_string(), "https://r.example");
        assert_eq!(origin("https://[::1]:80/").unwrap().to_string(), "https://[::1]:80");
        assert_ne!(origin("https://r.example/"), origin("https://r.example:80/"));
        assert_ne!(origin("https://r.example/"), origin("http://r.example:443/"));
    }

    #[test]
    fn bad_ports_are_no_usual_ones() {
        for authority in ["h:99999", "h:0", "h:", "h:+80", "h:x", "[::1]:99999", "", ":80", "[::1", "::1"] {
            assert!(Origin::new(true, authority).is_err(), "{authority}");
        }
        assert!(resolve(&parse("http://h/").unwrap(), "https://h:99999/").is_err());
    }

    #[test]
    fn no_address_leads_to_a_less_safe_one() {
        let to = |base: &str, location: &str| {
            resolve(&parse(base).unwrap(), location)
                .map(|address| address.to_string())
                .map_err(|error| error.to_string())
        };
        let base = "https://r.example/v2/x";
        for (location, part) in [
            ("http://r.example/y", "from https to http"),
            ("http://127.0.0.1/y", "from https to http"),
            ("//x", "neither https:// nor http://"),
            ("//x/y", "neither https:// nor http://"),
            ("https://user:password@r.example/", "a user's name"),
            ("https://user@r.example/", "a user's name"),
            ("y", "neither https:// nor http://"),
            ("", "cannot be read"),
        ] {
            let said = to(base, location).unwrap_err();
            assert!(said.contains(part), "{location}: {said}");
        }
        assert_eq!(to(base, "/y?z").as_deref(), Ok("https://r.example/y?z"));
        assert_eq!(to("http://r.example:5000/v2/", "/y").as_deref(), Ok("http://r.example:5000/y"));
        assert_eq!(to(base, "https://other.example/y").as_deref(), Ok("https://other.example/y"));
        assert_eq!(to("http://r.example/", "https://r.example/y").as_deref(), Ok("https://r.example/y"));
    }
}
