//! The admin port: health for probes, metrics for Prometheus, the state of the module store for operators.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;

use crate::api::{Api, answer::AnswerBody, without_body};

/// Answers one request of the admin port.
pub fn handle(api: &Arc<Api>, request: &Request<Incoming>) -> Response<AnswerBody> {
    let response = answer(api, request);
    if request.method() == Method::HEAD { without_body(response) } else { response }
}

fn answer(api: &Arc<Api>, request: &Request<Incoming>) -> Response<AnswerBody> {
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "only GET and HEAD\n");
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/live" => text(StatusCode::OK, "text/plain; charset=utf-8", "live\n"),
        "/ready" if api.is_draining() => {
            text(StatusCode::SERVICE_UNAVAILABLE, "text/plain; charset=utf-8", "draining\n")
        }
        "/ready" => text(StatusCode::OK, "text/plain; charset=utf-8", "ready\n"),
        "/metrics" => text(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", api.metrics.render()),
        "/functions" => {
            let listing = serde_json::to_string_pretty(&api.store.listing())
                .expect("names and numbers are representable in JSON");
            text(StatusCode::OK, "application/json", listing + "\n")
        }
        _ => text(
            StatusCode::NOT_FOUND,
            "text/plain; charset=utf-8",
            "there is /live, /ready, /metrics and /functions\n",
        ),
    }
}

fn text(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::full(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
