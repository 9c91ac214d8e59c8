//! The HTTP API: from a request to an answer, in one direction.
//!
//! Route and headers are parsed once into types that hold only valid values; then the module store, admission, a worker; and whatever
//! came of it becomes an answer here. No file is read on this side.
//!
//! - [`route`], [`head`], [`arguments`], [`input`], [`cgi`], [`call`]: reading requests
//! - [`response`], [`answer`], [`problem`]: making answers; [`problem`] alone decides statuses

pub mod answer;
pub mod arguments;
mod call;
pub mod cgi;
mod head;
pub mod input;
pub mod problem;
mod response;
pub mod route;

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;

pub use self::response::without_body;
use self::{
    answer::{TEXT, Timing, add_invocation_headers, whole},
    problem::{Code, Problem},
    response::allow,
    route::Route,
};
use crate::{
    access_log::Record,
    admission::Refused,
    core::Core,
    exchange::{
        framing,
        request_body::{BodyBounds, RequestBody},
        response_body::{ResponseBody, Streamed},
    },
    invocation::{CancelOnDrop, CancelReason, CancelToken, Failure, InvocationId},
    limits::{Fraction, LimitCaps, Limits, RequestedLimits},
    sandbox::{self, KeepLast, Reply, Setup, Stderr},
    store::{
        function::Function,
        methods::{Methods, Use},
        name::ModuleName,
    },
    worker::{InFlight, Job, run::Invocation},
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
}

/// The API's state.
pub struct Api {
    pub settings: ApiSettings,
    pub core: Arc<Core>,
}

/// Both ends of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Peers {
    pub server: SocketAddr,
    pub client: SocketAddr,
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
    is_head: bool,
}

impl Api {
    /// Answers one request. Dropping the future, when the client leaves, stops the function.
    pub async fn handle(&self, mut request: Request<Incoming>, peers: Peers) -> Response<ResponseBody> {
        let arrived = Instant::now();
        let waits = request.extensions_mut().remove().unwrap_or_default();
        let request = request.map(|body| RequestBody::new(body, &self.settings.body, waits));
        let is_head = request.method() == Method::HEAD;
        let response = self.route(request, peers, arrived).await;
        if is_head { without_body(response) } else { response }
    }

    async fn route(&self, request: Request<RequestBody>, peers: Peers, arrived: Instant) -> Response<ResponseBody> {
        if let Err(problem) = head::check(&request) {
            return self.rejected(problem);
        }
        let result = match Route::parse(request.uri().path()) {
            Ok(Route::Module { name, below }) => return self.call(request, &name, below, peers, arrived).await,
            Ok(Route::Live | Route::Ready) if ![Method::GET, Method::HEAD].contains(request.method()) => {
                Err(Problem::method_not_allowed(request.method(), &HEALTH_METHODS))
            }
            Ok(Route::Live) => Ok(whole(StatusCode::OK, TEXT, "live\n")),
            Ok(Route::Ready) => Ok(self.ready()),
            Ok(Route::Root) => Err(Problem::new(Code::ModuleNotFound, "name a function: /{module}")),
            // `OPTIONS *` is about the server itself.
            Err(_) if request.method() == Method::OPTIONS && request.uri().path() == "*" => {
                Ok(allow(Methods::of_commands().allow()))
            }
            Err(error) => Err(error.into()),
        };
        result.unwrap_or_else(|problem| self.rejected(problem))
    }

    /// Answers a readiness probe of either port.
    pub fn ready(&self) -> Response<ResponseBody> {
        let report = self.core.readiness.probe(self.core.is_draining());
        let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        whole(status, TEXT, report.to_string())
    }

    /// Refuses a request for which there is no memory.
    pub fn no_memory(&self) -> Response<ResponseBody> {
        self.rejected(Problem::new(Code::QueueFull, "too many requests hold memory without having been admitted"))
    }

    /// Refuses a request that got no record: no function is known for it, or none may see it, or none is asked for.
    pub fn rejected(&self, problem: Problem) -> Response<ResponseBody> {
        tracing::info!(target: "invocation", status = problem.code.status().as_u16(), code = problem.code.as_str(), failure = problem.detail);
        self.core.metrics.rejected.with_label_values(&[problem.code.as_str()]).inc();
        problem.into_response()
    }

    async fn call(
        &self,
        request: Request<RequestBody>,
        name: &ModuleName,
        below: bool,
        peers: Peers,
        arrived: Instant,
    ) -> Response<ResponseBody> {
        let (function, limits) = match self.find(&request, name, below, arrived).await {
            Ok(found) => found,
            Err(problem) => return self.rejected(problem),
        };
        if let Some(methods) = &function.methods {
            match methods.usage(request.method()) {
                Use::Run => {}
                Use::Ask => return allow(methods.allow()),
                Use::Refuse => return self.rejected(Problem::method_not_allowed(request.method(), methods.allow())),
            }
        }
        let id = InvocationId::next();
        let record = Record::new(id, function.metrics.clone(), arrived);
        let timing = Timing { compile: arrived.elapsed(), ..Timing::new(id, function.tier) };
        record.compiled(timing.compile);
        function.invocations.inc();
        let cancel = CancelToken::default();
        let on_drop = CancelOnDrop::new(cancel.clone());
        let is_head = request.method() == Method::HEAD;
        let mut exchange = Exchange { arrived, function, record, cancel, on_drop, timing, is_head };
        let status = request.body().status();
        let result = tokio::select! {
            biased;
            result = self.invoke(request, name, limits, peers, &mut exchange) => result,
            end = status.broken() => Err(Failure::BodyUnreadable { reason: end.reason().into() }.into()),
        };
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
        let call = call::call(request, name, &function, peers, deadline, limits).await?;
        let queued = Instant::now();
        let permit = self
            .core
            .admission
            .admit(&function.share, limits.memory, deadline)
            .await
            .map_err(|refused| self.refused(refused))?;
        exchange.timing.queue = queued.elapsed();
        exchange.record.admitted(exchange.timing.queue);
        let (spending, waited) = tokio::select! {
            biased;
            spending = self.core.workers.spend(&function.cpu_budget, limits.cpu_quota, deadline) => spending,
            () = self.core.over.cancelled() => return Err(self.refused(Refused::Draining)),
        };
        let setup = Setup {
            id: exchange.timing.id,
            stderr: Stderr::new(function.name.clone(), exchange.timing.id, self.settings.stderr_in_errors),
            function: function.name.clone(),
            grants: function.grants.clone(),
            limits,
            deadline,
            max_output: self.settings.max_output,
            max_body: self.settings.body.length,
            buffer_limit: function.buffer_limit,
            preallocated: self.settings.preallocation.map_or(0, |share| share.of(limits.memory.bytes())),
            files: function.files.clone(),
            outbound: function.outbound(exchange.timing.id),
            memory: self.core.memory.reserve(exchange.timing.id, exchange.cancel.clone()),
        };
        let (reply, mut replied) = sandbox::reply();
        let job = Job {
            invocation: Invocation::new(call, setup, reply).after(waited),
            permit,
            record: exchange.record.clone(),
            estimate: function.estimate.clone(),
            spending,
            answers: self.core.budgets.answers.clone(),
            in_flight: InFlight::new(function.metrics.in_flight().clone()),
        };
        self.core.workers.run(job).map_err(|error| {
            tracing::error!(
                "cannot start a worker thread: {error}; lower --max-invocations or raise the limit on threads"
            );
            Problem::new(Code::Internal, "no worker thread could be started")
        })?;
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
    fn refused(&self, refused: Refused) -> Problem {
        let problem = Problem::from(refused);
        self.core.metrics.rejected.with_label_values(&[problem.code.as_str()]).inc();
        problem
    }

    fn answer(&self, reply: Reply, mut exchange: Exchange) -> Response<ResponseBody> {
        match reply {
            Reply::Ended { outcome, answer, hold } => {
                exchange.on_drop.disarm();
                exchange.timing.ended(&outcome);
                match response::ended(outcome, answer, exchange.function.output, exchange.is_head) {
                    Ok(response) => {
                        self.finished(response.map(|body| body.held(hold)), &exchange.record, &exchange.timing)
                    }
                    Err(problem) => self.failed(problem, exchange),
                }
            }
            Reply::Streaming { stream, cgroup, outcome } => {
                exchange.timing.cgroup = cgroup;
                match response::streaming(stream, exchange.function.output) {
                    Ok((response, source)) => {
                        let Exchange { record, cancel, on_drop, timing, .. } = exchange;
                        let streamed = Streamed { record: record.clone(), cancel, on_drop, outcome };
                        let body = if framing::is_bodiless(response.status()) {
                            ResponseBody::empty()
                        } else {
                            ResponseBody::streaming(source, streamed, self.settings.max_output)
                        };
                        self.finished(response.map(|()| body), &record, &timing)
                    }
                    // The function still runs: dropping the exchange cancels it.
                    Err(problem) => self.failed(problem, exchange),
                }
            }
        }
    }

    fn failed(&self, problem: Problem, exchange: Exchange) -> Response<ResponseBody> {
        let code = problem.code;
        exchange.record.answered(code.status(), code.as_str());
        self.with_invocation_headers(problem.into_response(), &exchange.timing)
    }

    fn finished(&self, response: Response<ResponseBody>, record: &Record, timing: &Timing) -> Response<ResponseBody> {
        record.answered(response.status(), "");
        self.with_invocation_headers(response, timing)
    }

    fn with_invocation_headers(&self, mut response: Response<ResponseBody>, timing: &Timing) -> Response<ResponseBody> {
        let in_flight = self.core.admission.in_flight();
        add_invocation_headers(response.headers_mut(), timing, in_flight, &self.settings.pod);
        response
    }
}
