//! `/` of the function port for people: what answers here, and what the operator lets be listed. It is made once.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use super::{answer::whole, content_policy::source};
use crate::{exchange::response_body::ResponseBody, store::name::ModuleName};

const STYLE: &str =
    "body { font: 1rem/1.5 system-ui, sans-serif; max-width: 40rem; margin: 2rem auto; padding: 0 1rem }";
const BEGIN: &str = "\
<!doctype html>
<html lang=\"en\">
<meta charset=\"utf-8\">
<meta name=\"viewport\" content=\"width=device-width\">
<meta name=\"color-scheme\" content=\"light dark\">
<title>WasmBox</title>
<style>STYLE</style>
<main>
<h1>WasmBox</h1>
<p>WebAssembly functions answer here, each at its name: <code>/NAME</code>. <code>wasmbox invoke NAME</code> and <code>curl</code> call them.</p>
";

/// The page.
#[derive(Debug, Clone)]
pub struct RootPage {
    page: Bytes,
    /// Nothing is loaded, and nothing runs.
    policy: HeaderValue,
}

impl RootPage {
    pub fn new(listed: &[ModuleName]) -> RootPage {
        let mut page = BEGIN.replace("STYLE", STYLE);
        if listed.is_empty() {
            page.push_str("<p>Which there are is not listed here.</p>\n");
        } else {
            page.push_str("<h2>Functions</h2>\n<ul>\n");
            for name in listed {
                // No character of a name means anything in HTML.
                page.push_str(&format!("<li><a href=\"/{name}\">{name}</a>\n"));
            }
            page.push_str("</ul>\n");
        }
        page.push_str("</main>\n");
        let policy = format!(
            "default-src 'none'; style-src {}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            source(STYLE)
        );
        RootPage { page: page.into(), policy: HeaderValue::try_from(policy).expect("hashes and keywords are ASCII") }
    }

    pub fn response(&self) -> Response<ResponseBody> {
        let mut response = whole(StatusCode::OK, "text/html; charset=utf-8", self.page.clone());
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_SECURITY_POLICY, self.policy.clone());
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        headers.insert(header::VARY, HeaderValue::from_static("accept"));
        response
    }
}

/// Whether a document is asked for by name, as browsers do and programs that take anything do not (RFC 9110, section 12.5.1).
pub fn wants_html(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut ranges = values.flat_map(|value| value.split(','));
    ranges.any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let is_html = parts.next().is_some_and(|media| media.eq_ignore_ascii_case("text/html"));
        let refused = |parameter: &str| {
            let weight = parameter.split_once('=').filter(|(name, _)| name.trim().eq_ignore_ascii_case("q"));
            weight.is_some_and(|(_, weight)| weight.trim().parse().is_ok_and(|weight: f64| weight <= 0.0))
        };
        is_html && !parts.any(refused)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_asks_for_a_document_gets_one() {
        let wants = |values: &[&'static str]| {
            let values = values.iter().map(|value| (header::ACCEPT, HeaderValue::from_static(value)));
            wants_html(&values.collect())
        };
        for browser in
            ["text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "TEXT/HTML; q=0.1", "a/b, text/html"]
        {
            assert!(wants(&[browser]), "{browser}");
        }
        assert!(wants(&["a/b", "text/html"]));
        for program in ["*/*", "", "text/*", "application/json", "text/html;q=0", "text/html; Q=0.0", "text/htmlx"] {
            assert!(!wants(&[program]), "{program}");
        }
        assert!(!wants(&[]));
    }
}
