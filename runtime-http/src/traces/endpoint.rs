//! Where traces go, and what is said with them, as the variables of OpenTelemetry's exporters have it.

use std::{fmt, str::FromStr};

use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use percent_encoding::percent_decode_str;

use crate::invocation::Host;

/// Where a collector is, by HTTP.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub host: Host,
    pub port: u16,
    /// By TLS.
    pub secure: bool,
    /// With its query, which may have a secret.
    pub path: String,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "not the address of a collector that takes OTLP by HTTP: http://HOST:PORT or https://HOST:PORT, maybe with a path; the port is mostly 4318"
)]
pub struct BadEndpoint;

impl FromStr for Endpoint {
    type Err = BadEndpoint;

    fn from_str(text: &str) -> Result<Self, BadEndpoint> {
        let uri: Uri = text.parse().map_err(|_| BadEndpoint)?;
        let secure = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            Some(_) | None => return Err(BadEndpoint),
        };
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or(BadEndpoint)?;
        let port = match authority.as_str().strip_prefix(authority.host()) {
            Some("") => Some(if secure { 443 } else { 80 }),
            _ => authority.port_u16().filter(|port| *port != 0),
        };
        Ok(Endpoint {
            host: Host::parse(authority.host()).ok_or(BadEndpoint)?,
            port: port.ok_or(BadEndpoint)?,
            secure,
            path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        })
    }
}

/// Without the query.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "https" } else { "http" };
        let path = self.path.split('?').next().unwrap_or_default();
        write!(f, "{scheme}://{}:{}{path}", self.host, self.port)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Endpoint {
    pub fn has_query(&self) -> bool {
        self.path.contains('?')
    }

    /// Of traces, where this is that of all that OpenTelemetry has, which has no query.
    #[must_use]
    pub fn of_traces(mut self) -> Endpoint {
        self.path = format!("{}/v1/traces", self.path.trim_end_matches('/'));
        self
    }
}

/// Headers of each request to the collector: who may use it, mostly.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct OtlpHeaders(pub HeaderMap);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected NAME=VALUE,NAME=VALUE, with values that are percent-encoded where they have commas or other special characters"
)]
pub struct BadPairs;

/// What is left of a text like `a=1,b=2%2C3` (W3C Baggage).
fn pairs(text: &str) -> impl Iterator<Item = Result<(&str, String), BadPairs>> {
    text.split(',').filter(|pair| !pair.trim().is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').ok_or(BadPairs)?;
        let value = percent_decode_str(value.trim()).decode_utf8().map_err(|_| BadPairs)?;
        Ok((name.trim(), value.into_owned()))
    })
}

/// Those of the request itself.
const OURS: [HeaderName; 5] =
    [header::HOST, header::CONTENT_TYPE, header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION];

impl FromStr for OtlpHeaders {
    type Err = BadPairs;

    fn from_str(text: &str) -> Result<Self, BadPairs> {
        let mut headers = HeaderMap::new();
        for pair in pairs(text) {
            let (name, value) = pair?;
            let name = name.parse::<HeaderName>().ok().filter(|name| !OURS.contains(name)).ok_or(BadPairs)?;
            headers.append(name, HeaderValue::try_from(value).map_err(|_| BadPairs)?);
        }
        Ok(OtlpHeaders(headers))
    }
}

/// Without the values, which may be secrets.
impl fmt::Debug for OtlpHeaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

/// What all spans have in common, as the operator says it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResourceAttributes(pub Vec<(String, String)>);

impl FromStr for ResourceAttributes {
    type Err = BadPairs;

    fn from_str(text: &str) -> Result<Self, BadPairs> {
        let pair = |pair: Result<(&str, String), BadPairs>| {
            let (name, value) = pair?;
            let name = percent_decode_str(name).decode_utf8().map_err(|_| BadPairs)?;
            if name.is_empty() { Err(BadPairs) } else { Ok((name.into_owned(), value)) }
        };
        pairs(text).map(pair).collect::<Result<_, _>>().map(ResourceAttributes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        for (text, expected) in [
            ("http://localhost:4318", "http://localhost:4318/v1/traces"),
            ("http://localhost:4318/", "http://localhost:4318/v1/traces"),
            ("https://Collector.example/otlp/", "https://collector.example:443/otlp/v1/traces"),
            ("http://[::1]:4318/a", "http://[::1]:4318/a/v1/traces"),
        ] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!(endpoint.of_traces().to_string(), expected, "{text}");
        }
        let whole: Endpoint = "https://10.0.0.7:1/x?y=z".parse().unwrap();
        assert_eq!((whole.path.as_str(), whole.port, whole.secure), ("/x?y=z", 1, true));
        let secret: Endpoint = "https://collector/traces?api-key=secret?".parse().unwrap();
        assert!(secret.has_query() && secret.path.ends_with("?api-key=secret?"));
        assert_eq!(format!("{secret} {secret:?}"), "https://collector:443/traces https://collector:443/traces");
        for bad in [
            "",
            "localhost:4318",
            "/v1",
            "grpc://localhost:4317",
            "http://",
            "http://a@b:1",
            "http://a:0",
            "http://a:99999",
        ] {
            assert_eq!(bad.parse::<Endpoint>(), Err(BadEndpoint), "{bad:?}");
        }
    }

    #[test]
    fn pairs_are_read_as_opentelemetry_writes_them() {
        let headers: OtlpHeaders = "Authorization=Bearer%20secret%2C1, x-tenant = a,".parse().unwrap();
        assert_eq!(
            (&headers.0["authorization"], &headers.0["x-tenant"]),
            (&"Bearer secret,1".parse().unwrap(), &"a".parse().unwrap())
        );
        assert!(!format!("{headers:?}").contains("secret"));
        for bad in ["a", "a b=1", "host=x", "Content-Length=3", "a=%00", "=1"] {
            assert!(bad.parse::<OtlpHeaders>().is_err(), "{bad}");
        }
        let attributes: ResourceAttributes = "service.name=a%20b,deployment.environment.name=test".parse().unwrap();
        assert_eq!(attributes.0[0], ("service.name".to_owned(), "a b".to_owned()));
        assert!("=1".parse::<ResourceAttributes>().is_err() && "a".parse::<ResourceAttributes>().is_err());
    }
}
