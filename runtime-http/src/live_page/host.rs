//! Whom a browser may take the box for.
//!
//! A name of somebody else's that leads to the box's address makes the box, for a browser, a part of his site, whose scripts may then read what
//! the box answers ("DNS rebinding"). Names without a dot, or of a network or a cluster, are answered for by whoever is in that network. So what is
//! for browsers is answered at addresses, at `localhost`, which no resolver is asked for, and at the names that the operator gives.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Whether the authority of a request, a host with or without a port, is one of these.
pub fn is_ours(authority: &str, names: &[String]) -> bool {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    if let Some(address) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        return address.parse::<Ipv6Addr>().is_ok();
    }
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    // RFC 6761, section 6.3.
    let is_local = host == "localhost" || host.ends_with(".localhost");
    is_local || host.parse::<Ipv4Addr>().is_ok() || names.contains(&host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_somebody_else_may_answer_for_are_not_ours() {
        let ours = |host| is_ours(host, &["box.example.com".into()]);
        for good in [
            "127.0.0.1:8086",
            "10.0.0.7",
            "[::1]:8086",
            "[::1]",
            "localhost:8086",
            "LOCALHOST",
            "localhost.",
            "a.localhost",
            "box.example.com",
            "BOX.example.com.:8086",
        ] {
            assert!(ours(good), "{good}");
        }
        for bad in [
            "",
            ":8086",
            "evil.com",
            "box",
            "box.local",
            "box.default.svc.cluster.local:8086",
            "evil.com:8086",
            "127.0.0.1.evil.com",
            "a.box.example.com",
            "box.example.com.evil.com",
            "localhost.evil.com",
            "[evil.com]",
            "1.2.3",
            "evil.com:x",
        ] {
            assert!(!ours(bad), "{bad}");
        }
    }
}
