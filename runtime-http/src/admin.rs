//! The admin port: health for probes, metrics for Prometheus, the box's state and its functions for operators.

use std::sync::Arc;

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use serde::Serialize;

use crate::{
    api::{
        Api,
        answer::{TEXT, whole},
        without_body,
    },
    exchange::response_body::ResponseBody,
    status::StatusSource,
};

/// Answers one request of the admin port.
pub fn handle(api: &Arc<Api>, status: &StatusSource, request: &Request<Incoming>) -> Response<ResponseBody> {
    let response = answer(api, status, request);
    if request.method() == Method::HEAD { without_body(response) } else { response }
}

fn answer(api: &Arc<Api>, status: &StatusSource, request: &Request<Incoming>) -> Response<ResponseBody> {
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        let mut response = whole(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "only GET and HEAD\n");
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/live" => whole(StatusCode::OK, TEXT, "live\n"),
        "/ready" => api.ready(),
        "/status" => json(&status.read()),
        "/metrics" => whole(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", api.core.metrics.render()),
        "/functions" => json(&api.core.store.listing()),
        _ => whole(StatusCode::NOT_FOUND, TEXT, "there is /live, /ready, /status, /metrics and /functions\n"),
    }
}

fn json(document: &impl Serialize) -> Response<ResponseBody> {
    let text_of = serde_json::to_string_pretty(document).expect("names and numbers are representable in JSON");
    whole(StatusCode::OK, "application/json", text_of + "\n")
}
