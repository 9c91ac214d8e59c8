//! Whether the environment's proxy is for an API server, as kubectl decides it. One that the kubeconfig names is always used.

use std::{env, net::IpAddr};

use ipnet::IpNet;
use kube::config::Kubeconfig;

/// Whether `host`, of this context, is reached without the proxy that HTTPS_PROXY names.
pub fn is_left_out(kubeconfig: &Kubeconfig, context: &str, host: &str) -> bool {
    let context = kubeconfig.contexts.iter().find(|named| named.name == context);
    let cluster = context.and_then(|named| Some(named.context.as_ref()?.cluster.as_str()));
    let cluster = kubeconfig.clusters.iter().find(|named| Some(named.name.as_str()) == cluster);
    let proxy = cluster.and_then(|named| named.cluster.as_ref()?.proxy_url.as_deref());
    let exceptions = ["NO_PROXY", "no_proxy"].into_iter().find_map(|name| env::var(name).ok());
    proxy.is_none_or(str::is_empty) && is_excepted(host, &exceptions.unwrap_or_default())
}

/// Whether it is this machine, or in a list of hosts, domains, addresses and networks.
fn is_excepted(host: &str, exceptions: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    let address: Option<IpAddr> = host.parse().ok();
    let is_here = host == "localhost" || address.is_some_and(|address| address.is_loopback());
    let is_meant = |exception: &str| match address {
        _ if exception == "*" => true,
        Some(address) => {
            exception.parse::<IpNet>().is_ok_and(|network| network.contains(&address))
                || exception.parse() == Ok(address)
        }
        None => {
            let exception = exception.trim_start_matches('*').to_ascii_lowercase();
            let domain = exception.trim_start_matches('.');
            // With a dot before it, it is what is below the domain.
            host == exception
                || host.strip_suffix(domain).is_some_and(|below| !domain.is_empty() && below.ends_with('.'))
        }
    };
    is_here || exceptions.split(',').map(str::trim).any(is_meant)
}

#[cfg(test)]
mod tests {
    use super::is_excepted;

    #[test]
    fn hosts_are_left_out_by_name_domain_address_and_network() {
        for host in ["localhost", "127.0.0.1", "[::1]"] {
            assert!(is_excepted(host, ""), "{host}");
        }
        let list = "10.0.0.0/8, 192.0.2.7,example.com,.internal";
        for host in ["10.96.0.1", "192.0.2.7", "example.com", "api.Example.com", "api.internal"] {
            assert!(is_excepted(host, list), "{host}");
        }
        for host in ["11.0.0.1", "192.0.2.8", "badexample.com", "internal", "example.com.evil.test", "[2001:db8::1]"] {
            assert!(!is_excepted(host, list), "{host}");
        }
        assert!(is_excepted("anything", "*"));
        assert!(!is_excepted("anything", ",,"));
    }
}
