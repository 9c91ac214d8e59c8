//! The live page: `/` of the admin port, for people with a browser. One document, which asks for `/overview.json` and, with a token that its user
//! types, for `/functions/...`.
//!
//! Names of functions and what guests have written are hostile: the script puts them into the page as text alone, and the policy lets nothing
//! run, load or send but what is here.
//!
//! - [`host`]: whom a browser may take the box for

pub mod host;

use std::sync::LazyLock;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

use crate::{
    api::{answer::whole, content_policy::source},
    exchange::response_body::ResponseBody,
};

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// The document and the policy that names its parts.
static DOCUMENT: LazyLock<(Bytes, HeaderValue)> = LazyLock::new(|| {
    let page = PAGE.replace("/* STYLE */", STYLE).replace("/* SCRIPT */", SCRIPT);
    let policy = format!(
        "default-src 'none'; script-src {}; style-src {}; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'; trusted-types 'none'",
        source(SCRIPT),
        source(STYLE)
    );
    (page.into(), HeaderValue::from_str(&policy).expect("hashes and keywords are ASCII"))
});

/// The page.
pub fn response() -> Response<ResponseBody> {
    let (page, policy) = &*DOCUMENT;
    let mut response = whole(StatusCode::OK, "text/html; charset=utf-8", page.clone());
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy.clone());
    private(response)
}

/// What belongs to an answer that no other site may show, read or keep.
pub fn private(mut response: Response<ResponseBody>) -> Response<ResponseBody> {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS.as_str(), "nosniff"),
        (header::X_FRAME_OPTIONS.as_str(), "DENY"),
        (header::REFERRER_POLICY.as_str(), "no-referrer"),
        (header::CACHE_CONTROL.as_str(), "no-store"),
        ("cross-origin-resource-policy", "same-origin"),
        ("cross-origin-opener-policy", "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_whole_and_loads_nothing() {
        let (page, policy) = &*DOCUMENT;
        let page = std::str::from_utf8(page).unwrap();
        assert!(page.contains(STYLE) && page.contains(SCRIPT) && !page.contains("/* S"));
        assert_eq!((page.matches("<script>").count(), page.matches("</script>").count()), (1, 1));
        assert_eq!((page.matches("<style>").count(), page.matches("</style>").count()), (1, 1));
        for harmful in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "src=",
            "url(",
            "style=\"",
            "onclick",
            "Storage",
            "cookie",
        ] {
            assert!(!page.contains(harmful), "{harmful}");
        }
        // The namespace of its charts.
        assert_eq!((page.matches("://").count(), page.matches("http://www.w3.org/2000/svg").count()), (1, 1));
        assert!(policy.to_str().unwrap().starts_with("default-src 'none'; script-src 'sha256-"));
    }
}
