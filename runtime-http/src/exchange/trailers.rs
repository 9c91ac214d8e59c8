//! What of a guest's trailers goes out: those that their client takes, and none that say how a message is framed, routed or to be read.
//!
//! HTTP/1.1 has trailers behind chunked bodies alone, and hyper sends those alone that the head announces. HTTP/2 needs neither.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Version, header};

use super::framing::listed;
use crate::limits::fields::Fields;

/// Fields whose meaning is needed before the body (RFC 9110, section 6.5.1): framing, connections and routing, request modifiers and response
/// controls, authentication, and how the body is to be read.
const BEFORE_THE_BODY: [HeaderName; 40] = [
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::TRAILER,
    header::CONNECTION,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::HOST,
    header::TE,
    header::EXPECT,
    header::MAX_FORWARDS,
    header::RANGE,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
    header::IF_RANGE,
    header::AGE,
    header::CACHE_CONTROL,
    header::PRAGMA,
    header::EXPIRES,
    header::DATE,
    header::VARY,
    header::WARNING,
    header::LOCATION,
    header::RETRY_AFTER,
    header::ALLOW,
    header::REFRESH,
    header::AUTHORIZATION,
    header::PROXY_AUTHORIZATION,
    header::PROXY_AUTHENTICATE,
    header::WWW_AUTHENTICATE,
    header::COOKIE,
    header::SET_COOKIE,
    header::CONTENT_ENCODING,
    header::CONTENT_TYPE,
    header::CONTENT_RANGE,
    header::CONTENT_LANGUAGE,
    header::CONTENT_LOCATION,
    header::CONTENT_DISPOSITION,
];

/// The most fields that are announced.
const MOST_ANNOUNCED: usize = 32;

/// Which trailers a client takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    None,
    /// Over HTTP/1.1: it asked for them (`TE: trailers`).
    Announced,
    /// Over HTTP/2, with whatever names.
    All,
}

impl Accepted {
    /// In the response to `request`. The one to HEAD has no body, and nothing behind it.
    pub fn by<B>(request: &Request<B>) -> Accepted {
        let asks = || listed(request.headers(), &header::TE).any(|coding| coding.eq_ignore_ascii_case("trailers"));
        match request.version() {
            _ if request.method() == Method::HEAD => Accepted::None,
            Version::HTTP_2 => Accepted::All,
            Version::HTTP_11 if asks() => Accepted::Announced,
            _ => Accepted::None,
        }
    }

    /// What passes in a response of a guest with these headers, out of which its announcement is taken. `is_reserved`: names that are the
    /// server's own.
    pub fn take(self, headers: &mut HeaderMap, is_reserved: fn(&HeaderName) -> bool) -> Passing {
        let mut announced = Vec::new();
        if self != Accepted::None {
            for name in listed(headers, &header::TRAILER) {
                if let Ok(name) = HeaderName::try_from(name)
                    && announced.len() < MOST_ANNOUNCED
                    && !announced.contains(&name)
                    && may_trail(&name, is_reserved)
                {
                    announced.push(name);
                }
            }
        }
        headers.remove(header::TRAILER);
        Passing { accepted: self, announced, is_reserved }
    }
}

fn may_trail(name: &HeaderName, is_reserved: fn(&HeaderName) -> bool) -> bool {
    !BEFORE_THE_BODY.contains(name) && !is_reserved(name)
}

/// What passes of the trailers of one response.
#[derive(Debug)]
pub struct Passing {
    accepted: Accepted,
    announced: Vec<HeaderName>,
    is_reserved: fn(&HeaderName) -> bool,
}

impl Passing {
    /// Nothing.
    #[cfg(test)]
    pub fn none() -> Passing {
        Passing { accepted: Accepted::None, announced: Vec::new(), is_reserved: |_| true }
    }

    /// Whether the body has to be sent in chunks, since trailers may follow it.
    pub fn needs_chunks(&self) -> bool {
        self.accepted == Accepted::Announced && !self.announced.is_empty()
    }

    /// The field `Trailer` of the response's head.
    pub fn announcement(&self) -> Option<HeaderValue> {
        let names: Vec<_> = self.announced.iter().map(HeaderName::as_str).collect();
        HeaderValue::try_from(names.join(", ")).ok().filter(|names| !names.is_empty())
    }

    /// What passes of `trailers`, if any does.
    pub fn filter(&self, mut trailers: HeaderMap) -> Option<HeaderMap> {
        let passes = |name: &HeaderName| match self.accepted {
            Accepted::None => false,
            Accepted::Announced => self.announced.contains(name),
            Accepted::All => may_trail(name, self.is_reserved),
        };
        let refused: Vec<_> = trailers.keys().filter(|name| !passes(name)).cloned().collect();
        for name in refused {
            trailers.remove(name);
        }
        (!trailers.is_empty() && Fields::check(&trailers).is_ok()).then_some(trailers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passing(accepted: Accepted, announced: &'static str) -> (Passing, HeaderMap) {
        let mut headers = HeaderMap::new();
        headers.insert(header::TRAILER, HeaderValue::from_static(announced));
        (accepted.take(&mut headers, |name| name.as_str().starts_with("wasmbox-")), headers)
    }

    fn passed(passing: &Passing, names: &[&'static str]) -> usize {
        let value = || HeaderValue::from_static("x");
        let trailers = names.iter().map(|name| (HeaderName::from_static(name), value())).collect();
        passing.filter(trailers).map_or(0, |trailers| trailers.len())
    }

    #[test]
    fn who_takes_trailers() {
        let by = |method: Method, version, te: &'static str| {
            Accepted::by(&Request::builder().method(method).version(version).header("te", te).body(()).unwrap())
        };
        assert_eq!(by(Method::GET, Version::HTTP_11, "gzip;q=0.5, Trailers"), Accepted::Announced);
        assert_eq!(by(Method::GET, Version::HTTP_11, "gzip"), Accepted::None);
        assert_eq!(by(Method::GET, Version::HTTP_10, "trailers"), Accepted::None);
        assert_eq!(by(Method::GET, Version::HTTP_2, ""), Accepted::All);
        assert_eq!(by(Method::HEAD, Version::HTTP_2, "trailers"), Accepted::None);
    }

    #[test]
    fn what_is_announced_and_may_trail_passes() {
        let (http1, headers) = passing(Accepted::Announced, "X-Sum, content-length, , x y, X-Sum, Wasmbox-Id, etag");
        assert!(headers.is_empty(), "what a guest announces is never left for others");
        assert_eq!(http1.announcement().unwrap(), "x-sum, etag");
        assert!(http1.needs_chunks());
        assert_eq!(passed(&http1, &["x-sum", "content-length", "wasmbox-id", "x-other"]), 1);
        assert_eq!(passed(&http1, &["x-other"]), 0);
        let (http2, _) = passing(Accepted::All, "");
        assert!(!http2.needs_chunks() && http2.announcement().is_none());
        assert_eq!(passed(&http2, &["x-sum", "x-other", "transfer-encoding", "wasmbox-id"]), 2);
        for accepted in [Accepted::None, Accepted::Announced] {
            let (none, _) = passing(accepted, "transfer-encoding, set-cookie");
            assert!(!none.needs_chunks() && none.announcement().is_none());
            assert_eq!(passed(&none, &["transfer-encoding", "set-cookie", "x-sum"]), 0);
        }
    }

    #[test]
    fn how_much() {
        let many: Vec<_> = (0..10_000).map(|index| format!("x-{index}")).collect();
        let mut headers = HeaderMap::from_iter([(header::TRAILER, HeaderValue::try_from(many.join(",")).unwrap())]);
        let passing = Accepted::Announced.take(&mut headers, |_| false);
        assert_eq!(passing.announced.len(), MOST_ANNOUNCED);
        let long = HeaderValue::try_from("x".repeat(15 << 10)).unwrap();
        assert!(passing.filter(HeaderMap::from_iter([(HeaderName::from_static("x-1"), long)])).is_none());
    }
}
