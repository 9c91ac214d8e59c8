//! What a request's head must have before anything else of it is read.

use http::{HeaderMap, Request, Version, header, uri::Authority};

use super::problem::{Code, Problem};

/// # Errors
/// 400, if it is not said for which host the request is meant, or the body's framing is one that not everybody reads alike.
pub fn check<B>(request: &Request<B>) -> Result<(), Problem> {
    let problem = |detail: &str| Err(Problem::new(Code::BadRequest, detail));
    match host(request) {
        Ok(()) => {}
        Err(detail) => return problem(detail),
    }
    // hyper takes any list that ends with `chunked`, and leaves the other codings to whoever reads the body (RFC 9112, section 6.1).
    let mut codings = request.headers().get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => problem("the only transfer coding that is taken is `chunked`, once"),
    }
}

/// RFC 9112, section 3.2; in HTTP/2 the host is part of the target.
fn host<B>(request: &Request<B>) -> Result<(), &'static str> {
    let has_authority = request.uri().authority().is_some();
    match (hosts(request.headers())?, request.version()) {
        (Some(()), _) | (None, Version::HTTP_09 | Version::HTTP_10) => Ok(()),
        (None, Version::HTTP_2) if has_authority => Ok(()),
        (None, _) => Err("the header Host is missing"),
    }
}

/// Whether there is one.
fn hosts(headers: &HeaderMap) -> Result<Option<()>, &'static str> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let Some(host) = hosts.next() else { return Ok(None) };
    if hosts.next().is_some() {
        return Err("there is more than one header Host");
    }
    let authority =
        host.to_str().ok().filter(|host| !host.contains('@')).and_then(|host| host.parse::<Authority>().ok());
    let is_valid =
        authority.is_some_and(|authority| authority.port().is_some() || authority.as_str() == authority.host());
    if is_valid { Ok(Some(())) } else { Err("the header Host is not HOST or HOST:PORT") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(version: Version, target: &str, headers: &[(&str, &str)]) -> bool {
        let request = headers
            .iter()
            .fold(Request::get(target).version(version), |request, (name, value)| request.header(*name, *value));
        check(&request.body(()).unwrap()).is_ok()
    }

    #[test]
    fn one_valid_host() {
        for host in ["box", "box:80", "[::1]:8095", "10.0.0.7", "a-b.example."] {
            assert!(checked(Version::HTTP_11, "/hello", &[("host", host)]), "{host}");
        }
        for host in ["", "a b", "user@box", "box:port", "box/path", "a, b"] {
            assert!(!checked(Version::HTTP_11, "/hello", &[("host", host)]), "{host:?}");
        }
        assert!(!checked(Version::HTTP_11, "/hello", &[]));
        assert!(!checked(Version::HTTP_11, "http://box/hello", &[]));
        assert!(!checked(Version::HTTP_11, "/hello", &[("host", "box"), ("host", "box")]));
        assert!(checked(Version::HTTP_10, "/hello", &[]));
        assert!(checked(Version::HTTP_2, "http://box/hello", &[]));
        assert!(!checked(Version::HTTP_2, "/hello", &[]));
    }

    #[test]
    fn chunked_alone() {
        let coded = |codings: &[&str]| {
            let mut headers = vec![("host", "box")];
            headers.extend(codings.iter().map(|coding| ("transfer-encoding", *coding)));
            checked(Version::HTTP_11, "/hello", &headers)
        };
        assert!(coded(&[]) && coded(&["chunked"]) && coded(&["Chunked"]));
        for codings in [&["gzip, chunked"][..], &["gzip", "chunked"], &["chunked, chunked"], &["chunked", "chunked"]] {
            assert!(!coded(codings), "{codings:?}");
        }
    }
}
