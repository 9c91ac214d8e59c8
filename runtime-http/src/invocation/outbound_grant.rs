//! Where HTTP requests of guests may go: a host, all hosts below a domain, or a network; and a port.
//!
//! What is written as a name grants a name: where that leads is known only when it is looked up. What is written as an address grants that address.

use std::{fmt, net::IpAddr};

use ipnet::IpNet;
use serde::Deserialize;

/// The port of a grant that names none.
const DEFAULT_PORT: u16 = 80;

/// Written `host:port`, `*.domain:port`, `address:port` or `network/bits:port`; addresses and networks of IPv6 in brackets. Without a port it
/// is port 80.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OutboundGrant {
    hosts: Hosts,
    port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Hosts {
    /// Lower case.
    Name(String),
    /// All names that end with this, which is a dot and a domain in lower case.
    Below(String),
    Network(IpNet),
}

/// The host that one request names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// Lower case.
    Name(String),
    Address(IpAddr),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?}; expected host:port, *.domain:port, network/bits:port or [address]:port")]
pub struct BadGrant(String);

impl OutboundGrant {
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether names must be looked up to use it.
    pub fn has_names(&self) -> bool {
        !matches!(self.hosts, Hosts::Network(_))
    }

    /// Whether a request to `host` and `port` is granted by this.
    pub fn grants(&self, host: &Host, port: u16) -> bool {
        self.port == port
            && match (&self.hosts, host) {
                (Hosts::Name(granted), Host::Name(name)) => granted == name,
                (Hosts::Below(domain), Host::Name(name)) => is_below(name, domain),
                (Hosts::Network(network), Host::Address(address)) => network.contains(address),
                (Hosts::Network(_), Host::Name(_)) | (Hosts::Name(_) | Hosts::Below(_), Host::Address(_)) => false,
            }
    }

    /// Whether all that `other` grants is granted by this.
    pub fn covers(&self, other: &OutboundGrant) -> bool {
        self.port == other.port
            && match (&self.hosts, &other.hosts) {
                (Hosts::Name(own), Hosts::Name(other)) => own == other,
                (Hosts::Below(domain), Hosts::Name(name)) => is_below(name, domain),
                (Hosts::Below(domain), Hosts::Below(other)) => other.ends_with(domain.as_str()),
                (Hosts::Network(own), Hosts::Network(other)) => own.contains(other),
                (Hosts::Name(_), _) | (Hosts::Below(_), Hosts::Network(_)) | (Hosts::Network(_), _) => false,
            }
    }
}

fn is_below(name: &str, domain: &str) -> bool {
    name.len() > domain.len() && name.ends_with(domain)
}

impl Host {
    /// Of a URI, in which an address of IPv6 is in brackets (RFC 3986, section 3.2.2). `None` if it is neither a name nor an address.
    pub fn parse(text: &str) -> Option<Host> {
        if let Some(address) = text.strip_prefix('[') {
            let address: std::net::Ipv6Addr = address.strip_suffix(']')?.parse().ok()?;
            return Some(Host::Address(address.to_canonical()));
        }
        match text.parse::<std::net::Ipv4Addr>() {
            Ok(address) => Some(Host::Address(address.into())),
            Err(_) => name(text).map(Host::Name),
        }
    }
}

/// A name in lower case, of the characters that names in DNS are made of.
fn name(text: &str) -> Option<String> {
    let is_label = |label: &str| label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    let fits = !text.is_empty() && text.len() <= 254 && text.split('.').all(is_label);
    fits.then(|| text.to_ascii_lowercase())
}

impl std::str::FromStr for OutboundGrant {
    type Err = BadGrant;

    fn from_str(text: &str) -> Result<Self, BadGrant> {
        parse(text).ok_or_else(|| BadGrant(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<OutboundGrant> {
    let (hosts, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (hosts, rest) = rest.split_once(']')?;
            let hosts = network(hosts).filter(|network| matches!(network, IpNet::V6(_)))?;
            (Hosts::Network(hosts), if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) })
        }
        None => {
            let (hosts, port) = text.split_once(':').map_or((text, None), |(hosts, port)| (hosts, Some(port)));
            let hosts = match (network(hosts), hosts.strip_prefix('*')) {
                (Some(network), _) => Hosts::Network(network),
                (None, Some(below)) => Hosts::Below(format!(".{}", name(below.strip_prefix('.')?)?)),
                (None, None) => Hosts::Name(name(hosts)?),
            };
            (hosts, port)
        }
    };
    let port = match port {
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => port.parse().ok().filter(|port| *port != 0)?,
        Some(_) => return None,
        None => DEFAULT_PORT,
    };
    Some(OutboundGrant { hosts, port })
}

/// A network, or an address, which is a network of its own.
fn network(text: &str) -> Option<IpNet> {
    match text.parse::<IpNet>() {
        Ok(network) => Some(network.trunc()),
        Err(_) => Some(text.parse::<IpAddr>().ok()?.to_canonical().into()),
    }
}

impl<'de> Deserialize<'de> for OutboundGrant {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for OutboundGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.hosts {
            Hosts::Name(name) => write!(f, "{name}")?,
            Hosts::Below(domain) => write!(f, "*{domain}")?,
            Hosts::Network(network) => {
                let alone = network.prefix_len() == network.max_prefix_len();
                match (network.addr(), alone) {
                    (IpAddr::V4(address), true) => write!(f, "{address}")?,
                    (IpAddr::V6(address), true) => write!(f, "[{address}]")?,
                    (IpAddr::V4(_), false) => write!(f, "{network}")?,
                    (IpAddr::V6(_), false) => write!(f, "[{network}]")?,
                }
            }
        }
        write!(f, ":{}", self.port)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Name(name) => f.write_str(name),
            Host::Address(IpAddr::V4(address)) => write!(f, "{address}"),
            Host::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(text: &str) -> OutboundGrant {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_written_is_what_is_shown() {
        for (text, shown) in [
            ("api.internal", "api.internal:80"),
            ("API.internal:8080", "api.internal:8080"),
            ("*.Example.com:443", "*.example.com:443"),
            ("10.0.0.7:5000", "10.0.0.7:5000"),
            ("10.1.2.3/8:443", "10.0.0.0/8:443"),
            ("[::1]:80", "[::1]:80"),
            ("[fd00::1/8]:443", "[fd00::/8]:443"),
            ("0.0.0.0/0:443", "0.0.0.0/0:443"),
        ] {
            assert_eq!(grant(text).to_string(), shown);
            assert_eq!(grant(shown), grant(text), "it can be read again");
        }
        for text in [
            "",
            "a b",
            "a:",
            "a:0",
            "a:65536",
            "a:+1",
            "*",
            "*:80",
            "*.",
            "**.a",
            "a.*",
            "*a.b",
            "u@a",
            "a/b",
            "10.0.0.0/33",
            "[10.0.0.1]",
            "[::1",
            "[::1]80",
            "[a]:80",
            "::1",
            "https://a",
            "10.0.0.0/8/9",
        ] {
            let said = text.parse::<OutboundGrant>().unwrap_err().to_string();
            assert!(said.contains("expected host:port"), "{said}");
        }
    }

    #[test]
    fn names_grant_names_and_addresses_grant_addresses() {
        let granted = |grant_text: &str, host: &str, port| grant(grant_text).grants(&Host::parse(host).unwrap(), port);
        assert!(granted("a.example:443", "A.Example", 443));
        assert!(!granted("a.example:443", "a.example", 80) && !granted("a.example:443", "a.example.", 443));
        assert!(granted("*.example:443", "b.example", 443) && granted("*.example:443", "c.b.example", 443));
        for elsewhere in ["example", "anexample", ".example", "b.example.", "b.example.org"] {
            assert!(!granted("*.example:443", elsewhere, 443), "{elsewhere}");
        }
        assert!(granted("10.0.0.0/8:80", "10.255.0.1", 80) && granted("10.0.0.0/8:80", "[::ffff:10.0.0.1]", 80));
        assert!(!granted("10.0.0.0/8:80", "11.0.0.1", 80) && !granted("0.0.0.0/0:80", "a", 80));
        assert!(granted("[fd00::/8]:80", "[fd12::1]", 80) && !granted("[fd00::/8]:80", "[fe80::1]", 80));
        // Resolvers would take these for addresses; here they are names, which nothing grants.
        for text in ["127.1", "0x7f000001", "127.0.0.1.", "2130706433", "0177.0.0.1"] {
            assert!(!granted("127.0.0.0/8:80", text, 80), "{text}");
        }
    }

    #[test]
    fn what_covers_what() {
        for (whole, part, covers) in [
            ("a.b:80", "a.b:80", true),
            ("a.b:80", "a.b:81", false),
            ("*.b:80", "a.b:80", true),
            ("*.b:80", "*.a.b:80", true),
            ("*.b:80", "*.b:80", true),
            ("*.a.b:80", "*.b:80", false),
            ("*.b:80", "b:80", false),
            ("*.b:80", "*.ab:80", false),
            ("a.b:80", "*.a.b:80", false),
            ("10.0.0.0/8:80", "10.1.0.0/16:80", true),
            ("10.1.0.0/16:80", "10.0.0.0/8:80", false),
            ("10.0.0.0/8:80", "10.0.0.1:80", true),
            ("0.0.0.0/0:80", "a.b:80", false),
            ("0.0.0.0/0:80", "[::1]:80", false),
        ] {
            assert_eq!(grant(whole).covers(&grant(part)), covers, "{whole} {part}");
        }
    }

    #[test]
    fn hosts_of_requests() {
        for text in ["", "a b", "[::1", "::1", "[1.2.3.4]", "[fe80::1%eth0]", "a@b", "a/b", "ä", "a\0"] {
            assert_eq!(Host::parse(text), None, "{text:?}");
        }
        assert_eq!(Host::parse("[::1]").unwrap().to_string(), "[::1]");
    }
}
