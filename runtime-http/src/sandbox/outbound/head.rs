//! Heads of requests and responses, between what the guest has and what is sent.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, header, uri::Scheme};
use wasmtime_wasi_http::{Error, Result};

use super::Destination;
use crate::invocation::Host;

/// Where `request` is to go.
///
/// # Errors
/// If it is no request to a host by a scheme that there is, or asks for more than a response.
pub fn destination<B>(request: &Request<B>) -> Result<Destination> {
    let authority = request.uri().authority().ok_or(Error::HttpRequestUriInvalid)?;
    // With a name and a password it would be another authority for the server than for whoever reads the grants.
    let host = Host::parse(authority.host()).filter(|_| !authority.as_str().contains('@'));
    let host = host.ok_or(Error::HttpRequestUriInvalid)?;
    let secure = match request.uri().scheme() {
        Some(scheme) if *scheme == Scheme::HTTPS => true,
        Some(scheme) if *scheme == Scheme::HTTP => false,
        _ => return Err(Error::HttpProtocolError),
    };
    // The rest of the authority is a port, or nothing.
    let port = match authority.as_str().strip_prefix(authority.host()) {
        Some("" | ":") => Some(if secure { 443 } else { 80 }),
        _ => authority.port_u16(),
    };
    // A tunnel would lead further than what is granted.
    if request.method() == Method::CONNECT {
        return Err(Error::HttpRequestMethodInvalid);
    }
    Ok(Destination { host, port: port.ok_or(Error::HttpRequestUriInvalid)?, secure })
}

/// Says that trailers are welcome, which some servers want to know (RFC 9110, section 10.1.4). A guest cannot say it.
pub fn welcome_trailers(headers: &mut HeaderMap, is_http2: bool) {
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    if is_http2 {
        headers.remove(header::CONNECTION);
    } else {
        headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
    }
}

/// The same fields in memory of their own: those that were received are parts of what was read.
pub fn copied(fields: &HeaderMap) -> HeaderMap {
    let mut copies = HeaderMap::with_capacity(fields.len());
    for (name, value) in fields {
        let name = HeaderName::from_bytes(name.as_str().as_bytes()).expect("it is a name already");
        let mut copy = HeaderValue::from_bytes(value.as_bytes()).expect("it is a value already");
        copy.set_sensitive(value.is_sensitive());
        copies.append(name, copy);
    }
    copies
}

/// What of a response's head the guest gets, in memory of its own.
pub fn received<B>(response: Response<B>) -> (Response<()>, B) {
    let (head, body) = response.into_parts();
    let mut copy = Response::new(());
    *copy.status_mut() = head.status;
    *copy.version_mut() = head.version;
    *copy.headers_mut() = copied(&head.headers);
    (copy, body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(method: &str, uri: &str) -> Result<String, String> {
        let request = Request::builder().method(method).uri(uri).body(()).unwrap();
        destination(&request).map(|destination| destination.to_string()).map_err(|error| format!("{error:?}"))
    }

    #[test]
    fn where_requests_go() {
        for (uri, to) in [
            ("http://Example.com/", "example.com:80"),
            ("https://example.com", "example.com:443"),
            ("https://example.com:/", "example.com:443"),
            ("http://example.com:8080/a?b", "example.com:8080"),
            ("http://[::1]:80/", "[::1]:80"),
            ("https://[::1]/", "[::1]:443"),
            ("http://127.0.0.1./", "127.0.0.1.:80"),
        ] {
            assert_eq!(of("GET", uri).as_deref(), Ok(to), "{uri}");
        }
        for (method, uri) in [
            ("GET", "http://user@example.com/"),
            ("GET", "http://a.example@example.com/"),
            ("GET", "http://example.com:65536/"),
            ("GET", "/path"),
            ("GET", "ftp://example.com/"),
            ("CONNECT", "http://example.com/"),
        ] {
            assert!(of(method, uri).is_err(), "{method} {uri}");
        }
    }

    #[test]
    fn a_copy_shares_no_memory() {
        let read = bytes::Bytes::from(vec![b'v'; 64]);
        let mut fields = HeaderMap::new();
        fields.append("x-custom", HeaderValue::from_maybe_shared(read.slice(0..8)).unwrap());
        fields.append("x-custom", HeaderValue::from_static("2"));
        let copy = copied(&fields);
        assert_eq!(copy, fields);
        assert_ne!(copy["x-custom"].as_bytes().as_ptr(), fields["x-custom"].as_bytes().as_ptr());
    }
}
