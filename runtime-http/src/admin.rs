//! The admin port: health for probes, metrics for Prometheus, the box's state and its functions for operators, who may put functions here.

use std::{net::SocketAddr, sync::Arc};

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
    upload::Uploads,
};

/// What the admin port answers from.
pub struct Admin {
    pub api: Arc<Api>,
    pub status: Arc<StatusSource>,
    pub uploads: Arc<Uploads>,
}

impl Admin {
    /// Answers one request.
    pub async fn handle(&self, request: Request<Incoming>, client: SocketAddr) -> Response<ResponseBody> {
        let is_head = request.method() == Method::HEAD;
        let response = if Uploads::takes(&request) {
            let answer = self.uploads.answer(request, client).await;
            answer.unwrap_or_else(|error| self.api.rejected(error.into()))
        } else {
            self.answer(&request)
        };
        if is_head { without_body(response) } else { response }
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<ResponseBody> {
        let Admin { api, status, .. } = self;
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
}

pub fn json(document: &impl Serialize) -> Response<ResponseBody> {
    let text_of = serde_json::to_string_pretty(document).expect("names and numbers are representable in JSON");
    whole(StatusCode::OK, "application/json", text_of + "\n")
}
