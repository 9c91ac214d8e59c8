//! The HTTP API: from a request to an answer, in one direction.
//!
//! Route and headers are parsed once into types that hold only valid values; then the module store, admission, a worker; and whatever
//! came of it becomes an answer here. No file is read on this side.
//!
//! - [`route`], [`head`], [`arguments`], [`input`], [`cgi`], [`call`]: reading requests
//! - [`start`]: admission, and the worker, or an instance that serves others; [`setup`]: what an admitted invocation is given
//! - [`finish`]: from what came of it to the answer
//! - [`response`], [`answer`], [`root_page`], [`content_policy`], [`problem`]: making answers; [`problem`] alone decides statuses

pub mod answer;
pub mod arguments;
mod call;
pub mod cgi;
pub mod content_policy;
mod finish;
mod head;
pub mod input;
pub mod problem;
mod response;
pub mod root_page;
pub mod route;
mod setup;
mod start;

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;

pub use self::response::without_body;
use self::{
    answer::{TEXT, Timing, whole},
    problem::{Code, Problem},
    response::allow,
    root_page::RootPage,
    route::Route,
    start::Start,
};
use crate::{
    access_log::Record,
    admission::Refused,
    core::Core,
    exchange::{
        budget::ClientBudgets,
        expectation,
        request_body::{BodyBounds, RequestBody},
        response_body::ResponseBody,
        trailers::Accepted,
    },
    invocation::{CancelOnDrop, CancelReason, CancelToken, Failure, InvocationId, trace_id::TraceId},
    limits::{Fraction, LimitCaps, Limits, RequestedLimits},
    sandbox::{self, Call, KeepLast, Reply},
    store::{
        function::Function,
        methods::{Methods, Use},
        name::ModuleName,
    },
    traces::Traces,
};

/// What `/-/live` and `/-/ready` answer to.
const HEALTH_METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD");
/// How long after the deadline the worker's own word is waited for, which says what the invocation has used.
const DEADLINE_GRACE: Duration = Duration::from_millis(500);

/// Bounds and names of the API.
#[derive(Debug, Clone)]
pub struct ApiSettings {
    pub defaults: Limits,
    pub caps: LimitCaps,
    /// Bounds of a request's body, and the most bytes of an answer's.
    pub body: BodyBounds,
    pub max_output: u64,
    /// Whether clients are told what a failed function wrote last.
    pub stderr_in_errors: KeepLast,
    /// The share of `Memory-Request` that is made resident before a guest runs.
    pub preallocation: Option<Fraction>,
    /// The header `Pod`.
    pub pod: HeaderValue,
    /// What people get at `/`.
    pub root_page: RootPage,
}

/// The API's state.
pub struct Api {
    pub settings: ApiSettings,
    pub core: Arc<Core>,
    /// `None`: there are none, and what requests say of theirs is passed on as it is.
    pub traces: Option<Arc<Traces>>,
}

/// Both ends of a connection.
#[derive(Debug, Clone)]
pub struct Peers {
    pub server: SocketAddr,
    pub client: SocketAddr,
    /// What the client may hold outside of invocations.
    pub budgets: Arc<ClientBudgets>,
}

/// What the client's side holds of an invocation.
struct Exchange {
    arrived: Instant,
    function: Arc<Function>,
    record: Arc<Record>,
    cancel: CancelToken,
    /// Cancels the guest if the client leaves. Disarmed when there is none any more.
    on_drop: CancelOnDrop,
    timing: Timing,
    /// What its client takes of the answer.
    is_head: bool,
    trailers: Accepted,
}

impl Api {
    /// Answers one request. Dropping the future, when the client leaves, stops the function.
    pub async fn handle(&self, mut request: Request<Incoming>, peers: Peers) -> Response<ResponseBody> {
        let arrived = Instant::now();
        let waits = request.extensions_mut().remove().unwrap_or_default();
        let is_expected = expectation::is_expected(&request);
        let request = request.map(|body| {
            let body = RequestBody::new(body, &self.settings.body, waits, &peers.budgets.bodies);
            if is_expected { body.expected() } else { body }
        });
        let expectation = request.body().expectation();
        let is_head = request.method() == Method::HEAD;
        let mut response = self.route(request, peers, arrived).await;
        if expectation.is_some_and(|expectation| expectation.end()) {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if is_head { without_body(response) } else { response }
    }

    async fn route(&self, mut request: Request<RequestBody>, peers: Peers, arrived: Instant) -> Response<ResponseBody> {
        if let Err(problem) = head::check(&request) {
            return self.refused(problem, &mut request, arrived);
        }
        let result = match Route::parse(request.uri().path()) {
            Ok(Route::Module { name, below }) => return self.call(request, &name, below, peers, arrived).await,
            Ok(Route::Live | Route::Ready) if ![Method::GET, Method::HEAD].contains(request.method()) => {
                Err(Problem::method_not_allowed(request.method(), &HEALTH_METHODS))
            }
            Ok(Route::Live) => Ok(whole(StatusCode::OK, TEXT, "live\n")),
            Ok(Route::Ready) => Ok(self.ready()),
            Ok(Route::Root)
                if [Method::GET, Method::HEAD].contains(request.method())
                    && root_page::wants_html(request.headers()) =>
            {
                Ok(self.settings.root_page.response())
            }
            Ok(Route::Root) => Err(Problem::new(Code::ModuleNotFound, "name a function: /{module}")),
            // `OPTIONS *` is about the server itself.
            Err(_) if request.method() == Method::OPTIONS && request.uri().path() == "*" => {
                Ok(allow(Methods::of_commands().allow()))
            }
            Err(error) => Err(error.into()),
        };
        result.unwrap_or_else(|problem| self.refused(problem, &mut request, arrived))
    }

    /// Answers a readiness probe of either port.
    pub fn ready(&self) -> Response<ResponseBody> {
        let report = self.core.readiness.probe(self.core.is_draining());
        let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        whole(status, TEXT, report.to_string())
    }

    /// Refuses a request for which there is no memory.
    pub fn no_memory(&self) -> Response<ResponseBody> {
        self.rejected(Problem::new(Code::QueueFull, "requests of this client, or of all, hold too much memory before they are admitted; try again, or send fewer at once"))
    }

    /// Refuses a request of which nothing is known.
    pub fn rejected(&self, problem: Problem) -> Response<ResponseBody> {
        self.reject(problem, None)
    }

    /// Refuses a request that gets no record: no function is known for it, or none may see it, or none is asked for.
    fn refused(
        &self,
        problem: Problem,
        request: &mut Request<RequestBody>,
        arrived: Instant,
    ) -> Response<ResponseBody> {
        let answer = (problem.code.status(), problem.code.as_str());
        let trace = self.traces.as_ref().map(|traces| traces.refused(request, answer, arrived));
        self.reject(problem, trace)
    }

    fn reject(&self, problem: Problem, trace: Option<TraceId>) -> Response<ResponseBody> {
        let trace_id = trace.map(tracing::field::display);
        tracing::info!(
            target: "invocation",
            trace_id,
            status = problem.code.status().as_u16(),
            code = problem.code.as_str(),
            failure = problem.detail
        );
        self.core.metrics.rejected.with_label_values(&[problem.code.as_str()]).inc();
        problem.into_response()
    }

    async fn call(
        &self,
        mut request: Request<RequestBody>,
        name: &ModuleName,
        below: bool,
        peers: Peers,
        arrived: Instant,
    ) -> Response<ResponseBody> {
        let (function, limits) = match self.find(&request, name, below, arrived).await {
            Ok(found) => found,
            Err(problem) => return self.refused(problem, &mut request, arrived),
        };
        if let Some(methods) = &function.methods {
            match methods.usage(request.method()) {
                Use::Run => {}
                Use::Ask => return allow(methods.allow()),
                Use::Refuse => {
                    let problem = Problem::method_not_allowed(request.method(), methods.allow());
                    return self.refused(problem, &mut request, arrived);
                }
            }
        }
        let id = InvocationId::next();
        let trace = self.traces.as_ref().map(|traces| Box::new(traces.begin(&mut request, limits, arrived)));
        let record = Record::new(id, function.metrics.clone(), arrived, trace);
        let timing = Timing { compile: arrived.elapsed(), ..Timing::new(id, function.tier) };
        record.compiled(timing.compile);
        function.invocations.inc();
        let cancel = CancelToken::default();
        let on_drop = CancelOnDrop::new(cancel.clone());
        let is_head = request.method() == Method::HEAD;
        let trailers = Accepted::by(&request);
        let mut exchange = Exchange { arrived, function, record, cancel, on_drop, timing, is_head, trailers };
        let status = request.body().status();
        let expectation = request.body().expectation();
        let result = tokio::select! {
            biased;
            result = self.invoke(request, name, limits, peers, &mut exchange) => result,
            end = status.broken() => Err(Failure::BodyUnreadable { reason: end.reason().into() }.into()),
        };
        let is_streaming = matches!(result, Ok(Reply::Streaming { .. }));
        if let Some(expectation) = expectation.filter(|_| is_streaming) {
            expectation.before_head().await;
        }
        match result {
            Ok(reply) => self.answer(reply, exchange),
            Err(problem) => self.failed(problem, exchange),
        }
    }

    /// The function, ready, and this request's limits.
    async fn find(
        &self,
        request: &Request<RequestBody>,
        name: &ModuleName,
        below: bool,
        arrived: Instant,
    ) -> Result<(Arc<Function>, Limits), Problem> {
        let admitted = self.core.sizing.now();
        let (defaults, caps) = (admitted.defaults(self.settings.defaults), admitted.caps(self.settings.caps));
        let requested = RequestedLimits::parse(request.headers(), &caps)?;
        let patience = requested.timeout(&defaults, &caps);
        let function = tokio::select! {
            biased;
            function = self.core.store.get(name, arrived + patience.duration()) => function?,
            () = self.core.over.cancelled() => return Err(Refused::Draining.into()),
        };
        if below && !function.has_paths() {
            let detail = format!(
                "{name} is a command and has no paths below its name; call /{name}, or set path = \"prefix\" in its settings"
            );
            return Err(Problem::new(Code::ModuleNotFound, detail));
        }
        let limits = requested.within(&function.limits.over_defaults(defaults), &function.caps.over_caps(caps))?;
        Ok((function, limits))
    }

    /// Reads what of the body must be read, waits for admission, and for the worker's reply.
    async fn invoke(
        &self,
        request: Request<RequestBody>,
        name: &ModuleName,
        limits: Limits,
        peers: Peers,
        exchange: &mut Exchange,
    ) -> Result<Reply, Problem> {
        let function = exchange.function.clone();
        let deadline = exchange.arrived + limits.timeout.duration();
        let call = call::call(request, name, &function, &peers, deadline, limits).await?;
        let (reply, mut replied) = sandbox::reply();
        let start = Start { limits, deadline, budgets: peers.budgets, reply };
        match (call, &function.carriers) {
            (Call::Http(program, request, _), Some(carriers)) => {
                self.share(start, carriers, program, request, exchange).await?;
            }
            (call, _) => self.start(start, call, exchange).await?,
        }
        let reply = match tokio::time::timeout_at(deadline.into(), &mut replied).await {
            Ok(reply) => reply,
            Err(_) => {
                // The worker sees its deadline itself, unless its guest is in a long instruction: then nobody waits for it but its permit.
                exchange.cancel.cancel(CancelReason::Deadline);
                tokio::time::timeout(DEADLINE_GRACE, replied)
                    .await
                    .map_err(|_| Failure::DeadlineExceeded { timeout_ms: limits.timeout.duration().as_millis() })?
            }
        };
        // The channel closes without a reply only if the worker panicked.
        reply.map_err(|_| Problem::new(Code::Internal, "the worker failed; the server's log says why"))
    }

    /// Counts what admission refused. It has a record, and so a line in the log, too.
    fn not_admitted(&self, refused: Refused) -> Problem {
        let problem = Problem::from(refused);
        self.core.metrics.rejected.with_label_values(&[problem.code.as_str()]).inc();
        problem
    }
}
