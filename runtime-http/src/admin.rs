//! The admin port: health for probes, metrics for Prometheus, the box's state, a live page and its functions for operators, who may put functions
//! here.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;

use crate::{
    api::{
        Api, Peers,
        answer::{TEXT, json, whole},
        problem::{Code, Problem},
        without_body,
    },
    config::PageConfig,
    exchange::response_body::ResponseBody,
    live_page::{self, host},
    metrics::openmetrics,
    overview::{query::Query, source::OverviewSource},
    status::StatusSource,
    upload::Uploads,
};

/// For who comes by a name that somebody else may have registered.
const NOT_OURS: &str = "this is not answered at this name: use the box's address, or start it with --admin-name NAME\n";

/// What the admin port answers from.
pub struct Admin {
    pub api: Arc<Api>,
    pub status: Arc<StatusSource>,
    pub uploads: Arc<Uploads>,
    pub overview: Arc<OverviewSource>,
    pub pages: PageConfig,
}

impl Admin {
    /// Answers one request.
    pub async fn handle(&self, request: Request<Incoming>, peers: Peers) -> Response<ResponseBody> {
        let is_head = request.method() == Method::HEAD;
        let response = if Uploads::takes(&request) {
            let answer = self.uploads.answer(request, &peers).await;
            // It has its own metric, and its own lines of the log: no function was called.
            answer.unwrap_or_else(Problem::into_response)
        } else {
            self.answer(&request).await
        };
        if is_head { without_body(response) } else { response }
    }

    async fn answer(&self, request: &Request<Incoming>) -> Response<ResponseBody> {
        let Admin { api, status, .. } = self;
        if ![Method::GET, Method::HEAD].contains(request.method()) {
            let mut response = whole(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "only GET and HEAD\n");
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match request.uri().path() {
            "/" | "/overview.json" if !self.is_ours(request) => whole(StatusCode::MISDIRECTED_REQUEST, TEXT, NOT_OURS),
            "/" if self.pages.live_page => live_page::response(),
            "/overview.json" => self.overview(request.uri().query().unwrap_or_default()).await,
            "/live" => whole(StatusCode::OK, TEXT, "live\n"),
            "/ready" => api.ready(),
            "/status" => json(&status.read()),
            "/metrics" => self.metrics(request.headers()),
            "/functions" => json(&api.core.store.listing()),
            _ => whole(
                StatusCode::NOT_FOUND,
                TEXT,
                "there is /, /live, /ready, /status, /overview.json, /metrics and /functions\n",
            ),
        }
    }

    /// In the format of OpenMetrics for who asks for it, where that has more to say.
    fn metrics(&self, headers: &HeaderMap) -> Response<ResponseBody> {
        let metrics = &self.api.core.metrics;
        let (exemplars, text) = (&metrics.traces.exemplars, metrics.render());
        let accepts =
            |value: &HeaderValue| value.to_str().is_ok_and(|value| value.contains("application/openmetrics-text"));
        if exemplars.are_on() && headers.get_all(header::ACCEPT).iter().any(accepts) {
            let text = exemplars.render(&String::from_utf8_lossy(&text));
            return whole(StatusCode::OK, openmetrics::CONTENT_TYPE, text);
        }
        whole(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text)
    }

    async fn overview(&self, query: &str) -> Response<ResponseBody> {
        match Query::parse(query) {
            Ok(query) => {
                let Some(document) = self.overview.document(query).await else {
                    return whole(StatusCode::SERVICE_UNAVAILABLE, TEXT, "the document cannot be made: the box ends\n");
                };
                live_page::private(whole(StatusCode::OK, "application/json", document))
            }
            Err(error) => self.api.rejected(Problem::new(Code::BadRequest, error.to_string())),
        }
    }

    /// What is for browsers is not answered at every name: see [`host`].
    fn is_ours(&self, request: &Request<Incoming>) -> bool {
        let is_ours = |authority: &str| host::is_ours(authority, &self.pages.admin_names);
        match (request.uri().authority(), request.headers().get(header::HOST)) {
            (Some(authority), _) => is_ours(authority.as_str()),
            (None, Some(host)) => host.to_str().is_ok_and(is_ours),
            // HTTP/1.0, which no browser speaks.
            (None, None) => true,
        }
    }
}
