//! What a request's head must have before anything else of it is read.

use http::{HeaderMap, Request, Version, header, uri::Authority};

use super::problem::{Code, Problem};
use crate::{excerpt::excerpt, exchange::framing::listed};

/// # Errors
/// 400, if it is not said for which host the request is meant, or the body's framing is one that not everybody reads alike; 501, if it wants what
/// the server does not have.
pub fn check<B>(request: &Request<B>) -> Result<(), Problem> {
    let problem = |detail: &str| Err(Problem::new(Code::BadRequest, detail));
    match host(request) {
        Ok(()) => {}
        Err(detail) => return problem(detail),
    }
    // hyper takes any list that ends with `chunked`, and leaves the other codings to whoever reads the body (RFC 9112, section 6.1).
    let mut chunked = 0;
    for coding in listed(request.headers(), &header::TRANSFER_ENCODING) {
        if !coding.eq_ignore_ascii_case("chunked") {
            let coding = excerpt(coding);
            let detail = format!("transfer coding {coding:?} is not known here; the only one is `chunked`");
            return Err(Problem::new(Code::NotImplemented, detail));
        }
        chunked += 1;
    }
    if chunked > 1 {
        return problem("the transfer coding `chunked` is applied more than once");
    }
    // All functions are one site for a browser: a script that one of them had it install would answer for all.
    if request.headers().contains_key("service-worker") {
        return problem("functions have no service workers: one would answer for all functions at this address");
    }
    // Other upgrades are offers, which may be declined in silence (RFC 9110, section 7.8); a client of this one can go on only with it.
    if listed(request.headers(), &header::UPGRADE).any(|protocol| protocol.eq_ignore_ascii_case("websocket")) {
        let detail = "functions answer requests, each with one response; there are no WebSockets";
        return Err(Problem::new(Code::NotImplemented, detail));
    }
    Ok(())
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

    fn code_of(name: &str, values: &[&str]) -> Option<Code> {
        let request = Request::get("/hello").header("host", "box");
        let request = values.iter().fold(request, |request, value| request.header(name, *value));
        check(&request.body(()).unwrap()).err().map(|problem| problem.code)
    }

    #[test]
    fn chunked_alone() {
        for codings in [&[][..], &["chunked"], &["Chunked"], &[" chunked ,"]] {
            assert_eq!(code_of("transfer-encoding", codings), None, "{codings:?}");
        }
        for codings in [&["chunked, chunked"][..], &["chunked", "chunked"]] {
            assert_eq!(code_of("transfer-encoding", codings), Some(Code::BadRequest), "{codings:?}");
        }
        for codings in [&["gzip, chunked"][..], &["gzip", "chunked"], &["identity"], &["chunked;q=1"]] {
            assert_eq!(code_of("transfer-encoding", codings), Some(Code::NotImplemented), "{codings:?}");
        }
    }

    #[test]
    fn no_function_answers_for_others_in_a_browser() {
        assert_eq!(code_of("service-worker", &["script"]), Some(Code::BadRequest));
    }

    #[test]
    fn upgrades() {
        for protocols in [&["h2c"][..], &["TLS/1.0, h2c"], &[""]] {
            assert_eq!(code_of("upgrade", protocols), None, "{protocols:?}");
        }
        assert_eq!(code_of("upgrade", &["h2c, WebSocket"]), Some(Code::NotImplemented));
    }
}
